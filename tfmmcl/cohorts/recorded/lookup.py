"""Tables with one row per subject or patient: labels, splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl

from tfmmcl.cohorts import tables
from tfmmcl.cohorts.tables import SubjectSource, Table
from tfmmcl.errors import InputError

Value = TypeVar("Value")


def read_lookup(
    root: Path, table: Table, key: SubjectSource, column: str, meaning: Callable[[str], Value | None]
) -> dict[str, Value]:
    """Returns key → what the column's text means, for the rows whose text means something.

    Args:
        root: The folder with the raw data.
        table: Its files.
        key: Where the subject's or patient's id stands.
        column: The column that is looked up.
        meaning: Text → what it means, None for nothing; it sees texts without blanks around them, and `1` for `1.0`.

    Raises:
        InputError: If a file cannot be read, a column or a path's id is missing, or a key's rows differ in meaning.
    """
    frame = tables.scan(root, table)
    tables.require(frame, table, [column])
    rows = frame.select(_key=tables.subject(root, table, key, frame), _text=pl.col(column).cast(pl.String))
    with tables.reading(root, table):
        found = rows.collect()
    out: dict[str, Value] = {}
    for name, text in found.iter_rows():
        said = meaning(_normal(text))
        if name is None or said is None:
            continue
        if out.setdefault(name, said) != said:
            raise InputError(f"{table.path}: column '{column}' says two different things of one id, expected one.")
    return out


def _normal(text: str | None) -> str:
    text = (text or "").strip()
    return text[:-2] if text.endswith(".0") else text
