"""Times as hospitals write them, in microseconds."""

from __future__ import annotations

import polars as pl

from tfmmcl.cohorts.durations import SECONDS_PER
from tfmmcl.cohorts.events.canonical import is_text
from tfmmcl.cohorts.events.settings import TimeColumn
from tfmmcl.errors import InputError

ISO = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
ISO_ZONED = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z")
CLOCK = r"^(-?)(\d+):([0-5]?\d)(?::([0-5]?\d(?:\.\d*)?))?$"


def microseconds(settings: TimeColumn, dtype: pl.DataType, zone: str | None, where: str) -> tuple[pl.Expr, pl.Expr]:
    """Returns a column's times in microseconds, and whether each carries a zone that is not expected.

    Args:
        settings: The column and its unit.
        dtype: The column's type. Dates and durations need no unit.
        zone: IANA zone in which times without a zone were written; all dates are then turned into UTC. Of a time that
            the clocks showed twice, the first is taken; one that they skipped is read an hour later. Default None:
            times stand as they are written.
        where: What is being read, for the error's sentence.

    Raises:
        InputError: If the column's type is none that gives times, or has a zone and `zone` is None.
    """
    column = pl.col(settings.column)
    if isinstance(dtype, pl.Duration):
        return column.dt.total_microseconds(), pl.lit(False)
    if dtype in (pl.Date, pl.Datetime):
        return _on_the_calendar(column.cast(pl.Datetime("us", getattr(dtype, "time_zone", None))), dtype, zone, where)
    if settings.unit == "datetime" and is_text(dtype):
        return _written(column.cast(pl.String).str.strip_chars(), settings.format, zone, where)
    if settings.unit == "clock" and is_text(dtype):
        return _clock(column.cast(pl.String).str.strip_chars()), pl.lit(False)
    if settings.unit in SECONDS_PER and (is_text(dtype) or dtype.is_numeric()):
        text = column.str.strip_chars() if is_text(dtype) else column
        return _whole(text.cast(pl.Float64, strict=False) * SECONDS_PER[settings.unit]), pl.lit(False)
    raise InputError(f"{where}: column '{settings.column}' holds {dtype}, expected times as '{settings.unit}'.")


def check_zone(zone: str | None) -> None:
    """Raises `InputError` unless the zone is None or one that times can be read in."""
    try:
        pl.select(_utc(pl.lit(0).cast(pl.Datetime("us")), zone))
    except pl.exceptions.PolarsError:
        raise InputError(
            f"inputs.time_zone is '{zone}', expected the IANA name of a zone, such as 'Europe/Berlin'."
        ) from None


def _on_the_calendar(column: pl.Expr, dtype: pl.DataType, zone: str | None, where: str) -> tuple[pl.Expr, pl.Expr]:
    if getattr(dtype, "time_zone", None) is None:
        return _utc(column, zone).dt.epoch("us"), pl.lit(False)
    if zone is None:
        raise InputError(
            f"{where}: times carry a zone ({dtype.time_zone}), expected times without one, or inputs.time_zone set."
        )
    return column.dt.epoch("us"), pl.lit(False)


def _written(text: pl.Expr, form: str | None, zone: str | None, where: str) -> tuple[pl.Expr, pl.Expr]:
    if form is not None:
        time = text.str.to_datetime(form, time_unit="us", strict=False)
        zoned = any(directive in form for directive in ("%z", "%:z", "%#z", "%+"))
        return _on_the_calendar(time, pl.Datetime("us", "UTC" if zoned else None), zone, where)
    text = text.str.replace("T", " ", literal=True)
    naive = pl.coalesce(text.str.to_datetime(form, time_unit="us", strict=False) for form in ISO)
    aware = pl.coalesce(text.str.to_datetime(form, time_unit="us", strict=False) for form in ISO_ZONED)
    if zone is None:
        return naive.dt.epoch("us"), naive.is_null() & aware.is_not_null()
    return pl.coalesce(_utc(naive, zone).dt.epoch("us"), aware.dt.epoch("us")), pl.lit(False)


def _utc(naive: pl.Expr, zone: str | None) -> pl.Expr:
    if zone is None:
        return naive
    local, later = (
        time.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        for time in (naive, naive.dt.offset_by("1h"))
    )
    return pl.coalesce(local, later).dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def _clock(text: pl.Expr) -> pl.Expr:
    sign = pl.when(text.str.extract(CLOCK, 1) == "-").then(-1.0).otherwise(1.0)
    hours, minutes, seconds = (text.str.extract(CLOCK, group).cast(pl.Float64, strict=False) for group in (2, 3, 4))
    return _whole(sign * (hours * 3600 + minutes * 60 + seconds.fill_null(0)))


def _whole(seconds: pl.Expr) -> pl.Expr:
    return (seconds * 1e6).round().cast(pl.Int64, strict=False)
