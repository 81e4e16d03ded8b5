"""Checks a data set: every checksum, count, shape and value range, and that nothing leaks from split or label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from tfmmcl.cohorts.splits import Split
from tfmmcl.cohorts.trajectory import Spec, Trajectory
from tfmmcl.errors import InputError
from tfmmcl.files import sha256
from tfmmcl.records.framing import read_records
from tfmmcl.records.leaks import Contents, Inputs
from tfmmcl.records.manifest import DataSet, LabelCount, Shard
from tfmmcl.records.schema import decode


def read_trajectories(data: DataSet, split: Split) -> Iterator[Trajectory]:
    """Yields a split's trajectories in stored order, without TensorFlow; raises `InputError` at a damaged record."""
    for path in data.shards(split):
        for index, record in enumerate(read_records(path)):
            try:
                yield decode(record, data.spec)
            except InputError as error:
                raise InputError(f"{path}: record {index}: {error}") from None


@dataclass
class _Seen:
    """What the shards read so far hold."""

    inputs: Inputs
    counts: dict[Split, Counter[str]]
    contents: Contents = field(default_factory=Contents)
    split_of: dict[str, Split] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


def verify(data: DataSet) -> list[str]:
    """Returns one sentence for each thing that is wrong; an empty list means the data set is sound.

    Args:
        data: The data set; every byte of it is read, with a progress bar.
    """
    problems = _check_statistics(data)
    seen = _Seen(Inputs(data.spec), {split: Counter() for split in data.manifest.splits})
    total = sum(shard.bytes for shard in data.manifest.shards)
    with tqdm(total=total, desc="verifying", unit="B", unit_scale=True, mininterval=0.5, disable=None) as bar:
        for shard in data.manifest.shards:
            problems += _check_shard(data, shard, seen)
            bar.update(shard.bytes)
    problems += _check_counts(data, seen.counts)
    problems += [f"{data.path}: {reason}" for reason in seen.inputs.problems()]
    listed = {shard.path for shard in data.manifest.shards}
    problems += [
        f"{file}: not listed in the manifest."
        for file in sorted(data.path.glob("*.tfrecord"))
        if file.name not in listed
    ]
    return problems


def _check_statistics(data: DataSet) -> list[str]:
    file = data.path / "statistics.npz"
    try:
        _ = data.statistics
    except InputError as error:
        return [str(error)]
    digest = sha256(file)
    if digest != data.manifest.statistics_sha256:
        return [f"{file}: SHA-256 is {digest}, expected {data.manifest.statistics_sha256}."]
    return []


def _check_shard(data: DataSet, shard: Shard, seen: _Seen) -> list[str]:
    path = data.path / shard.path
    found = seen.counts[shard.split]
    problems: list[str] = []
    records = 0
    try:
        if (digest := sha256(path)) != shard.sha256:
            problems.append(f"{path}: SHA-256 is {digest}, expected {shard.sha256}.")
        for index, record in enumerate(read_records(path)):
            records += 1
            try:
                trajectory = decode(record, data.spec)
            except InputError as error:
                problems.append(f"{path}: record {index}: {error}")
                continue
            problems += [f"{path}: record {index}: {reason}" for reason in check_values(trajectory, data.spec)]
            if trajectory.name in seen.names:
                problems.append(f"{path}: record {index}: trajectory '{trajectory.name}' appears twice.")
            elif same := seen.contents.problem(trajectory, shard.split):
                problems.append(f"{path}: record {index}: {same}")
            seen.names.add(trajectory.name)
            seen.inputs.add(trajectory)
            other = seen.split_of.setdefault(trajectory.patient, shard.split)
            if other != shard.split:
                problems.append(
                    f"{path}: record {index}: patient '{trajectory.patient}' is in {shard.split} and in {other}."
                )
            for task in data.spec.tasks:
                label = trajectory.labels[task.name]
                found[f"{task.name} labelled"] += bool(np.isfinite(label))
                found[f"{task.name} positive"] += task.kind == "binary" and label == 1
    except FileNotFoundError:
        return [f"{path}: no such file; the manifest lists it with {shard.records} records."]
    except InputError as error:
        problems.append(str(error))
    if records != shard.records:
        problems.append(f"{path}: found {records} sound records, expected {shard.records}.")
    found["trajectories"] += records
    found["patients"] = sum(split == shard.split for split in seen.split_of.values())
    return problems


def check_values(trajectory: Trajectory, spec: Spec) -> list[str]:
    """Returns what is wrong with a decoded trajectory's values: infinities, constant leads, impossible labels."""
    problems = []
    for key in ("structured", "statics"):
        if np.isinf(getattr(trajectory, key)).any():
            problems.append(f"'{key}' holds an infinite value.")
    for index, lead in enumerate(spec.leads):
        windows = trajectory.signals[..., index]
        # Fewer than two samples are not constant, and rows without any would warn.
        present = windows[np.isfinite(windows).sum(axis=1) > 1]
        if present.size and (np.nanmax(present, axis=1) == np.nanmin(present, axis=1)).any():
            problems.append(f"lead '{lead}' is constant in a window where it is marked present.")
    for task in spec.tasks:
        if not task.allows(trajectory.labels[task.name]):
            expected = ", ".join(map(str, task.values)) or "a finite number"
            problems.append(f"'task/{task.name}' is {trajectory.labels[task.name]}, expected {expected} or NaN.")
    return problems


def _check_counts(data: DataSet, found: dict[Split, Counter[str]]) -> list[str]:
    problems = []
    for split, count in data.manifest.splits.items():
        expected = {"patients": count.patients, "trajectories": count.trajectories}
        for task in data.spec.tasks:
            labels = count.labels.get(task.name, LabelCount())
            expected |= {f"{task.name} labelled": labels.labelled, f"{task.name} positive": labels.positive}
        problems += [
            f"{data.path / 'manifest.json'}: split '{split}' holds {found[split][key]} {key}, but it says {value}."
            for key, value in expected.items()
            if found[split][key] != value
        ]
    return problems
