"""How a convolution is cut into short Fourier tiles: folding of strides, tile lengths, constant matrices, cost."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MEMORY_COST = 100
"""What an element that is written and read again costs, in multiplications: fitted to the times of many tilings."""

SIGNALS = 100
"""Signals in a step that share one transform of the kernel, for the cost only; a batch of 5 trajectories has that."""


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


@functools.cache
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
