"""Reads signals from CSV files, perhaps compressed: one column per signal, one row per sample."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from tfmmcl.cohorts.waveforms.recording import Channel, Extent, Record, RefusedError, choose, one_line
from tfmmcl.cohorts.waveforms.settings import CsvInput
from tfmmcl.cohorts.waveforms.signals import samples_before
from tfmmcl.errors import InputError


def record_files(paths: Sequence[Path]) -> list[Path]:
    """Returns the files that are records: all of them."""
    return list(paths)


def fingerprint(path: Path) -> bytes:
    """Returns what changes with a file: its size."""
    return str(path.stat().st_size).encode()


def describe(path: Path, settings: CsvInput, zone: ZoneInfo | None) -> Extent:
    """Returns a file's extent; it begins at time zero, and the rows are counted.

    Args:
        path: The file.
        settings: The input it belongs to.
        zone: Not used: nothing in the file is a date.

    Raises:
        RefusedError: If it cannot be used.
    """
    import polars as pl

    try:
        table = pl.scan_csv(path, separator=settings.separator, infer_schema=False)
        names = table.collect_schema().names()
        rows = table.select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RefusedError("its file is empty or damaged", f"file {path.name}: {one_line(error)}.") from None
    if not rows:
        raise RefusedError("it holds no samples", f"file {path.name}: has a header and no row.")
    return Extent(0, rows / settings.sampling_rate_hz, tuple(name.strip() for name in names))


def read(
    root: Path, record: Record, settings: CsvInput, wanted: Mapping[str, Sequence[str]], start: int, stop: int
) -> dict[str, list[Channel]]:
    """Reads the wanted channels over whatever the file has of [start, stop); see `wfdb_reader.read`.

    Fields that are empty or no number are NaN.
    """
    rate = settings.sampling_rate_hz
    chosen = choose(record.names, wanted)
    columns = _columns(root / record.path, settings.separator, tuple(chosen.values()))
    first = max(0, math.floor((start - record.start) * 1e-6 * rate + 1e-6))
    last = max(first, samples_before((stop - record.start) * 1e-6, rate))
    return {
        want: [Channel(record.names[index], settings.unit, rate, first / rate, columns[index][first:last])]
        for want, index in chosen.items()
    }


@functools.lru_cache(maxsize=2)  # a subject's windows come one after the other
def _columns(path: Path, separator: str, wanted: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Returns column number → `(N,)` float64."""
    import polars as pl

    try:
        table = pl.read_csv(path, separator=separator, infer_schema=False, columns=sorted(wanted))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"file {path.name}: malformed or truncated ({one_line(error)}).") from None
    numbers = table.select(pl.all().str.strip_chars().cast(pl.Float64, strict=False).fill_null(float("nan")))
    return {index: numbers.to_series(place).to_numpy() for place, index in enumerate(sorted(wanted))}
