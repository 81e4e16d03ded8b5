"""Reads WFDB records: one segment or many, of fixed or variable layout, with signals in `.dat` or `.mat` files.

Format: https://physionet.org/physiotools/wag/header-5.htm
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from tfmmcl.cohorts.waveforms.recording import Channel, Extent, Record, RefusedError, choose, one_line
from tfmmcl.cohorts.waveforms.settings import WfdbInput
from tfmmcl.cohorts.waveforms.signals import samples_before
from tfmmcl.errors import InputError

if TYPE_CHECKING:
    import wfdb

NUMERICS_HZ = 10.0  # a record slower than this holds a monitor's numbers, one a second or a minute
UNRECORDED = "~"  # the name of a segment during which nothing was recorded
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Segment(NamedTuple):
    """Part of a record: its header without `.hea`, and where it lies in the record, in frames."""

    path: Path
    first: int
    frames: int


def record_files(paths: Sequence[Path]) -> list[Path]:
    """Returns the headers of whole records, without those of segments and layouts of others."""
    parts = {path.parent / f"{name}.hea" for path in paths for name in _segment_names(_lines(path))}
    return [path for path in paths if path not in parts]


def fingerprint(path: Path) -> bytes:
    """Returns what changes with a record: its header, and the sizes of the signal files named there."""
    named = {line.split()[0] for line in _lines(path)[1:]} - {UNRECORDED}
    sizes = [(name, file.stat().st_size) for name in sorted(named) if (file := path.parent / name).is_file()]
    return path.read_bytes() + repr(sizes).encode()


def describe(path: Path, settings: WfdbInput, zone: ZoneInfo | None) -> Extent:
    """Returns a record's extent.

    Args:
        path: Its header.
        settings: The input it belongs to.
        zone: Where the header's date and time were written. Default None: they are taken as they stand.

    Raises:
        RefusedError: If it cannot be used.
    """
    path = path.with_suffix("")
    try:
        header = _header(path)
        segments = _segments(path)
        frames = sum(segment.frames for segment in segments) if header.sig_len is None else header.sig_len
        present = [found for segment in segments if (found := _header_if_any(segment.path))]
        layout = header.seg_name[0] if _multi(header) and header.layout == "variable" else None
        described = (layout and _header_if_any(path.parent / layout)) or next(iter(present), None)
    except Exception as error:  # wfdb raises whatever a damaged header trips over: IndexError, TypeError, ...
        raise RefusedError("its header is damaged or missing", f"record {path.name}: {one_line(error)}.") from None
    if not present:
        raise RefusedError("none of its segments is there", f"record {path.name}: has no header of any segment.")
    if not (header.fs and header.fs > 0 and frames > 0):
        found = f"{frames} samples at {header.fs} Hz"
        raise RefusedError("it holds no samples", f"record {path.name}: its header says {found}.")
    if header.fs * max(described.samps_per_frame or [1]) < NUMERICS_HZ:
        raise RefusedError(
            "it holds numerics, not waveforms", f"record {path.name}: has {header.fs:g} samples a second."
        )
    if not _multi(header):
        for name in dict.fromkeys(header.file_name or ()):
            if not (path.parent / name).is_file():
                raise RefusedError("a signal file is missing", f"record {path.name}: file {name} is missing.")
    return Extent(_start(path, header, settings, zone), frames / header.fs, _names(described))


def read(
    root: Path, record: Record, settings: WfdbInput, wanted: Mapping[str, Sequence[str]], start: int, stop: int
) -> dict[str, list[Channel]]:
    """Reads the wanted channels, each at its own rate, over whatever the record has of [start, stop).

    Args:
        root: The folder the record's path starts from.
        record: The record.
        settings: The input it belongs to.
        wanted: Wanted name → names that satisfy it, most preferred first; see `recording.choose`.
        start: Microseconds on the subject's time axis; the last sample at or before it is the first read.
        stop: Microseconds on the subject's time axis; no sample at or after it is read.

    Returns:
        Wanted name → what satisfies it, a channel for each unit and rate in which segments give it. NaN where a
        sample is invalid or absent, or a segment is missing on disk.

    Raises:
        InputError: If a header or a signal file is damaged, too short or, but for segments, missing.
    """
    path = (root / record.path).with_suffix("")
    with _explained(path):
        header = _header(path)
        from_seconds, to_seconds = ((at - record.start) * 1e-6 for at in (start, stop))
        first = max(0, math.floor(from_seconds * header.fs + 1e-6))
        last = min(samples_before(to_seconds, header.fs), round(record.seconds * header.fs))
        channels: dict[tuple[str, str, int], Channel] = {}
        for segment in _segments(path):
            begin, end = max(first, segment.first), min(last, segment.first + segment.frames)
            if begin >= end:
                continue
            for want, name, unit, per_frame, values in _read_segment(path, segment, begin, end, wanted):
                rate = header.fs * per_frame
                if (want, unit, per_frame) not in channels:
                    blank = np.full((last - first) * per_frame, np.nan)
                    channels[want, unit, per_frame] = Channel(name, unit, rate, first / header.fs, blank)
                at = (begin - first) * per_frame
                channels[want, unit, per_frame].values[at : at + values.size] = values
    found: dict[str, list[Channel]] = {}
    for (want, _, _), channel in channels.items():
        # The last frame may hold samples at or after the stop.
        keep = samples_before(to_seconds - channel.first, channel.rate_hz)
        found.setdefault(want, []).append(
            Channel(channel.name, channel.unit, channel.rate_hz, channel.first, channel.values[:keep])
        )
    return found


def _read_segment(
    record: Path, segment: Segment, begin: int, end: int, wanted: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, str, int, np.ndarray]]:
    """Yields wanted name, name, unit, samples per frame and values of each wanted channel; nothing if it is absent."""
    import wfdb

    header = _header_if_any(segment.path)
    chosen = choose(_names(header), wanted) if header else {}
    if not chosen:
        return
    begin, end = begin - segment.first, end - segment.first
    try:
        # Without a length in the header, wfdb takes it from the file's size, and can only read to its end.
        found = wfdb.rdrecord(
            str(segment.path),
            sampfrom=begin,
            sampto=None if header.sig_len is None else min(end, header.sig_len),
            channels=list(chosen.values()),
            smooth_frames=False,
        )
    except FileNotFoundError:
        if segment.path == record:
            raise
        return
    for place, want in enumerate(chosen):
        per_frame = found.samps_per_frame[place]
        values = np.asarray(found.e_p_signal[place][: (end - begin) * per_frame], np.float64)
        expected = min(end, header.sig_len or end) - begin
        if values.size < expected * per_frame:
            have = begin + values.size // per_frame
            raise InputError(
                f"record {record.name}: {segment.path.name} holds {have} samples of {found.sig_name[place]}, "
                f"expected at least {begin + expected}."
            )
        unit = "uV" if chosen[want] in _in_microvolts(segment.path) else found.units[place] or ""
        yield want, found.sig_name[place] or "", unit, per_frame, values


@functools.lru_cache(maxsize=4096)
def _header(path: Path) -> wfdb.Record | wfdb.MultiRecord:
    import wfdb  # takes seconds to import

    return wfdb.rdheader(str(path))


@functools.lru_cache(maxsize=4096)
def _in_microvolts(path: Path) -> frozenset[int]:
    """Returns the signals whose unit is written with the sign for micro, which wfdb drops: it takes them for volts."""
    text = path.with_name(f"{path.name}.hea").read_text(encoding="latin-1")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    fields = [line.split() for line in lines[1:]]
    return frozenset(i for i, field in enumerate(fields) if len(field) > 2 and re.search(r"/[^\x00-\x7f]+V$", field[2]))


def _header_if_any(path: Path) -> wfdb.Record | None:
    try:
        return _header(path)
    except FileNotFoundError:
        return None


def _multi(header: wfdb.Record | wfdb.MultiRecord) -> bool:
    return hasattr(header, "seg_name")


@functools.lru_cache(maxsize=256)
def _segments(path: Path) -> tuple[Segment, ...]:
    """Returns the record's segments without unrecorded ones; a record that has none is its own only one."""
    import wfdb

    header = _header(path)
    if not _multi(header):
        frames = header.sig_len
        if frames is None:
            frames = wfdb.rdrecord(str(path), channels=[0], physical=False).sig_len
        return (Segment(path, 0, frames),)
    found, first = [], 0
    for name, frames in zip(header.seg_name, header.seg_len):
        if name != UNRECORDED and frames:  # a layout has no frames
            found.append(Segment(path.parent / name, first, frames))
        first += frames
    return tuple(found)


def _names(header: wfdb.Record) -> tuple[str, ...]:
    return tuple(name or "" for name in header.sig_name or ())


def _start(path: Path, header: wfdb.Record | wfdb.MultiRecord, settings: WfdbInput, zone: ZoneInfo | None) -> int:
    if settings.start == "zero":
        return 0
    if header.base_date is None or header.base_time is None:
        found = header.base_date or header.base_time or "neither"
        raise RefusedError("its header gives no date and time", f"record {path.name}: its header gives {found}.")
    local = datetime.combine(header.base_date, header.base_time, zone or timezone.utc)
    return (local - EPOCH) // timedelta(microseconds=1)


def _lines(path: Path) -> list[str]:
    """Returns a header's lines without comments and empty ones."""
    lines = path.read_text(encoding="ascii", errors="ignore").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _segment_names(lines: Sequence[str]) -> set[str]:
    """Returns the segments and layouts that a multi-segment record's lines name, none for any other record."""
    if not lines or "/" not in lines[0].split()[0]:
        return set()
    return {line.split()[0] for line in lines[1:]} - {UNRECORDED}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns whatever reading a damaged record raises into one sentence."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"record {path.name}: file {Path(error.filename or path).name} is missing.") from None
    except Exception as error:  # wfdb raises whatever a damaged file trips over: IndexError, TypeError, ...
        raise InputError(f"record {path.name}: malformed or truncated ({one_line(error)}).") from None
