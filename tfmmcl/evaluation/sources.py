"""Where trajectories to embed come from: a data set, or lines of JSON; batch by batch, from any place on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl

from tfmmcl.cohorts.splits import SPLITS
from tfmmcl.errors import InputError, nearest
from tfmmcl.evaluation.served import INPUTS
from tfmmcl.evaluation.tabular import without_signals
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.schema import TASK_PREFIX, dequantise


class Batch(NamedTuple):
    """A few trajectories.

    Attributes:
        columns: What the table says of each: `trajectory`, `patient`, `split`, and labels.
        inputs: Name → `(B, …)` in physical units, NaN where missing.
        mark: What the source needs to go on after them, in hex.
    """

    columns: dict[str, pl.Series]
    inputs: dict[str, Any]
    mark: str = ""


class Source(Protocol):
    """Trajectories in a fixed order.

    Attributes:
        key: What they depend on, as far as it is known beforehand.
        total: How many there are; None where that is not known.
    """

    key: str
    total: int | None

    def batches(self, inputs: Mapping[str, tuple[int, ...]], size: int, first: int, mark: str) -> Iterator[Batch]:
        """Yields batches from a trajectory on.

        Args:
            inputs: Name → shape of what is to be read, without the batch axis.
            size: Trajectories in a batch; the last may have fewer.
            first: How many trajectories to leave out.
            mark: That of the batch before, where there was one.
        """
        ...


@dataclass(frozen=True)
class DataSetSource:
    """All splits of a data set in stored order, read by tf.data while the model computes."""

    data: DataSet

    @property
    def key(self) -> str:
        """The data set's fingerprint."""
        return self.data.fingerprint

    @property
    def total(self) -> int:
        """Trajectories of all splits."""
        return sum(self.data.count(split) for split in SPLITS)

    def batches(self, inputs: Collection[str], size: int, first: int, mark: str = "") -> Iterator[Batch]:
        """Yields batches as `Source` says; signals that are not asked for are not parsed."""
        import tensorflow as tf

        from tfmmcl.pipeline.damage import naming_damage
        from tfmmcl.pipeline.parse import parse

        data = self.data if "signals" in inputs else without_signals(self.data)
        splits = np.repeat(SPLITS, [data.count(split) for split in SPLITS])
        files, skipped = self._from(first)
        records = tf.data.TFRecordDataset(files).skip(skipped).batch(size)
        records = records.map(lambda batch: parse(batch, data.spec, signals="signals" in inputs)).prefetch(2)
        with naming_damage(data, SPLITS):
            for examples in records:
                names = examples["trajectory"].numpy()
                columns = {
                    "trajectory": pl.Series([_text(name) for name in names]),
                    "patient": pl.Series([_text(name) for name in examples["patient"].numpy()]),
                    "split": pl.Series(splits[first : first + len(names)].tolist()),
                }
                for task in data.spec.tasks:
                    label = TASK_PREFIX + task.name
                    columns[label] = pl.Series(examples[label].numpy(), dtype=pl.Float32).fill_nan(None)
                first += len(names)
                arrays = {name: examples[name].numpy() for name in inputs}
                if "signals" in arrays:  # by NumPy: TensorFlow takes ten times as long
                    arrays["signals"] = dequantise(arrays["signals"], data.spec)
                yield Batch(columns, arrays)

    def _from(self, first: int) -> tuple[list[str], int]:
        """Returns the shards that hold trajectories from number `first` on, and how many to leave out of the first."""
        files, skipped = [], first
        for split in SPLITS:
            if not self.data.count(split):
                continue
            shards = [shard for shard in self.data.manifest.shards if shard.split == split and shard.records]
            for path, shard in zip(self.data.shards(split), shards):
                if not files and skipped >= shard.records:
                    skipped -= shard.records
                else:
                    files.append(path)
        return files, skipped


@dataclass(frozen=True)
class JsonLines:
    """One trajectory a line: `patient`, `trajectory`, perhaps `split`, and each input as nested lists, null or NaN.

    Attributes:
        lines: The lines, each with its end.
        name: What errors call them.
    """

    lines: Iterable[bytes]
    name: str

    key = "lines"
    total = None

    def batches(self, inputs: Mapping[str, tuple[int, ...]], size: int, first: int, mark: str) -> Iterator[Batch]:
        """Yields batches as `Source` says; a mark is the hash of the lines so far.

        Raises:
            InputError: At a line that holds something else, with its number; what came before it has been yielded
                then. Or if the lines to leave out are not those that were embedded before.
        """
        digest = hashlib.sha256()
        rows: list[dict[str, Any]] = []
        count = 0

        def batch() -> Batch:
            columns = {name: pl.Series([row[name] for row in rows], dtype=pl.String) for name in _IDS}
            arrays = {name: np.stack([row[name] for row in rows]) for name in inputs}
            return Batch(columns, arrays, digest.copy().hexdigest())

        for number, line in enumerate(self.lines, start=1):
            if not line.strip():
                continue
            if count >= first:
                try:
                    rows.append(_parse(line, inputs))
                except InputError as error:
                    if rows:
                        yield batch()
                    raise InputError(f"{self.name}: line {number}: {error}") from None
            digest.update(line.strip() + b"\n")
            count += 1
            if count == first and digest.hexdigest() != mark:
                raise InputError(
                    f"{self.name}: its first {first:,} trajectories are not those that were embedded before; expected "
                    "the same lines to go on with, or another --out."
                )
            if len(rows) == size:
                yield batch()
                rows = []
        if rows:
            yield batch()
        if count < first:
            raise InputError(
                f"{self.name}: found {count:,} trajectories, expected the {first:,} embedded before, and more."
            )


_IDS = ("trajectory", "patient", "split")


def _parse(line: bytes, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot be read as JSON ({error}).") from None
    if not isinstance(found, dict):
        raise InputError(f"found a {type(found).__name__}, expected an object with {', '.join((*_IDS[:2], *inputs))}.")
    for key in found:
        if key not in (*_IDS, *INPUTS):
            hint = nearest(key, (*_IDS, *INPUTS)) or f"; expected none but {', '.join((*_IDS, *INPUTS))}."
            raise InputError(f"has an unknown key '{key}'{hint}")
    row: dict[str, Any] = {"split": found.get("split")}
    for name in _IDS[:2]:
        row[name] = found.get(name)
        if not isinstance(row[name], str) or not row[name]:
            raise InputError(f"'{name}' is {json.dumps(row[name])[:40]}, expected an id in quotation marks.")
    if row["split"] not in (None, *SPLITS):
        raise InputError(f"'split' is {json.dumps(row['split'])[:40]}, expected one of {', '.join(SPLITS)}, or none.")
    for name, shape in inputs.items():
        if name not in found:
            raise InputError(f"has no '{name}', expected numbers of shape {shape}.")
        row[name] = _numbers(found[name], name, shape)
    return row | {name: _text(row[name].encode("utf-8", "surrogatepass")) for name in _IDS[:2]}


def _numbers(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns nested lists of numbers and nulls as an array; raises `InputError` for anything else."""
    try:
        array = np.array(value)
    except ValueError:
        raise InputError(f"'{name}' has rows of different lengths, expected shape {shape}.") from None
    if array.shape != shape:
        raise InputError(f"'{name}' has shape {array.shape}, expected {shape}.")
    if array.dtype.kind not in "if":
        array = np.array(value, object)
        for item in array.flat:
            if item is not None and type(item) not in (int, float):
                raise InputError(f"'{name}' holds {json.dumps(item, default=str)[:40]}, expected numbers and null.")
    try:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    except OverflowError:
        raise InputError(f"'{name}' holds a number that no float32 can hold.") from None
    if np.isinf(array).any():
        raise InputError(f"'{name}' holds an infinite value, expected finite numbers and null.")
    return array


def _text(identifier: bytes) -> str:
    """Returns an id as it is, but for what no Parquet file can hold: a lone surrogate is spelt out in ASCII."""
    return identifier.decode("utf-8", "surrogatepass").encode("utf-8", "backslashreplace").decode("utf-8")
