"""A trajectory's windows: which part of each is kept, and its signals."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfmmcl.cohorts.durations import microseconds
from tfmmcl.cohorts.waveforms.recording import Record, choose
from tfmmcl.cohorts.waveforms.settings import SignalSettings, WaveformInput
from tfmmcl.cohorts.waveforms.signals import mask_flat
from tfmmcl.cohorts.waveforms.source import Source

TOGETHER_SECONDS = 15 * 60.0  # neighbouring parts are read in one go up to this
QUALITIES = ("Excellent", "Barely acceptable", "Unacceptable")


@dataclass(frozen=True)
class Windows:
    """What is kept of a trajectory's T windows.

    Attributes:
        signals: `(T, Z, C)` float32 in mV, NaN where a sample is missing; a lead that is flat in a window is missing.
        channels: Channel → `(T, Z)` float64 in the unit it was recorded in, NaN where a sample is missing.
        starts: `(T,)` int64, where the part kept of each window begins, in microseconds on the subject's axis.
    """

    signals: np.ndarray
    channels: dict[str, np.ndarray]
    starts: np.ndarray


def cut(
    records: Sequence[Record],
    root: str | Path,
    inputs: Sequence[WaveformInput],
    bounds: np.ndarray,
    settings: SignalSettings,
) -> Windows:
    """Cuts a trajectory's windows; no sample at or after the anchor, the last window's stop, is read.

    Args:
        records: The subject's records by start. Where two overlap, the earlier counts where it has a sample.
        root: The folder their paths start from.
        inputs: The inputs they belong to.
        bounds: `(T, 2)` int64, each window's start and stop in microseconds on the subject's axis, in order; none is
            shorter than `settings.length`.
        settings: What is wanted.

    Raises:
        InputError: If a file is damaged or missing.
    """
    source = Source(tuple(records), Path(root), tuple(inputs), settings, anchor=int(bounds[-1, 1]))
    starts = np.array([_choose(source, int(start), int(stop)) for start, stop in bounds], np.int64)
    kept = {name: np.full((len(bounds), settings.samples), np.nan) for name in [*settings.leads, *settings.channels]}
    for windows, offsets in _runs(starts, settings):
        stretch = source.read(int(starts[windows[0]]), offsets[-1] + settings.samples)
        for window, offset in zip(windows, offsets):
            for name, values in stretch.items():
                kept[name][window] = values[offset : offset + settings.samples]
    leads = [mask_flat(kept[lead], settings.flat_mv) for lead in settings.leads]
    channels = {channel: kept[channel] for channel in settings.channels}
    return Windows(np.stack(leads, axis=-1).astype(np.float32), channels, starts)


def _runs(starts: np.ndarray, settings: SignalSettings) -> Iterator[tuple[list[int], list[int]]]:
    """Yields the parts to read together, and where each begins, in samples from the first one's start."""
    rate, longest = settings.sampling_rate_hz, TOGETHER_SECONDS - settings.length
    windows, offsets = [0], [0]
    for window in range(1, len(starts)):
        seconds = int(starts[window] - starts[windows[0]]) * 1e-6
        neighbours = starts[window] - starts[window - 1] <= microseconds(settings.length)
        on_grid = abs(seconds * rate - round(seconds * rate)) < 1e-3
        if not (neighbours and on_grid and seconds <= longest):
            yield windows, offsets
            windows, offsets, seconds = [], [], 0.0
        windows.append(window)
        offsets.append(round(seconds * rate))
    yield windows, offsets


def _choose(source: Source, start: int, stop: int) -> int:
    """Returns where the part of a window that is kept begins."""
    settings = source.settings
    length = microseconds(settings.length)
    pieces = (stop - start) // length
    if pieces <= 1:
        return start
    names = [choose(record.names, settings.leads).keys() for record in source.overlapping(start, stop)]
    least = settings.samples * len(settings.leads.keys() - set().union(*names))  # what no piece can have
    best = (len(QUALITIES), 0, 0)
    for index, piece in enumerate(_pieces(source, start, pieces)):
        rank = _quality(piece, settings.sampling_rate_hz) if settings.choose == "cleanest" else 0
        missing = int(np.count_nonzero(np.isnan(piece)))
        best = min(best, (rank, missing, index))
        if best[:2] == (0, least):
            break
    return start + best[2] * length


def _pieces(source: Source, start: int, pieces: int) -> Iterator[np.ndarray]:
    """Yields consecutive pieces `(Z, C)` of the leads, read in stretches that double, as most often one is enough.

    Where only gaps decide, all but the first are 0 wherever they are not missing.
    """
    settings = source.settings
    most = max(1, int(TOGETHER_SECONDS // settings.length))
    done, together = 0, 1
    while done < pieces:
        together = min(together, pieces - done, most)
        read = source.read if done == 0 or settings.choose == "cleanest" else source.read_gaps
        stretch = read(start + done * microseconds(settings.length), together * settings.samples)
        leads = np.stack([stretch[lead] for lead in settings.leads], axis=-1)
        yield from leads.reshape(together, settings.samples, -1)
        done, together = done + together, together * 2


def _quality(piece: np.ndarray, rate_hz: float) -> int:
    """Returns the rank, 0 the best, of a piece `(Z, C)` by its first complete lead (Zhao and Zhang 2018)."""
    import neurokit2 as nk  # takes seconds to import

    worst = len(QUALITIES) - 1
    complete = np.flatnonzero(~np.isnan(piece).any(axis=0))
    if not complete.size:
        return worst
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = nk.ecg_quality(piece[:, complete[0]], sampling_rate=round(rate_hz), method="zhao2018")
            return QUALITIES.index(found)
        except Exception:  # neurokit2 raises whatever a signal without beats trips over
            return worst
