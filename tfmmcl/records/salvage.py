"""What is sound of a damaged data set, for training that is told to go on without the rest."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tfmmcl.cohorts.splits import Split
from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.errors import InputError
from tfmmcl.files import RemotePath, sha256
from tfmmcl.records.framing import read_sound_records, write_record
from tfmmcl.records.manifest import DataSet, Shard
from tfmmcl.records.schema import decode


def sound_part(data: DataSet, splits: Sequence[Split], folder: Path) -> tuple[DataSet, Mapping[Split, list[str]]]:
    """Returns a data set without the records that are damaged; every byte is read, with a progress bar.

    Damaged are those whose checksum, shape or encoding is wrong, those that hold an infinite value, all that a shard
    lacks, and all after a record whose length is damaged. Of a damaged shard a sound copy is made.

    Args:
        data: The data set.
        splits: Which splits to look at.
        folder: Where copies are made; they are needed as long as the data set that is returned.

    Returns:
        The data set, which has the same fingerprint, and for each split a sentence about each record that is left out.
    """
    lost: dict[Split, list[str]] = {split: [] for split in splits}
    shards, replaced = [], {}
    total = sum(shard.bytes for shard in data.manifest.shards if shard.split in splits)
    with tqdm(total=total, desc="looking for damage", unit="B", unit_scale=True, disable=None) as bar:
        for shard in data.manifest.shards:
            if shard.split in splits:
                copy = folder / shard.path
                shard, problems = _sound_copy(data, shard, copy)
                if problems:
                    replaced[shard.path] = copy
                    lost[shard.split] += problems
                bar.update(shard.bytes)
            shards.append(shard)
    manifest = data.manifest.model_copy(update={"shards": shards})
    return dataclasses.replace(data, manifest=manifest, replaced=replaced, known_as=data.fingerprint), lost


def _sound_copy(data: DataSet, shard: Shard, copy: Path) -> tuple[Shard, list[str]]:
    """Returns the shard, or what of it is sound, copied to a file, and a sentence for each record that is lost."""
    path = data.file(shard)
    problems, sound = [], []
    for index, record in enumerate(_records(path)):
        problem = record if isinstance(record, str) else _problem(record, data.spec)
        if problem:
            problems.append(f"{path}: record {index} {problem}")
        else:
            sound.append(index)
    missing = shard.records - len(sound) - len(problems)
    problems += [f"{path}: record {shard.records - missing + i} is missing." for i in range(missing)]
    if not problems:
        return shard, []
    with open(copy, "wb") as file:
        if sound:
            wanted = set(sound)
            for index, record in enumerate(_records(path)):
                if index in wanted:
                    assert isinstance(record, bytes)  # it was, a moment ago
                    write_record(file, record)
    update = {"records": len(sound), "bytes": copy.stat().st_size, "sha256": sha256(copy)}
    return shard.model_copy(update=update), problems


def _records(path: Path | RemotePath) -> Iterator[bytes | str]:
    with contextlib.suppress(FileNotFoundError):
        yield from read_sound_records(path)


def _problem(record: bytes, spec: Spec) -> str:
    try:
        trajectory = decode(record, spec)
    except InputError as error:
        return f"is no trajectory of this data set: {error}"
    infinite = [name for name in ("structured", "statics") if np.isinf(getattr(trajectory, name)).any()]
    return f"holds an infinite value in '{infinite[0]}'." if infinite else ""
