"""A Parquet file in the making, which a killed run leaves behind as parts, and the next one goes on with."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tfmmcl.errors import InputError
from tfmmcl.files import sole_writer
from tfmmcl.training.run_directory import write_complete

_NAME = re.compile(r"(\d{12})-(\d+)-([0-9a-f]*)\.parquet")

ROW_GROUP = 65_536
"""Rows of the finished file that a reader has in memory at once, at least."""


def check_new(out: str | Path) -> None:
    """Raises `InputError` if there is a file of that name, or no folder to write it in."""
    out = Path(out)
    if out.exists():
        raise InputError(f"{out}: already exists; expected the name of a new file.")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; expected one to write {out.name} in.")


class Parts:
    """The rows that a file has so far, in the hidden folder `.NAME.partial` beside it.

    Each part is one whole Parquet file. Its name says where its rows belong, and `mark`, whatever the caller wants to
    know again of what they were made from.

    Args:
        out: The file.
        key: What the rows depend on; parts made with another key are thrown away.
    """

    def __init__(self, out: Path, key: str) -> None:
        self.out = out
        self.folder = out.with_name(f".{out.name}.partial")
        self.rows, self.mark = 0, ""
        self._key = key
        self._paths: list[Path] = []

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Takes over the parts that are there, and keeps other processes out meanwhile.

        Raises:
            InputError: If the file exists, its folder does not, or another process is at work on it.
        """
        check_new(self.out)
        with sole_writer(self.folder):
            self._continue()
            yield

    def add(self, rows: pl.DataFrame, mark: str = "") -> None:
        """Adds rows; they are on the disk when this returns."""
        if not self._paths:
            write_complete(self.folder / "key", lambda path: path.write_text(self._key, encoding="utf-8"))
        path = self.folder / f"{self.rows:012d}-{rows.height}-{mark}.parquet"
        write_complete(path, lambda partial: rows.write_parquet(partial, compression="lz4"))
        self._paths.append(path)
        self.rows, self.mark = self.rows + rows.height, mark

    def publish(self) -> None:
        """Writes the file, the same whatever its parts were, and removes them."""
        parts = pl.scan_parquet(self._paths)
        write_complete(self.out, lambda path: parts.sink_parquet(path, row_group_size=ROW_GROUP, maintain_order=True))
        shutil.rmtree(self.folder)

    def _continue(self) -> None:
        found = {int(match[1]): match for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))}
        key = self.folder / "key"
        if not key.is_file() or key.read_text(encoding="utf-8") != self._key:
            for match in found.values():
                (self.folder / match[0]).unlink()
            return
        while match := found.get(self.rows):
            self._paths.append(self.folder / match[0])
            self.rows, self.mark = self.rows + int(match[2]), match[3]
