"""The tables of MIMIC-IV (Johnson et al. 2023, https://doi.org/10.1038/s41597-022-01899-x) as events.

Codes, times and the precision of values are those of MIMIC-IV's MEDS release, so that both give the same timelines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import polars as pl

from tfmmcl.cohorts.events.canonical import Source, finite
from tfmmcl.cohorts.events.codes import may_begin
from tfmmcl.cohorts.events.settings import MimicIvInput, TimeColumn
from tfmmcl.cohorts.events.timeline import ALWAYS
from tfmmcl.cohorts.events.times import microseconds
from tfmmcl.cohorts.tables import Table, require, scan
from tfmmcl.errors import InputError

WRITTEN = "%Y-%m-%d %H:%M:%S"  # known, so five times faster to read than any ISO 8601
MIDNIGHT = pl.lit(" 00:00:00")
MEASUREMENTS = ("hosp/labevents", "icu/chartevents")


class Rows(NamedTuple):
    """One of MIMIC-IV's tables: where it is, and its rows."""

    table: Table
    frame: pl.LazyFrame


def read_mimic_iv(root: Path, settings: MimicIvInput, codes: Sequence[str], zone: str | None) -> Source:
    """Reads those tables that the wanted codes may come from; see `readers.read`."""
    rows: dict[str, Rows] = {}
    events = partial(_events, zone=zone)

    def need(name: str) -> Rows:
        return rows.setdefault(name, _open(root, settings.path, name))

    parts = [*_stays(need, codes, events), *_people(need("hosp/patients"), need("hosp/admissions"), events)]
    if any(may_begin(code, "LAB//") for code in codes):
        parts += [_measurements(need(name), codes, events) for name in MEASUREMENTS]
    subjects = need("hosp/patients").frame.select(subject="subject_id")
    return Source(pl.concat(parts), subjects, tuple(item.table for item in rows.values()))


def _open(root: Path, folder: str, name: str) -> Rows:
    path = (Path(folder) / name).as_posix()
    found = [file for file in (f"{path}.csv", f"{path}.csv.gz") if (root / file).is_file()]
    if not found:
        raise InputError(f"{root}: no {path}.csv or {path}.csv.gz, which a variable's code needs.")
    table = Table(path=found[0])
    return Rows(table, scan(root, table))


def _people(patients: Rows, admissions: Rows, events: Callable[..., pl.LazyFrame]) -> Iterator[pl.LazyFrame]:
    """Yields sex, birth, admissions, discharges and death."""
    require(patients.frame, patients.table, ("gender", "anchor_age", "anchor_year", "dod"))
    require(admissions.frame, admissions.table, ("deathtime",))
    birth_year = pl.col("anchor_year").cast(pl.Int32, strict=False) - pl.col("anchor_age").cast(pl.Int32, strict=False)
    born = Rows(patients.table, patients.frame.with_columns(birth=birth_year.cast(pl.String) + "-01-01" + MIDNIGHT))
    # The hour of a death in hospital is known; of another, only the day.
    deaths = admissions.frame.group_by("subject_id").agg(pl.col("deathtime").max())
    died = patients.frame.join(deaths, on="subject_id", how="left")
    died = died.with_columns(death=pl.coalesce("deathtime", pl.col("dod") + MIDNIGHT)).filter(
        pl.col("death").is_not_null()
    )
    yield events(patients, None, ("GENDER", "gender"))
    yield events(born, "birth", ("MEDS_BIRTH",))
    yield events(Rows(patients.table, died), "death", ("MEDS_DEATH",))
    yield events(admissions, "admittime", ("HOSPITAL_ADMISSION", "admission_type", "admission_location"))
    yield events(admissions, "dischtime", ("HOSPITAL_DISCHARGE", "discharge_location"))


def _stays(
    need: Callable[[str], Rows], codes: Sequence[str], events: Callable[..., pl.LazyFrame]
) -> Iterator[pl.LazyFrame]:
    if any(may_begin(code, "ICU_") for code in codes):
        yield events(need("icu/icustays"), "intime", ("ICU_ADMISSION", "first_careunit"))
        yield events(need("icu/icustays"), "outtime", ("ICU_DISCHARGE", "last_careunit"))


def _measurements(rows: Rows, codes: Sequence[str], events: Callable[..., pl.LazyFrame]) -> pl.LazyFrame:
    require(rows.frame, rows.table, ("itemid", "valuenum"))
    items = _items(codes)
    frame = rows.frame if items is None else rows.frame.filter(pl.col("itemid").is_in(items))
    return events(Rows(rows.table, frame), "charttime", ("LAB", "itemid", "valueuom"), value="valuenum")


def _items(codes: Sequence[str]) -> list[str] | None:
    """Returns the items that the codes name, so that all other rows are skipped early; None: any may be wanted."""
    found = [re.match(r"LAB//([^/*]+)(?://|$)", code) for code in codes if may_begin(code, "LAB//")]
    return None if None in found else sorted({match[1] for match in found if match})


def _events(
    rows: Rows, time: str | None, code: Sequence[str], value: str | None = None, *, zone: str | None
) -> pl.LazyFrame:
    """Returns canonical events.

    Args:
        rows: The table.
        time: The time's column. None: the events hold from the start.
        code: What the code begins with, and the columns that follow; an empty one gives `UNK`.
        value: The value's column.
        zone: Zone of the times.
    """
    begin, *columns = code
    require(rows.frame, rows.table, ("subject_id", *columns, *([time] if time else [])))
    at, zoned = pl.lit(ALWAYS), pl.lit(False)
    if time:
        at, zoned = microseconds(TimeColumn(column=time, format=WRITTEN), pl.String(), zone, rows.table.path)
    number = finite(pl.col(value)).cast(pl.Float32).cast(pl.Float64) if value else pl.lit(None, pl.Float64)
    return rows.frame.select(
        subject="subject_id",
        time=at,
        code=pl.concat_str(pl.lit(begin), *(pl.col(column).fill_null("UNK") for column in columns), separator="//"),
        value=number,
        capped=pl.lit(False),
        zoned=zoned,
    )
