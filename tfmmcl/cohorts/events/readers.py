"""Every format's events in the canonical form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from tfmmcl.cohorts.events.canonical import SCHEMA, Source, finite, is_text, number, tidy_text
from tfmmcl.cohorts.events.codes import matches, may_begin
from tfmmcl.cohorts.events.mimic_iv import read_mimic_iv
from tfmmcl.cohorts.events.settings import (
    EventInput,
    EventTable,
    LongInput,
    MedsInput,
    MimicIvInput,
    TextInput,
    TimeColumn,
    WideInput,
)
from tfmmcl.cohorts.events.timeline import ALWAYS
from tfmmcl.cohorts.events.times import microseconds
from tfmmcl.cohorts.tables import FILE, SubjectSource, Table, require, scan, subject, subjects_of


def read(root: Path, settings: EventInput, codes: Sequence[str], zone: str | None = None) -> Source:
    """Returns an input's events, lazily, and its subjects.

    Args:
        root: The folder with the data.
        settings: The input.
        codes: Patterns of the codes wanted; what surely has none of them may be left out.
        zone: Zone in which times without one were written. Default None: no time carries a zone.

    Raises:
        InputError: If a file or a column is missing, or cannot be what the settings say.
    """
    if isinstance(settings, MimicIvInput):
        return read_mimic_iv(root, settings, codes, zone)
    if isinstance(settings, MedsInput):
        return read_meds(root, settings, zone)
    if isinstance(settings, LongInput):
        return read_long(root, settings, zone)
    if isinstance(settings, WideInput):
        return read_wide(root, settings, codes, zone)
    return read_text(root, settings)


def read_meds(root: Path, settings: MedsInput, zone: str | None) -> Source:
    """Reads MEDS shards; an event without a time holds from the start."""
    table = Table(path=settings.path)
    frame = scan(root, table)
    require(frame, table, ("subject_id", "time", "code", "numeric_value"))
    schema = frame.collect_schema()
    time, zoned = microseconds(TimeColumn(column="time"), schema["time"], zone, table.path)
    value, capped = number("numeric_value", schema["numeric_value"])
    owner = subject(root, table, SubjectSource(column="subject_id"), frame)
    events = frame.select(
        subject=owner,
        time=pl.when(pl.col("time").is_null()).then(ALWAYS).otherwise(time),
        code=pl.col("code").cast(pl.String),
        value=value,
        capped=capped,
        zoned=zoned,
    )
    return Source(events, frame.select(subject=owner), (table,))


def read_long(root: Path, settings: LongInput, zone: str | None) -> Source:
    """Reads one event per row; a text that is no number is no value."""
    frame = scan(root, settings)
    owner, subjects = _subject(root, settings, frame)
    time, zoned = _time(frame, settings, zone)
    require(frame, settings, (settings.code, settings.value))
    value, capped = number(settings.value, frame.collect_schema()[settings.value])
    code = pl.lit(settings.prefix) + tidy_text(pl.col(settings.code))
    return Source(
        frame.select(subject=owner, time=time, code=code, value=value, capped=capped, zoned=zoned),
        subjects,
        (settings,),
    )


def read_wide(root: Path, settings: WideInput, codes: Sequence[str], zone: str | None) -> Source:
    """Reads one event per cell, none from a cell that is empty or says NaN."""
    frame = scan(root, settings)
    owner, subjects = _subject(root, settings, frame)
    time, zoned = _time(frame, settings, zone)
    schema = frame.collect_schema()
    if settings.measurements is None:
        other = {FILE, settings.subject.column, settings.time and settings.time.column}
        measured = [name for name in schema if name not in other and _may_hold(settings.prefix + name, codes)]
    else:
        require(frame, settings, settings.measurements)
        measured = settings.measurements
    texts = [name for name in measured if is_text(schema[name])]
    numbers = [name for name in measured if name not in texts]
    frame = frame.select(*measured, _subject=owner, _time=time, _zoned=zoned)
    parts = [_worded(_unpivot(frame, texts))] if texts else []
    parts += [_numeric(_unpivot(frame.cast(dict.fromkeys(numbers, pl.Float64)), numbers))] if numbers else []
    events = pl.concat(parts) if parts else pl.LazyFrame(schema=SCHEMA)
    return Source(events.with_columns(code=pl.lit(settings.prefix) + pl.col("code")), subjects, (settings,))


def read_text(root: Path, settings: TextInput) -> Source:
    """Reads each field's first match in every file; `^` and `$` in its expression match at the ends of lines."""
    subjects = subjects_of(root, settings.path, settings.subject)
    rows = []
    for path, owner in subjects.items():
        text = (root / path).read_text(encoding="utf-8", errors="replace")
        for code, pattern in settings.fields.items():
            if found := re.search(pattern, text, re.MULTILINE):
                rows.append((owner, code, found[1]))
    frame = pl.LazyFrame(rows, {"_subject": pl.String, "_code": pl.String, "_value": pl.String}, orient="row")
    events = _worded(frame.with_columns(_time=pl.lit(ALWAYS), _zoned=pl.lit(False)))
    return Source(events, pl.LazyFrame({"subject": list(subjects.values())}), (Table(path=settings.path),))


def _subject(root: Path, settings: EventTable, frame: pl.LazyFrame) -> tuple[pl.Expr, pl.LazyFrame]:
    """Returns each row's subject, and all subjects."""
    source = settings.subject
    rows = subject(root, settings, source, frame)
    if source.pattern is None:
        return rows, frame.select(subject=rows)
    return rows, pl.LazyFrame({"subject": list(subjects_of(root, settings.path, source.pattern).values())})


def _time(frame: pl.LazyFrame, settings: EventTable, zone: str | None) -> tuple[pl.Expr, pl.Expr]:
    if settings.time is None:
        return pl.lit(ALWAYS), pl.lit(False)
    require(frame, settings, (settings.time.column,))
    return microseconds(settings.time, frame.collect_schema()[settings.time.column], zone, settings.path)


def _may_hold(column: str, codes: Sequence[str]) -> bool:
    return any(matches(code, column) or may_begin(code, f"{column}//") for code in codes)


def _unpivot(frame: pl.LazyFrame, columns: Sequence[str]) -> pl.LazyFrame:
    index = ("_subject", "_time", "_zoned")
    return frame.unpivot(on=columns, index=index, variable_name="_code", value_name="_value")


def _numeric(cells: pl.LazyFrame) -> pl.LazyFrame:
    given = cells.filter(pl.col("_value").is_not_null() & pl.col("_value").is_not_nan())
    return _canonical(given, pl.col("_code"), finite(pl.col("_value")), pl.lit(False))


def _worded(cells: pl.LazyFrame) -> pl.LazyFrame:
    """Turns texts into events; one that is no number becomes part of the code."""
    text = tidy_text(pl.col("_value"))
    given = cells.with_columns(_value=text).filter(text.is_not_null() & (text.str.to_lowercase() != "nan"))
    value, capped = number("_value", pl.String())
    is_number = value.is_not_null() | pl.col("_value").cast(pl.Float64, strict=False).is_not_null()  # "inf" is one
    code = pl.when(is_number).then("_code").otherwise(pl.concat_str("_code", "_value", separator="//"))
    return _canonical(given, code, value, capped)


def _canonical(cells: pl.LazyFrame, code: pl.Expr, value: pl.Expr, capped: pl.Expr) -> pl.LazyFrame:
    return cells.select(
        subject=pl.col("_subject"), time=pl.col("_time"), code=code, value=value, capped=capped, zoned=pl.col("_zoned")
    )
