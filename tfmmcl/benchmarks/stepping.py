"""The same step over and over, beside a matrix product that tells what the device can do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfmmcl.benchmarks.memory import peak_bytes

SHORTEST_SECONDS = 0.2
"""A measurement repeats short work until it takes this long."""


@dataclass(frozen=True)
class Work:
    """What a framework does. `step` and `matmul` may return before the device is done; `float` of it waits.

    Attributes:
        step: Takes a step and returns a scalar, such as the loss.
        matmul: Multiplies two square matrices in the step's precision and returns an entry of the product.
        matmul_size: Rows of those matrices.
        device_peak_bytes: Returns the most memory used on the device; None on a CPU, where the process's is taken.
        facts: What else there is to say of it: `device`, `versions`, `parameters` and so on.
    """

    step: Callable[[], Any]
    matmul: Callable[[], Any]
    matmul_size: int
    device_peak_bytes: Callable[[], int] | None
    facts: dict[str, Any]


class Stepping:
    """A contender whose work is a step.

    Args:
        work: The step.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def start(self) -> dict[str, Any]:
        """Takes the first steps, in which compilation happens."""
        first_seconds = _seconds(self._work.step, 1)
        self._steps = _repeats(self._work.step)
        peak = self._work.device_peak_bytes() if self._work.device_peak_bytes else peak_bytes()
        _seconds(self._work.matmul, 1)
        self._products = _repeats(self._work.matmul)
        return {"first_seconds": first_seconds, "peak_megabytes": peak / 1e6, **self._work.facts}

    def measure(self) -> dict[str, float]:
        """Returns the `seconds` of a step, and the GFLOP/s of the matrix product."""
        product = _seconds(self._work.matmul, self._products)
        return {
            "seconds": _seconds(self._work.step, self._steps),
            "matmul_gflops": 2 * self._work.matmul_size**3 / product / 1e9,
        }


def matmul_size(on_cpu: bool) -> int:
    """Returns a size at which the matrix product is as fast as the device can."""
    return 2048 if on_cpu else 8192


def _seconds(function: Callable[[], Any], repeats: int) -> float:
    """Returns the mean time of a call, the device's work included."""
    began = time.perf_counter()
    for _ in range(repeats):
        result = function()
    float(result)
    return (time.perf_counter() - began) / repeats


def _repeats(function: Callable[[], Any]) -> int:
    return math.ceil(SHORTEST_SECONDS / _seconds(function, 1))
