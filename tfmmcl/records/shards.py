"""One shard of a data set: what it shall hold, how it is written, and what became of it, kept beside it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfmmcl.cohorts.settings import CohortSettings
from tfmmcl.cohorts.splits import Split, assign
from tfmmcl.cohorts.trajectory import Cohort, Excluded, Seen, Spec, Trajectory
from tfmmcl.errors import InputError
from tfmmcl.files import sha256
from tfmmcl.records.flow import Flow
from tfmmcl.records.framing import write_record
from tfmmcl.records.manifest import LabelCount, SplitCount
from tfmmcl.records.profile import Profile
from tfmmcl.records.schema import decode, encode
from tfmmcl.records.statistics import Accumulator
from tfmmcl.records.verify import check_values

SIDECARS = "sidecars"
"""The folder, beside the shards, of the files that say what became of each."""


@dataclass(frozen=True)
class Plan:
    """One shard to write: its file, split, patients, and number among all shards."""

    file: str
    split: Split
    patients: tuple[str, ...]
    number: int


@dataclass(frozen=True)
class Written:
    """What became of one shard.

    Attributes:
        facts: `bytes`, `sha256`, `count` (as `SplitCount` has it) and `flow` (as `Flow.plain` gives it).
        statistics: What `Accumulator.merge` takes; nothing was added to it unless the split is training.
        profile: What `Profile.merge` takes.
    """

    facts: dict[str, Any]
    statistics: dict[str, np.ndarray]
    profile: dict[str, np.ndarray]


def plan_shards(cohort: Cohort, settings: CohortSettings) -> list[Plan]:
    """Returns the shards that the cohort's patients make."""
    plans: list[Plan] = []
    splits = assign(cohort.patients(), settings.split, cohort.given_splits(), secret=cohort.resume_token())
    for split, members in splits.items():
        shards = -(-len(members) // settings.patients_per_shard)
        # Patients are spread evenly: no shard is a nearly empty remainder.
        for index in range(shards):
            start, stop = len(members) * index // shards, len(members) * (index + 1) // shards
            file = f"{split}-{index:05d}-of-{shards:05d}.tfrecord"
            plans.append(Plan(file, split, tuple(members[start:stop]), len(plans)))
    return plans


def write_shard(cohort: Cohort, plan: Plan, folder: Path, advance: Callable[[int], object]) -> None:
    """Writes a shard and then its sidecar; each appears under its name when it is whole and on the disk.

    Args:
        cohort: The trajectories.
        plan: The shard.
        folder: Where it goes.
        advance: Called with 1 after each patient.

    Raises:
        InputError: If a trajectory does not fit the spec or holds values that no data set may.
    """
    spec, flow = cohort.spec, Flow()
    statistics, profile = Accumulator(spec, plan.number), Profile(spec, plan.number)
    patients = trajectories = 0
    labels = {task.name: [0, 0] for task in spec.tasks}
    path = folder / plan.file
    with _whole(path) as file:
        for patient in plan.patients:
            before = trajectories
            for item in cohort.trajectories(patient):
                if isinstance(item, (Excluded, Seen)):
                    flow.add(item)
                    continue
                offset = file.tell()
                stored = _write(item, spec, file)
                trajectories += 1
                _count_labels(labels, stored, spec)
                profile.add(stored, plan.number, offset)
                if plan.split == "train":
                    statistics.add(stored)
            patients += trajectories > before
            advance(1)
    counts = {name: LabelCount(labelled=labelled, positive=positive) for name, (labelled, positive) in labels.items()}
    facts = {
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "count": SplitCount(patients=patients, trajectories=trajectories, labels=counts).model_dump(),
        "flow": flow.plain(),
    }
    _save(Written(facts, statistics.arrays(), profile.arrays()), folder / SIDECARS / f"{plan.file}.npz")


def read_sidecar(plan: Plan, folder: Path) -> Written | None:
    """Returns what became of a shard, or None where the shard or its sidecar is not there or not whole."""
    try:
        with open(folder / SIDECARS / f"{plan.file}.npz", "rb") as file, np.load(file, allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            parts = [_under(f"{part}/", arrays) for part in ("statistics", "profile")]
        return Written(facts, *parts) if (folder / plan.file).stat().st_size == facts["bytes"] else None
    except Exception:  # a damaged archive raises any of a dozen kinds; its shard is then made again
        return None


def finished(folder: Path) -> set[str]:
    """Returns the names of the shards that have a sidecar."""
    return {path.stem for path in (folder / SIDECARS).glob("*.npz")}


def _write(trajectory: Trajectory, spec: Spec, file: BinaryIO) -> Trajectory:
    """Appends a trajectory to an open shard and returns it as it is stored, after rounding."""
    data = encode(trajectory, spec)
    stored = decode(data, spec)
    if problems := check_values(stored, spec):
        raise InputError(f"trajectory {trajectory.name}: {problems[0]}")
    write_record(file, data)
    return stored


def _count_labels(labels: dict[str, list[int]], trajectory: Trajectory, spec: Spec) -> None:
    for task in spec.tasks:
        label = trajectory.labels[task.name]
        labels[task.name][0] += int(np.isfinite(label))
        labels[task.name][1] += int(task.kind == "binary" and label == 1)


def _save(written: Written, path: Path) -> None:
    arrays = {"facts": np.frombuffer(json.dumps(written.facts).encode(), np.uint8)}
    arrays |= {f"statistics/{name}": array for name, array in written.statistics.items()}
    arrays |= {f"profile/{name}": array for name, array in written.profile.items()}
    with _whole(path) as file:
        np.savez(file, **arrays)


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing under another name, from which it is renamed once it is whole and on the disk."""
    # Unique: a runner may have two machines make the same shard, should one of them seem to be stuck.
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.draft")
    try:
        with open(draft, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
