"""One signal at a time, as arrays with NaN where a sample is missing: units, resampling, gaps, filters."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np

from tfmmcl.cohorts.waveforms.settings import ConditioningSettings
from tfmmcl.errors import InputError

# Anti-aliasing filter: what would alias is 80 dB down (1 µV of a 10-mV wander), and the lowest 80 % of the band passes.
STOPBAND_DB = 80.0
PASSBAND = 0.8

BUTTERWORTH_ORDER = 4
NOTCH_QUALITY = 30.0  # the notch's frequency over its width

_MILLIVOLTS_PER = {"mv": 1.0, "v": 1e3, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3}  # both Unicode signs for micro


def millivolts_per(unit: str) -> float | None:
    """Returns how many mV one `unit` is, or None if it is not one of voltage."""
    return _MILLIVOLTS_PER.get(unit.strip().lower())


def plausible(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Returns the values, NaN where they are not finite or outside `limits`."""
    low, high = limits
    return np.where((values >= low) & (values <= high), values, np.nan)


def resample(values: np.ndarray, rate_hz: float, to_hz: float) -> np.ndarray:
    """Resamples with a zero-phase anti-aliasing filter; output sample k lies at `k / to_hz` seconds.

    The filter (a Kaiser-windowed FIR) stops everything above the lower of the two Nyquist frequencies. Every output
    sample within its half-length of a gap is missing, as it would be made of filled-in values.

    Args:
        values: `(N,)`, NaN in gaps.
        rate_hz: Samples per second of `values`.
        to_hz: Samples per second wanted; the same rate returns `values` unfiltered.

    Returns:
        `(ceil(N * to_hz / rate_hz),)` float64.

    Raises:
        InputError: If the rates are more than a factor of 1000 apart.
    """
    from scipy.signal import resample_poly  # takes half a second to import

    gaps = carry_gaps(values, rate_hz, to_hz)
    up, down = _ratio(rate_hz, to_hz)
    if up == down:
        return values
    if np.isnan(values).all():
        return gaps
    # An odd reflection continues both the value and the slope past the ends, so neither makes a transient.
    return gaps + resample_poly(fill_gaps(values), up, down, window=_lowpass(max(up, down)), padtype="antireflect")


def carry_gaps(values: np.ndarray, rate_hz: float, to_hz: float) -> np.ndarray:
    """Returns what `resample` does with 0 in place of every number: which samples are missing, without filtering."""
    up, down = _ratio(rate_hz, to_hz)
    out = np.zeros(math.ceil(values.size * up / down))
    reach = _lowpass(max(up, down)).size // 2 if up != down else 0  # at `up` times the rate of `values`
    edges = np.flatnonzero(np.diff(np.isnan(values), prepend=False, append=False))
    for first, stop in edges.reshape(-1, 2):
        out[max(0, -((reach - first * up) // down)) : ((stop - 1) * up + reach) // down + 1] = np.nan
    return out


def condition(values: np.ndarray, rate_hz: float, settings: ConditioningSettings) -> np.ndarray:
    """Filters forwards and backwards (zero phase), then clips.

    Gaps are bridged by straight lines for the filters and are gaps again afterwards; missing samples before the first
    and after the last recorded one are left out of filtering.

    Args:
        values: `(N,)` in mV, NaN in gaps.
        rate_hz: Samples per second.
        settings: The filters.
    """
    from scipy.signal import sosfiltfilt

    present = np.flatnonzero(~np.isnan(values))
    sections = _filters(rate_hz, settings)
    if sections is not None and present.size:
        inner = slice(present[0], present[-1] + 1)
        bridged = fill_gaps(values[inner])
        padding = min(3 * (2 * len(sections) + 1), bridged.size - 1)  # SciPy's default, or what a short signal allows
        filtered = np.full_like(values, np.nan)
        filtered[inner] = sosfiltfilt(sections, bridged, padlen=padding)
        values = np.where(np.isnan(values), np.nan, filtered)
    if settings.clip_mv is not None:
        values = np.clip(values, -settings.clip_mv, settings.clip_mv)
    return values


def settling_seconds(rate_hz: float, settings: ConditioningSettings) -> float:
    """Returns how long the filters' slowest transient takes to fall to a thousandth; 0 without filters."""
    sections = _filters(rate_hz, settings)
    if sections is None:
        return 0.0
    slowest = max(abs(pole) for section in sections for pole in np.roots(section[3:]))
    return math.log(1e-3) / math.log(slowest) / rate_hz


def fill_gaps(values: np.ndarray) -> np.ndarray:
    """Returns `(N,)` values with NaN replaced by straight lines, for filters that need every sample."""
    missing = np.isnan(values)
    if not missing.any() or missing.all():
        return values
    filled = values.copy()
    filled[missing] = np.interp(np.flatnonzero(missing), np.flatnonzero(~missing), values[~missing])
    return filled


def samples_before(seconds: float, rate_hz: float) -> int:
    """Returns how many samples, the first at 0 s, lie strictly before `seconds`."""
    return math.ceil(seconds * rate_hz - 1e-6)  # 0.1 s at 30 Hz is 3 samples, whatever the rounding of 0.1


def peak_to_peak(windows: np.ndarray) -> np.ndarray:
    """Returns each window's range: `(T, Z)` → `(T,)`, 0 where all samples are missing."""
    present = ~np.isnan(windows)
    highest = np.max(windows, axis=1, initial=-np.inf, where=present)
    lowest = np.min(windows, axis=1, initial=np.inf, where=present)
    return np.maximum(highest - lowest, 0.0)


def mask_flat(windows: np.ndarray, threshold: float) -> np.ndarray:
    """Returns `(T, Z)` windows, all NaN where the peak-to-peak range does not exceed `threshold`."""
    return np.where((peak_to_peak(windows) > threshold)[:, None], windows, np.nan)


def _ratio(rate_hz: float, to_hz: float) -> tuple[int, int]:
    if not 1e-3 <= to_hz / rate_hz <= 1e3:
        raise InputError(f"a sampling rate of {rate_hz:g} Hz cannot be brought to {to_hz:g} Hz.")
    return Fraction(to_hz / rate_hz).limit_denominator(10_000).as_integer_ratio()


@functools.lru_cache(maxsize=16)
def _lowpass(factor: int) -> np.ndarray:
    """Returns an odd-length filter at `factor` times the lower rate, with its stopband at that rate's Nyquist."""
    from scipy.signal import firwin, kaiserord

    taps, beta = kaiserord(STOPBAND_DB, (1 - PASSBAND) / factor)
    return firwin(taps | 1, (1 + PASSBAND) / 2 / factor, window=("kaiser", beta))


@functools.lru_cache(maxsize=16)
def _filters(rate_hz: float, settings: ConditioningSettings) -> np.ndarray | None:
    """Returns all filters as second-order sections `(S, 6)`, or None if there is none."""
    from scipy.signal import butter, iirnotch, tf2sos

    sections = []
    if settings.band_pass_hz:
        sections.append(butter(BUTTERWORTH_ORDER, settings.band_pass_hz, "bandpass", fs=rate_hz, output="sos"))
    if settings.notch_hz:
        sections.append(tf2sos(*iirnotch(settings.notch_hz, NOTCH_QUALITY, fs=rate_hz)))
    return np.concatenate(sections) if sections else None
