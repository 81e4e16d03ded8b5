"""Tables as hospitals keep them: CSV or Parquet, in one file or thousands, compressed or not."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from tfmmcl.config import Settings
from tfmmcl.errors import InputError, nearest

if TYPE_CHECKING:
    import polars as pl

FILE = "_file"
"""The column that says which file a row came from."""

ARCHIVES = {"tar": (".tar",), "gztar": (".tar.gz", ".tgz"), "zip": (".zip",)}
"""What archives' names end with, by `shutil`'s names of the formats."""

MARKER = ".unpacked.json"

# RuntimeError: it is encrypted, or packed in a way that zipfile does not know.
_UNPACKING = (shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)


class SubjectSource(Settings):
    """Where a row's or a record's subject id stands: in a column, or in the file's path. Exactly one is given.

    A subject is whoever one time axis belongs to: a patient where times are dates, else a stay or a record.

    Attributes:
        column: The column that holds it.
        pattern: Regular expression searched for in the file's path below the root; its first group is the id.
    """

    column: str | None = None
    pattern: str | None = None

    @model_validator(mode="after")
    def _one(self) -> SubjectSource:
        if (self.column is None) == (self.pattern is None):
            raise ValueError("expected either 'column' or 'pattern'")
        check_pattern(self.pattern)
        return self


class Table(Settings):
    """Files with the same columns.

    Attributes:
        path: Glob below the root (`set-a/*.txt`; `**` does not enter linked folders); the suffix says what a file is:
            `.parquet`, or else CSV in UTF-8, perhaps `.gz` or `.zst`.
        columns: The columns' names, for CSV files without a line of names. Default: the first line has them.
        separator: What stands between a CSV file's columns.
    """

    path: str = Field(min_length=1)
    columns: tuple[str, ...] | None = None
    separator: str = Field(default=",", min_length=1, max_length=1)


def check_pattern(pattern: str | None) -> None:
    """Raises `ValueError` unless the pattern is None or a regular expression with a group."""
    import re

    if pattern is None:
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression ({error})") from None
    if not groups:
        raise ValueError(f"pattern {pattern!r} has no group; expected one around the id, such as '(\\d+)'")


def files(root: Path, pattern: str) -> list[Path]:
    """Returns the files below `root` that match a glob, sorted; raises `InputError` if there is none."""
    try:
        # What begins with "._" is macOS's, beside a file of that name, and no data.
        found = sorted(path for path in root.glob(pattern) if path.is_file() and not path.name.startswith("._"))
    except (NotImplementedError, ValueError) as error:
        raise InputError(f"'{pattern}' is not a glob below the root ({error}).") from None
    if not found:
        raise InputError(f"{root}: no file matches '{pattern}', expected at least one.")
    return found


def scan(root: Path, table: Table) -> pl.LazyFrame:
    """Returns a table's rows, lazily, with the file each came from (relative to `root`) in the column `_file`.

    Every CSV column is text. Names of columns have no blanks around them. The files' columns may differ in order; one
    that a file lacks is null there. Collect or sink what becomes of it within `reading`.

    Raises:
        InputError: If no file matches, or one cannot be read.
    """
    import polars as pl

    alike: dict[tuple, list[Path]] = {}
    for path in files(root, table.path):
        alike.setdefault(_columns(path, table), []).append(path)
    frames = [_scan(paths, table, columns) for columns, paths in alike.items()]
    below = pl.col(FILE).str.strip_prefix(f"{root.as_posix().rstrip('/')}/")
    return pl.concat(frames, how="diagonal_relaxed").with_columns(below)


def require(frame: pl.LazyFrame, table: Table, columns: Iterable[str]) -> None:
    """Raises `InputError`, naming those found and the nearest, unless a scanned table has all these columns."""
    found = [name for name in frame.collect_schema() if name != FILE]
    for column in columns:
        if column not in found:
            listed = ", ".join(found[:20]) + (", …" if len(found) > 20 else "")
            raise InputError(f"{table.path}: no column '{column}', found {listed}{nearest(column, found)}.")


def subject(root: Path, table: Table, source: SubjectSource, frame: pl.LazyFrame) -> pl.Expr:
    """Returns each row's subject, null where it has none; one id is the same text in whatever table it stands.

    Raises:
        InputError: If a scanned table has no such column, or one of its paths has no id.
    """
    import polars as pl

    if source.column is None:
        subjects = subjects_of(root, table.path, source.pattern)
        return pl.col(FILE).replace_strict(subjects, return_dtype=pl.String)
    require(frame, table, (source.column,))
    # Where some row lacks its id, pandas makes all others fractions: 12.0.
    text = pl.col(source.column).cast(pl.String).str.strip_chars().str.replace(r"^(\d+)\.0$", "${1}")
    return pl.when(~text.is_in(["", "NaN"])).then(text)


def subjects_of(root: Path, path: str, pattern: str) -> dict[str, str]:
    """Returns file, relative to the root → the subject whose id is in its path; `InputError` where one has none."""
    import re

    subjects = {}
    for file in files(root, path):
        relative = file.relative_to(root).as_posix()
        found = re.search(pattern, relative)
        if found is None or not found[1]:
            raise InputError(f"{path}: the path '{relative}' has no subject's id, expected it to match '{pattern}'.")
        subjects[relative] = found[1]
    return subjects


@contextmanager
def reading(root: Path, *tables: Table) -> Iterator[None]:
    """Turns an error while rows of these tables are read into an `InputError` that names the damaged file."""
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # a full disk, say: no file is to blame
            raise
        for table in tables:
            for path in files(root, table.path):
                with _naming(path):
                    _scan([path], table, _columns(path, table)).select(pl.all().count()).collect(engine="streaming")
        raise InputError(f"{', '.join(table.path for table in tables)}: cannot be read ({_why(error)}).") from None


def unpack(root: Path, folder: Path) -> Path:
    """Returns the folder with the data: `root` itself, or what it holds where it is an archive.

    Args:
        root: A folder, or a `.tar`, `.tar.gz`, `.tgz` or `.zip` file.
        folder: Where an archive is unpacked. It is replaced, unless it holds this very archive already.

    Raises:
        InputError: If `root` is neither, or is damaged.
    """
    if root.is_dir():
        return root
    if not root.is_file():
        raise InputError(f"{root}: no such file or folder, expected the folder or the archive with the data.")
    kind = next((kind for kind, suffixes in ARCHIVES.items() if root.name.lower().endswith(suffixes)), None)
    if kind is None:
        raise InputError(f"{root}: found a file, expected a folder or an archive (.tar, .tar.gz, .tgz or .zip).")
    state = root.stat()
    marker = json.dumps([str(root.resolve()), state.st_size, state.st_mtime_ns])
    if (folder / MARKER).is_file() and (folder / MARKER).read_text(encoding="utf-8") == marker:
        return folder
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        shutil.unpack_archive(root, partial, kind, **({} if kind == "zip" else {"filter": "data"}))
    except _UNPACKING as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"{root}: cannot be unpacked ({_why(error)}).") from None
    (partial / MARKER).write_text(marker, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _columns(path: Path, table: Table) -> tuple:
    """Returns names (and Parquet's types) of a file's columns, equal for files that can be scanned together."""
    import polars as pl

    with _naming(path):
        if _is_parquet(path):
            return tuple(pl.read_parquet_schema(path).items())
        names = _scan_csv([path], table).collect_schema().names()
    if table.columns is not None and len(names) != len(table.columns):
        listed = ", ".join(table.columns)
        raise InputError(f"{path}: found {len(names)} columns, expected {len(table.columns)} ({listed}).")
    return tuple(names)


def _scan(paths: Sequence[Path], table: Table, columns: tuple) -> pl.LazyFrame:
    """Returns the rows of files whose columns are the same."""
    import polars as pl

    if _is_parquet(paths[0]):
        frame = pl.scan_parquet(paths, glob=False, include_file_paths=FILE)
        found, given = [name for name, _ in columns], None
    else:
        frame = _scan_csv(paths, table, include_file_paths=FILE)
        found, given = columns, table.columns
    names = given or tuple(name.strip() for name in found)
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"{paths[0]}: found two columns named '{min(twice)}', expected each name once.")
    return frame.rename(dict(zip(found, names)))


def _scan_csv(paths: Sequence[Path], table: Table, **options: str) -> pl.LazyFrame:
    import polars as pl

    return pl.scan_csv(
        paths, infer_schema=False, glob=False, separator=table.separator, has_header=table.columns is None, **options
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({_why(error)}).") from None


def _why(error: Exception) -> str:
    # What follows a backtick is quoted from the data.
    return str(error).split("`")[0].split("\n")[0].strip().rstrip(".") or "it is damaged"
