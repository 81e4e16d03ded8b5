"""1-D convolution through short Fourier tiles: the layer, and when it is faster than Keras's own."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from tfmmcl.models.fourier_tiles import Fold, Tiling, best_tiling, bilinear


def convolution_layer(
    convolution: Literal["auto", "direct", "fourier"],
    shape: tuple[int | None, ...],
    filters: int,
    kernel_size: int,
    strides: int,
) -> type[keras.layers.Conv1D]:
    """Returns the class of a layer, Keras's `Conv1D` or the one below.

    `auto` takes Keras's where there is an accelerator: tiles have not been measured there. On a CPU it compares the
    cost of the tiles with the multiplications of the direct convolution. Measured forward and backward on two cores
    of an AMD EPYC with AVX-512 and bf16 (TensorFlow 2.21, oneDNN), over lengths from 25 to 2400, 8 to 512 channels
    and kernels from 3 to 15, tiles were faster up to 1.6 times the direct multiplications, in float32 as in
    bfloat16, and slower from 1.7 on for short kernels; for 15 taps they were about even from 2.3 on.

    Args:
        convolution: `direct`, `fourier`, or `auto`: the faster one. A kernel of one tap is direct in any case.
        shape: Of the input, `(B, Z, C)`.
        filters: Output channels.
        kernel_size: Taps.
        strides: Of the convolution.
    """
    if convolution == "direct" or kernel_size == 1:
        return keras.layers.Conv1D
    if convolution == "fourier":
        return Conv1D
    if not keras.distribution.list_devices()[0].startswith("cpu"):
        return keras.layers.Conv1D
    fold = Fold(shape[1], kernel_size, strides)
    channels = shape[2] * strides
    tiles = best_tiling(fold.outputs, fold.left, fold.right, channels, filters).cost(channels, filters)
    direct = fold.outputs * kernel_size * shape[2] * filters
    return Conv1D if tiles < 1.5 * direct else keras.layers.Conv1D


@keras.saving.register_keras_serializable(package="tfmmcl")
class Conv1D(keras.layers.Conv1D):
    """`keras.layers.Conv1D` computed through short Fourier tiles: the same weights, the same outputs up to rounding.

    The signal is cut into tiles, each with the samples beside it that the kernel reaches. Two constant matrices take
    tiles and kernel to the frequency domain, one batched matrix product mixes the channels at every point there, and
    a third constant matrix comes back. With 15 taps that is about an eighth of the multiplications, all of them
    in matrix products, and so are those of the gradient. A stride is folded into the channels first.

    The class is called as its parent is, because Keras names the parts of a weights file by their classes: so a file
    written with either loads in the other.

    Everything is computed in the dtype policy's compute dtype. In bfloat16 the result is off by 0.6 % of its standard
    deviation, where direct convolution, which only rounds it, is off by 0.23 %. With the transforms in float32 it would
    be 0.47 %, for the price of up to half of what tiles gain.

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
        channels, filters = kernel.shape[1:]
        of_signal, of_kernel, back = (ops.convert_to_tensor(matrix, self.compute_dtype) for matrix in bilinear(tiling))
        # Samples first, so that a transform is one product with everything else as its columns.
        x = ops.transpose(x, (1, 0, 2))
        if tiling.tiles > 1:
            x = _with_neighbours(ops.reshape(x, (tiling.length, -1, tiling.tiles, channels)), tiling)
        x = ops.matmul(of_signal, ops.reshape(x, (tiling.inputs, -1)))
        kernel = ops.matmul(of_kernel, ops.reshape(kernel, (kernel.shape[0], -1)))
        y = ops.matmul(
            ops.reshape(x, (tiling.points, -1, channels)), ops.reshape(kernel, (tiling.points, channels, filters))
        )
        y = ops.matmul(back, ops.reshape(y, (tiling.points, -1)))
        return ops.transpose(ops.reshape(y, (tiling.length, -1, filters)), (1, 0, 2))


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
