"""The pipeline, stage by stage, on the paper's shape with every augmentation, against PyTorch loaders in NumPy."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from tfmmcl.benchmarks.contest import Entry, Outcome, contest, times_as_fast
from tfmmcl.benchmarks.generated import COHORT
from tfmmcl.benchmarks.steps import check_peer
from tfmmcl.benchmarks.table import print_table, with_machine
from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort
from tfmmcl.config import load
from tfmmcl.errors import InputError
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.writer import write_dataset
from tfmmcl.settings import AugmentationSettings, PretrainSettings

STAGES = ("read", "parse", "views", "batch")
PEERS = {"PyTorch, plain": "PlainRecords", "PyTorch, tfrecord": "tfrecord_records"}
SHUFFLE_BUFFER = 32
"""Records. The paper's 1,024 are more than the generated data: every epoch would begin with a wait for all of it."""


def run(
    config: str | Path,
    overrides: Sequence[str] = (),
    data: str | Path | None = None,
    trajectories: int = 512,
    rounds: int = 5,
    peer: str | None = None,
) -> dict[str, Any]:
    """Measures how fast trajectories come out of each stage, the stages before it included; prints as it goes.

    Args:
        config: The settings file that has the augmentations and the batch size.
        overrides: Dotted `key=value` assignments to it.
        data: A prepared data set's folder; None: one is made for the purpose.
        trajectories: How many are timed in each round, at least.
        rounds: Measurements of each.
        peer: `torch`, or None.

    Returns:
        Every figure printed, by name.
    """
    check_peer(peer)
    with tempfile.TemporaryDirectory(prefix="tfmmcl-benchmark-") as folder:
        if data is None:
            data = write_dataset(SyntheticCohort(COHORT), COHORT, Path(folder) / "data").path
        given = [f"data.path='{data}'", "data.cohort=null", f"data.shuffle_buffer={SHUFFLE_BUFFER}"]
        settings = load(config, PretrainSettings, [*given, *overrides, "training.epochs=1000000"])
        entries = [Entry("tfmmcl", _Stages, (settings, trajectories))]
        if peer:
            if settings.augmentation != AugmentationSettings():
                raise InputError(f"--peer {peer}: does the paper's augmentations; expected augmentation left as it is.")
            entries += [Entry(name, _Loader, (kind, settings, trajectories)) for name, kind in PEERS.items()]
        ours, *peers = contest(entries, rounds, f"batch {settings.data.batch_size}")
    if ours.failure:
        raise RuntimeError(ours.failure)
    return with_machine({"benchmark": "pipeline", **_report(ours, peers, settings.data.batch_size)})


def _report(ours: Outcome, peers: Sequence[Outcome], batch_size: int) -> dict[str, Any]:
    """Prints tables of per-trajectory seconds, and returns what they show."""
    rows = [{"name": stage, "failure": None, "seconds": ours.each(stage)} for stage in STAGES]
    rows += [{"name": peer.name, "failure": peer.failure, "seconds": peer.each("seconds")} for peer in peers]
    cells, before = [], 0.0
    for row in rows:
        if row["failure"]:
            print(f"{row['name']}: {row['failure']}")
            continue
        row["median_seconds"] = seconds = median(row["seconds"])
        row["per_second"] = 1 / seconds
        added = ""
        if row["name"] in STAGES:
            row["added_seconds"], before = seconds - before, seconds
            added = f"{row['added_seconds'] * 1e3:.2f}"
        cells.append([row["name"], f"{1 / seconds:,.0f}", f"{1 / min(row['seconds']):,.0f}", added])
    print_table((f"batch {batch_size}", "trajectories/s", "best", "ms added by the stage"), cells)
    ratios = [
        {"peer": peer.name, "times_as_fast": times_as_fast(ours, peer, STAGES[-1])}
        for peer in peers
        if peer.failure is None
    ]
    for ratio in ratios:
        print(f"tfmmcl / {ratio['peer']}: {ratio['times_as_fast']:.2f}× as fast")
    return {"batch": batch_size, "facts": ours.facts, "rows": rows, "ratios": ratios}


def seconds_each(elements: Iterable[Any], size: int, trajectories: int) -> float:
    """Returns the time of one trajectory, from the first element on, before which the loader gets under way.

    Args:
        elements: Endless.
        size: Trajectories in an element.
        trajectories: How many to time, rounded up to whole elements.
    """
    count = -(-trajectories // size)
    iterator = iter(elements)
    next(iterator)
    began = time.perf_counter()
    for _ in islice(iterator, count):
        pass
    return (time.perf_counter() - began) / (count * size)


class _Stages:
    """Ours; each stage is a pipeline of its own that ends there."""

    def __init__(self, settings: PretrainSettings, trajectories: int) -> None:
        import tensorflow as tf

        from tfmmcl.benchmarks.stages import stages

        self._stages = stages(DataSet.open(settings.data.path), settings)
        self._trajectories = trajectories
        self._facts = {"versions": f"TensorFlow {tf.__version__}"}

    def start(self) -> dict[str, Any]:
        """Has a batch made."""
        next(iter(self._stages["batch"][0]))
        return self._facts

    def measure(self) -> dict[str, float]:
        """Returns the seconds of one trajectory through each stage and those before it."""
        return {name: seconds_each(stage, size, self._trajectories) for name, (stage, size) in self._stages.items()}


class _Loader:
    """A PyTorch `DataLoader`."""

    def __init__(self, kind: str, settings: PretrainSettings, trajectories: int) -> None:
        from tfmmcl.benchmarks import torch_loader

        records = getattr(torch_loader, kind)
        self._loader = torch_loader.loader(records, DataSet.open(settings.data.path), settings)
        self._size, self._trajectories = settings.data.batch_size, trajectories

    def start(self) -> dict[str, Any]:
        """Has a batch made."""
        next(iter(self._loader))
        return {}

    def measure(self) -> dict[str, float]:
        """Returns the `seconds` of one trajectory."""
        return {"seconds": seconds_each(self._loader, self._size, self._trajectories)}
