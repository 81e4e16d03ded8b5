"""The one form that every input's events take, and the values in it."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from tfmmcl.cohorts.tables import Table

SCHEMA = {
    "subject": pl.String,
    "time": pl.Int64,
    "code": pl.String,
    "value": pl.Float64,
    "capped": pl.Boolean,
    "zoned": pl.Boolean,
}
"""Columns of canonical events.

`time` is in microseconds since the epoch or since time zero, `timeline.ALWAYS` for what holds from the start, null
where it cannot be read. `value` is null where there is no finite number. `capped`: the value was a text such as "90+",
read as 90. `zoned`: the time carries a zone although none is expected, and so is null.
"""

LARGEST = 1e38
"""Beyond it float32, in which features are stored, has no room for means and deviations."""


@dataclass(frozen=True)
class Source:
    """An input, ready to be read.

    Attributes:
        events: Canonical events, perhaps more than those with wanted codes.
        subjects: All subjects' ids in the column `subject`, perhaps more than once.
        tables: The files they come from.
    """

    events: pl.LazyFrame
    subjects: pl.LazyFrame
    tables: tuple[Table, ...]


def finite(value: pl.Expr) -> pl.Expr:
    """Returns numbers as Float64, null instead of NaN, infinity, what float32 cannot hold, and what is no number."""
    value = value.cast(pl.Float64, strict=False)
    return pl.when(value.abs() <= LARGEST).then(value)


def tidy_text(column: pl.Expr) -> pl.Expr:
    """Returns ids, codes and the like as text without blanks around, null where nothing is left."""
    text = column.cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def number(column: str, dtype: pl.DataType) -> tuple[pl.Expr, pl.Expr]:
    """Returns a column's numbers, null where there is none, and whether each was a text with a plus sign ("90+")."""
    if not is_text(dtype):
        return finite(pl.col(column)), pl.lit(False)
    text = tidy_text(pl.col(column))
    value = finite(text.str.strip_suffix("+").str.strip_chars_end())
    return value, (text.str.ends_with("+") & value.is_not_null()).fill_null(False)


def is_text(dtype: pl.DataType) -> bool:
    """Whether a column holds text, in whatever encoding."""
    return dtype in (pl.String, pl.Categorical, pl.Enum)
