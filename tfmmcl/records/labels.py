"""Which trajectories have a label of a task, and which patients make up a fraction of them, without TensorFlow."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from tfmmcl.cohorts.splits import Split, position
from tfmmcl.cohorts.trajectory import Task
from tfmmcl.errors import InputError, nearest
from tfmmcl.records.framing import read_records
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.protos import example_pb2
from tfmmcl.records.schema import TASK_PREFIX


class Label(NamedTuple):
    """A trajectory's label."""

    patient: str
    trajectory: str
    label: float


def find_task(data: DataSet, name: str) -> Task:
    """Returns the data set's task of this name; raises `InputError` if it has none."""
    tasks = {task.name: task for task in data.spec.tasks}
    if name not in tasks:
        hint = nearest(name, tasks) or f"; expected one of: {', '.join(tasks) or 'none, as it has no tasks'}."
        raise InputError(f"{data.path}: has no task '{name}'{hint}")
    return tasks[name]


def labelled(data: DataSet, split: Split, task: str) -> list[Label]:
    """Returns the labels of a split in stored order, leaving out trajectories that have none.

    Every shard is read once in a process, its checksums checked; what was found is remembered.

    Args:
        data: The data set.
        split: The split; one without trajectories has no labels.
        task: The task's name.

    Raises:
        InputError: If the data set has no such task, or a shard is missing or damaged.
    """
    index = data.spec.tasks.index(find_task(data, task))
    if not data.count(split):
        return []
    tasks = tuple(task.name for task in data.spec.tasks)
    digests = {str(data.file(shard)): shard.sha256 for shard in data.manifest.shards}
    return [
        Label(patient, trajectory, labels[index])
        for path in data.shards(split)
        for patient, trajectory, labels in _read(path, digests[path], tasks)
        if math.isfinite(labels[index])
    ]


def fraction_of_patients(labels: Iterable[Label], fraction: float, seed: int) -> set[str]:
    """Returns the patients who make up a fraction of those with a label.

    Patients are put in an order that depends on the seed and their ids: those first who bring a label not seen before
    in it, so that even a handful cover all classes, then the rest; each by their hash. A fraction is a beginning of
    that order, so that of one seed the patients of a smaller fraction are among those of a larger one.

    Args:
        labels: The training split's labels.
        fraction: Part of the patients, in (0, 1]; at least one is returned.
        seed: Another seed gives another, independent order.
    """
    of_patient: dict[str, set[float]] = {}
    for item in labels:
        of_patient.setdefault(item.patient, set()).add(item.label)
    hashed = sorted(of_patient, key=lambda patient: (position(f"labels:{patient}", seed), patient))
    seen: set[float] = set()
    first = []
    for patient in hashed:
        if not of_patient[patient] <= seen:
            first.append(patient)
            seen |= of_patient[patient]
    chosen = set(first)
    order = [*first, *(patient for patient in hashed if patient not in chosen)]
    return set(order[: max(1, math.floor(fraction * len(order) + 0.5))])


def labels_of_run(data: DataSet, task: str, fraction: float, seed: int) -> dict[Split, list[Label]]:
    """Returns each split's labels, the training split's reduced to a fraction of its patients.

    Raises:
        InputError: As `labelled`, or if there is nothing to train with or nothing to choose the best epoch by.
    """
    found: dict[Split, list[Label]] = {split: labelled(data, split, task) for split in data.manifest.splits}
    for split in ("train", "validation"):
        if not found[split]:
            raise InputError(f"{data.path}: no trajectory of the {split} split has a label of '{task}'.")
    chosen = fraction_of_patients(found["train"], fraction, seed)
    return found | {"train": [item for item in found["train"] if item.patient in chosen]}


@functools.lru_cache(maxsize=4096)
def _read(path: str, sha256: str, tasks: Sequence[str]) -> tuple[tuple[str, str, tuple[float, ...]], ...]:
    """Returns patient, trajectory and labels of each record; the digest tells one version of a file from another."""
    rows = []
    for index, record in enumerate(read_records(path)):
        try:
            features = example_pb2.Example.FromString(record).features.feature
            patient, trajectory = (
                features[key].bytes_list.value[0].decode("utf-8", "surrogatepass") for key in ("patient", "trajectory")
            )
            labels = tuple(features[TASK_PREFIX + task].float_list.value[0] for task in tasks)
        except (DecodeError, UnicodeDecodeError, IndexError):
            raise InputError(
                f"{path}: record {index}: found no ids or labels, expected those of a trajectory."
            ) from None
        rows.append((patient, trajectory, labels))
    return tuple(rows)
