"""Beats in ECG and pulse signals (neurokit2), and the rate statistics of each window."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from tfmmcl.cohorts.durations import microseconds
from tfmmcl.cohorts.waveforms.settings import SignalSettings
from tfmmcl.cohorts.waveforms.signals import fill_gaps, mask_flat, peak_to_peak
from tfmmcl.cohorts.waveforms.windows import Windows

ECG = "ecg"  # the heart rate is derived from the leads, any other rate from a channel
STATISTICS = ("mean", "std", "min", "max", "median")
INTERVAL_SECONDS = (0.2, 3.0)  # 20 to 300 bpm: anything else is a detector's mistake
SHORTEST_SECONDS = 3.0  # neurokit2's filters need some signal to start from
EDGE_SECONDS = 0.3  # where a signal begins or ends, detectors take whatever is there for a beat
FLAT_PULSE = 0.01  # of the trajectory's widest window: below it, the sensor is off


def window_rates(windows: Windows, of: str, settings: SignalSettings) -> np.ndarray:
    """Returns the rate's statistics in each window; windows whose kept parts abut are searched for beats together.

    Args:
        windows: What is kept of the windows.
        of: `ecg`, for the R peaks of the first lead, and of the next ones in the windows where it shows none; or a
            channel, for its pulse peaks.
        settings: How the windows were cut.

    Returns:
        `(T, 5)` in beats per minute, in the order of `STATISTICS`; see `rate_statistics`.
    """
    rate = settings.sampling_rate_hz
    breaks = np.flatnonzero(np.diff(windows.starts) != microseconds(settings.length)) + 1
    runs = np.split(np.arange(windows.starts.size), breaks)
    out = np.full((windows.starts.size, len(STATISTICS)), np.nan)
    if of == ECG:
        for lead in np.moveaxis(windows.signals.astype(np.float64), -1, 0):
            for run in runs:
                if np.isnan(out[run, 0]).any():
                    found = rate_statistics(r_peaks(lead[run].ravel(), rate), np.isnan(lead[run]), rate)
                    out[run] = np.where(np.isnan(out[run, :1]), found, out[run])
        return out
    pulse = windows.channels[of]
    # Its unit is arbitrary, so "flat" can only be relative to the trajectory's own pulse.
    pulse = mask_flat(pulse, FLAT_PULSE * peak_to_peak(pulse).max())
    for run in runs:
        out[run] = rate_statistics(pulse_peaks(pulse[run].ravel(), rate), np.isnan(pulse[run]), rate)
    return out


def r_peaks(ecg: np.ndarray, rate_hz: float) -> np.ndarray:
    """Finds R peaks by the adaptive threshold of Rodrigues et al. 2021, as neurokit2 has it.

    Of neurokit2's detectors this one agreed most often with the pulse, with the other lead and with wfdb's XQRS on the
    Challenge 2015 records, and unlike most it finds beats again after an artefact.

    Args:
        ecg: `(N,)`, NaN where missing, in any unit.
        rate_hz: Samples per second.

    Returns:
        Indices of the peaks, ascending; none within 0.3 s of a missing sample or of either end.
    """
    import neurokit2 as nk  # takes seconds to import

    def detect(values: np.ndarray, rate: int) -> np.ndarray:
        cleaned = nk.ecg_clean(values, sampling_rate=rate, method="neurokit")
        return nk.ecg_findpeaks(cleaned, sampling_rate=rate, method="rodrigues2021")["ECG_R_Peaks"]

    return _peaks(detect, ecg, rate_hz)


def pulse_peaks(pulse: np.ndarray, rate_hz: float) -> np.ndarray:
    """Finds systolic peaks of a photoplethysmogram (Elgendi et al. 2013); see `r_peaks` for the arguments."""
    import neurokit2 as nk

    def detect(values: np.ndarray, rate: int) -> np.ndarray:
        cleaned = nk.ppg_clean(values, sampling_rate=rate, method="elgendi")
        return nk.ppg_findpeaks(cleaned, sampling_rate=rate, method="elgendi")["PPG_Peaks"]

    return _peaks(detect, pulse, rate_hz)


def rate_statistics(peaks: np.ndarray, missing: np.ndarray, rate_hz: float) -> np.ndarray:
    """Summarises 60 / interval in each window, over the intervals that end in it.

    An interval that spans a missing sample, or that is not between 0.2 and 3 s long, is not counted.

    Args:
        peaks: Indices into the T windows laid end to end, ascending.
        missing: `(T, Z)` bool.
        rate_hz: Samples per second.

    Returns:
        `(T, 5)` in beats per minute, in the order of `STATISTICS`: NaN without any interval, and the standard
        deviation (of the sample, n − 1) also with only one.
    """
    windows, samples = missing.shape
    out = np.full((windows, len(STATISTICS)), np.nan)
    missing_before = np.concatenate([[0], np.cumsum(missing)])
    seconds = np.diff(peaks) / rate_hz
    low, high = INTERVAL_SECONDS
    good = (seconds >= low) & (seconds <= high) & (np.diff(missing_before[peaks]) == 0)
    rates = 60 / seconds[good]
    ends_in = peaks[1:][good] // samples
    for window in np.unique(ends_in):
        rate = rates[ends_in == window]
        std = rate.std(ddof=1) if rate.size > 1 else np.nan
        out[window] = rate.mean(), std, rate.min(), rate.max(), np.median(rate)
    return out


def _peaks(detect: Callable[[np.ndarray, int], np.ndarray], values: np.ndarray, rate_hz: float) -> np.ndarray:
    missing = np.isnan(values)
    none = np.zeros(0, dtype=int)
    if np.count_nonzero(~missing) < SHORTEST_SECONDS * rate_hz:
        return none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # The rate only sets filter and threshold constants, and some of neurokit2's want a whole number.
            peaks = detect(fill_gaps(values), round(rate_hz))
        except (ValueError, IndexError, ZeroDivisionError):  # how neurokit2 says that a signal has no beats
            return none
    peaks = np.unique(np.asarray(peaks, dtype=float))
    peaks = peaks[np.isfinite(peaks)].astype(int)
    edge = round(EDGE_SECONDS * rate_hz)
    missing_before = np.concatenate([[0], np.cumsum(np.pad(missing, edge, constant_values=True))])
    return peaks[missing_before[peaks + 2 * edge + 1] == missing_before[peaks]]
