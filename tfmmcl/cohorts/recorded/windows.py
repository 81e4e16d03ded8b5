"""Windows before an anchor, and what of a variable is known in each: nothing at or after the anchor counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfmmcl.cohorts.durations import microseconds
from tfmmcl.cohorts.events.timeline import ALWAYS, Series
from tfmmcl.cohorts.recorded.settings import Statistic, WindowSettings


def window_bounds(anchor: int, settings: WindowSettings) -> np.ndarray:
    """Returns `(T, 2)` int64 microseconds: where each window starts and where it stops, the last at the anchor."""
    stride = microseconds(settings.length if settings.stride is None else settings.stride)
    ends = anchor - stride * np.arange(settings.count - 1, -1, -1, dtype=np.int64)
    return np.stack([ends - microseconds(settings.length), ends], axis=1)


def summarise(series: Series, bounds: np.ndarray, statistics: Sequence[Statistic]) -> np.ndarray:
    """Summarises a variable's values in each window.

    Args:
        series: The variable's events.
        bounds: `(T, 2)` from `window_bounds`.
        statistics: Which summaries.

    Returns:
        `(T, S)` float64, NaN in a window without a value (but a `count` of 0), and `std`, the sample's (n − 1), also
        in one with a single value.
    """
    known = ~np.isnan(series.values)
    times, values = series.times[known], series.values[known]
    first, stop = np.searchsorted(times, bounds.T, side="left")
    count = stop - first
    # Windows may overlap, so each gets its own copy of its values, one window's after another's.
    window = np.repeat(np.arange(len(bounds)), count)
    within = np.arange(len(window)) - np.repeat(np.cumsum(count) - count, count)
    values = values[first[window] + within]
    filled = np.flatnonzero(count)
    begins = (np.cumsum(count) - count)[filled]
    mean = np.full(len(bounds), np.nan)
    mean[filled] = np.bincount(window, values, len(bounds))[filled] / count[filled]

    def standard_deviation() -> np.ndarray:
        several = np.flatnonzero(count > 1)
        squares = np.bincount(window, (values - mean[window]) ** 2, len(bounds))
        return _scatter(np.sqrt(squares[several] / (count[several] - 1)), several, len(bounds))

    def median() -> np.ndarray:
        ordered = values[np.lexsort((values, window))]
        low, high = begins + (count[filled] - 1) // 2, begins + count[filled] // 2
        return _scatter((ordered[low] + ordered[high]) / 2, filled, len(bounds))

    summaries = {
        "mean": lambda: mean,
        "std": standard_deviation,
        "min": lambda: _scatter(np.minimum.reduceat(values, begins) if len(begins) else values, filled, len(bounds)),
        "max": lambda: _scatter(np.maximum.reduceat(values, begins) if len(begins) else values, filled, len(bounds)),
        "median": median,
        "first": lambda: _scatter(values[begins], filled, len(bounds)),
        "last": lambda: _scatter(values[begins + count[filled] - 1], filled, len(bounds)),
        "count": lambda: count.astype(float),
    }
    return np.stack([summaries[statistic]() for statistic in statistics], axis=1)


def last_before(series: Series, anchor: int, look_back: float | None) -> float:
    """Returns a variable's last value before an anchor, or NaN.

    Args:
        series: The variable's events.
        anchor: In microseconds; a value at the anchor does not count.
        look_back: How long before the anchor a value may lie, in seconds. None: without limit. A value without a time
            counts whatever the look-back, but gives way to one with a time.
    """
    earliest = ALWAYS if look_back is None else anchor - microseconds(look_back)
    known = ~np.isnan(series.values) & (series.times < anchor)
    found = series.values[known & ((series.times >= earliest) | (series.times == ALWAYS))]
    return float(found[-1]) if found.size else float("nan")


def _scatter(values: np.ndarray, windows: np.ndarray, size: int) -> np.ndarray:
    out = np.full(size, np.nan)
    out[windows] = values
    return out
