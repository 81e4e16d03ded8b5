"""1-D convolution through short Fourier tiles: the layer, its tiles, and when it is the faster one."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

MEMORY_COST = 100
"""What an element that is written and read again costs, in multiplications: fitted to the times of many tilings."""

SIGNALS = 100
"""Signals in a step that share one transform of the kernel, for the cost only; a batch of 5 trajectories has that."""


@dataclass(frozen=True)
class Tiling:
    """A signal of `tiles · length` samples, each tile seen with its neighbours' nearest samples.

    Attributes:
        tiles: How many.
        length: Samples of the tile itself, and outputs it gives.
        left: Samples needed of the tile before.
        right: Samples needed of the tile after.
    """

    tiles: int
    length: int
    left: int
    right: int

    @property
    def inputs(self) -> int:
        """Samples that a tile is transformed from; a lone tile's neighbours are zeros and are left out."""
        return self.length + (self.left + self.right if self.tiles > 1 else 0)

    @property
    def period(self) -> int:
        """Length of the transform: even, and so long that what wraps round reaches no output."""
        # A lone tile's zeros on one side can be those on the other side too.
        halo = self.left + self.right if self.tiles > 1 else max(self.left, self.right)
        return 2 * math.ceil((self.length + halo) / 2)

    @property
    def points(self) -> int:
        """Real multiplications per pair of channels: three for each complex frequency, one for each real one."""
        return 3 * self.period // 2 - 1

    def cost(self, channels: int, filters: int) -> float:
        """Returns roughly what one signal's forward pass costs, in multiplications."""
        tile = self.inputs * channels + channels * filters + filters * self.length + MEMORY_COST * (channels + filters)
        kernel = (self.left + self.right + 1 + 2 * MEMORY_COST) * channels * filters / SIGNALS
        return self.points * (self.tiles * tile + kernel)


def best_tiling(samples: int, left: int, right: int, channels: int, filters: int) -> Tiling:
    """Returns the cheapest way to cut a signal of some samples, for a kernel of `left + 1 + right` taps."""

    def candidates() -> Iterator[Tiling]:
        for tiles in range(1, samples + 1):
            length = math.ceil(samples / tiles)
            if tiles > 1 and length < max(left, right, 1):
                return
            yield Tiling(tiles, length, left, right)

    return min(candidates(), key=lambda tiling: tiling.cost(channels, filters))


@functools.cache
def bilinear(tiling: Tiling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns real matrices `A`, `G` and `S` such that `S @ ((A @ x) * (G @ w))` correlates a tile with a kernel.

    It is the discrete Fourier transform, with Gauss's three multiplications for each complex product: from
    `x = a + ib` and `w = c + id`, `k1 = c(a + b)`, `k2 = a(d - c)` and `k3 = b(c + d)` give `(k1 - k3) + i(k1 + k2)`.
    The frequencies above the half are conjugates for real signals and are left out. See Knuth, The Art of Computer
    Programming, volume 2, section 4.6.4, exercise 41.

    Returns:
        `A` `(points, inputs)`, `G` `(points, taps)` and `S` `(length, points)`, float64.
    """
    period, half = tiling.period, tiling.period // 2
    frequencies = np.arange(half + 1)[:, np.newaxis]

    def waves(positions: np.ndarray) -> np.ndarray:
        return np.exp(-2j * np.pi * (frequencies * positions % period) / period)

    first = 0 if tiling.tiles > 1 else tiling.left
    x = waves(np.arange(first, first + tiling.inputs))
    w = waves(np.arange(tiling.left + 1 + tiling.right)).conj()
    y = waves(np.arange(tiling.length)).conj() / period
    both = slice(1, half)  # zero and half the period are real, and have no conjugate
    ends = [0, half]
    a, b, c, d = x[both].real, x[both].imag, w[both].real, w[both].imag
    cosine, sine = 2 * y[both].real, 2 * y[both].imag
    return (
        np.concatenate([x[ends].real, a + b, a, b]),
        np.concatenate([w[ends].real, c, d - c, c + d]),
        np.concatenate([y[ends].real, cosine - sine, -sine, -cosine]).T,
    )


@keras.saving.register_keras_serializable(package="tfmmcl")
class Conv1D(keras.layers.Conv1D):
    """`keras.layers.Conv1D` computed through short Fourier tiles: the same weights, the same outputs up to rounding.

    The signal is cut into tiles, each with the samples beside it that the kernel reaches. Two constant matrices take
    tiles and kernel to the frequency domain, one batched matrix product mixes the channels at every point there, and
    a third constant matrix comes back. With 15 taps that is about an eighth of the multiplications, all of them
    in matrix products, and so are those of the gradient. A stride is folded into the channels first.

    The class is called as its parent is, because Keras names the parts of a weights file by their classes: so a file
    written with either loads in the other.

    Under a 16-bit policy the channels are mixed in 16 bits, and the transforms are float32.

    Args:
        filters: Output channels.
        kernel_size: Taps.
        strides: Default 1.
        **options: Of `keras.layers.Conv1D`. `padding` must be `same` and is so by default; neither groups, nor
            dilation, nor channels first.

    Raises:
        ValueError: If an option is one of those, or the input's length is not known.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int],
        strides: int | tuple[int] = 1,
        padding: str = "same",
        **options: Any,
    ) -> None:
        super().__init__(filters, kernel_size, strides, padding, **options)
        for name, expected in {
            "padding": "same",
            "groups": 1,
            "dilation_rate": (1,),
            "data_format": "channels_last",
        }.items():
            if getattr(self, name) != expected:
                raise ValueError(f"Expected {name}={expected!r}. Received: {name}={getattr(self, name)!r}")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights of `keras.layers.Conv1D`."""
        if input_shape[1] is None:
            raise ValueError(f"Expected an input of known length. Received: input_shape={input_shape}")
        super().build(input_shape)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Convolves `(B, Z, C)` to `(B, ⌈Z / stride⌉, filters)`."""
        fold = Fold(inputs.shape[1], self.kernel_size[0], self.strides[0])
        channels = inputs.shape[2] * fold.stride
        tiling = best_tiling(fold.outputs, fold.left, fold.right, channels, self.filters)
        samples = tiling.tiles * tiling.length * fold.stride
        x = ops.reshape(_zeros_after(inputs, samples, axis=1), (-1, tiling.length, channels))
        kernel = ops.pad(self.kernel, (fold.zeros, (0, 0), (0, 0)))
        y = self._correlate(x, ops.reshape(kernel, (-1, channels, self.filters)), tiling)
        y = ops.reshape(y, (-1, tiling.tiles * tiling.length, self.filters))
        y = ops.split(y, [fold.outputs], axis=1)[0] if y.shape[1] > fold.outputs else y
        return self.activation(y + self.bias if self.use_bias else y)

    def _correlate(self, x: keras.KerasTensor, kernel: keras.KerasTensor, tiling: Tiling) -> keras.KerasTensor:
        """Correlates tiles `(B·tiles, length, C)` with `(taps, C, filters)`; gives `(B·tiles, length, filters)`."""
        precise = "float64" if self.compute_dtype == "float64" else "float32"
        channels, filters = kernel.shape[1:]
        analysis, of_kernel, synthesis = (ops.convert_to_tensor(matrix, precise) for matrix in bilinear(tiling))

        # Samples first, so that a transform is one product with everything else as its columns.
        x = ops.transpose(x, (1, 0, 2))
        if tiling.tiles > 1:
            x = _with_neighbours(ops.reshape(x, (tiling.length, -1, tiling.tiles, channels)), tiling)
        x = ops.matmul(analysis, ops.cast(ops.reshape(x, (tiling.inputs, -1)), precise))
        kernel = ops.matmul(of_kernel, ops.cast(ops.reshape(kernel, (kernel.shape[0], -1)), precise))
        y = ops.matmul(
            ops.reshape(ops.cast(x, self.compute_dtype), (tiling.points, -1, channels)),
            ops.reshape(ops.cast(kernel, self.compute_dtype), (tiling.points, channels, filters)),
        )
        y = ops.matmul(synthesis, ops.cast(ops.reshape(y, (tiling.points, -1)), precise))
        y = ops.reshape(ops.cast(y, self.compute_dtype), (tiling.length, -1, filters))
        return ops.transpose(y, (1, 0, 2))


@dataclass(frozen=True)
class Fold:
    """How a strided convolution is one without stride: `stride` samples side by side become one of more channels.

    Attributes:
        samples: Of the signal.
        taps: Of the kernel.
        stride: Of the convolution; 1 folds nothing.
    """

    samples: int
    taps: int
    stride: int

    @property
    def outputs(self) -> int:
        """Outputs, and samples when folded."""
        return math.ceil(self.samples / self.stride)

    @property
    def padding(self) -> int:
        """Zeros before the signal, as `same` has it."""
        return max((self.outputs - 1) * self.stride + self.taps - self.samples, 0) // 2

    @property
    def left(self) -> int:
        """Folded taps before the one that meets the output's own sample."""
        return math.ceil(self.padding / self.stride)

    @property
    def zeros(self) -> tuple[int, int]:
        """Taps to put before and after the kernel, so that it folds as the signal does."""
        before = self.left * self.stride - self.padding
        return before, -(before + self.taps) % self.stride

    @property
    def right(self) -> int:
        """Folded taps after that one."""
        return (sum(self.zeros) + self.taps) // self.stride - 1 - self.left


def _zeros_after(x: keras.KerasTensor, length: int, axis: int) -> keras.KerasTensor:
    missing = length - x.shape[axis]
    return ops.pad(x, [(0, missing if i == axis else 0) for i in range(len(x.shape))]) if missing else x


def _with_neighbours(x: keras.KerasTensor, tiling: Tiling) -> keras.KerasTensor:
    """Puts the nearest samples of the tiles beside each before and after its own, zeros at both ends.

    Splits, because the gradient of a split is a concatenation; that of a slice fills a whole tensor with zeros.

    Args:
        x: `(length, B, tiles, C)`.
        tiling: How it was cut.

    Returns:
        `(inputs, B, tiles, C)`.
    """
    before = ops.split(x, [tiling.length - tiling.left])[1]
    after = ops.split(x, [tiling.right])[0]
    before = ops.pad(ops.split(before, [tiling.tiles - 1], axis=2)[0], ((0, 0), (0, 0), (1, 0), (0, 0)))
    after = ops.pad(ops.split(after, [1], axis=2)[1], ((0, 0), (0, 0), (0, 1), (0, 0)))
    return ops.concatenate([before, x, after])
