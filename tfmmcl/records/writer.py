"""Writes a cohort as a data set: shards wherever they are made, then statistics and manifest, then one rename."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tfmmcl import __version__
from tfmmcl.cohorts.settings import CohortSettings
from tfmmcl.cohorts.splits import SPLITS
from tfmmcl.cohorts.trajectory import Cohort, Spec
from tfmmcl.errors import InputError
from tfmmcl.files import sha256
from tfmmcl.records.flow import Flow
from tfmmcl.records.manifest import DataSet, LabelCount, Manifest, Provenance, Shard, SplitCount
from tfmmcl.records.partial import Partial
from tfmmcl.records.profile import Profile
from tfmmcl.records.schema import MISSING_SAMPLE
from tfmmcl.records.shards import Plan, Written, finished, plan_shards, read_sidecar
from tfmmcl.records.statistics import Accumulator
from tfmmcl.records.workers import Executor, WorkerKilledError, on_this_machine


def write_dataset(
    cohort: Cohort,
    settings: CohortSettings,
    out: str | Path,
    workers: int = 1,
    executor: Executor | None = None,
    report: bool = False,
) -> DataSet:
    """Writes every trajectory of a cohort under `out`, with a progress bar on standard error.

    The shards do not depend on where they are made. All is written to `.NAME.partial` beside `out`, which is renamed
    when complete. What stops it, even a kill, leaves the finished shards there, and the same call continues with
    them; where settings, sources, the cohort's resume token or the version differ, it begins anew.

    Args:
        cohort: The trajectories.
        settings: The cohort's settings: split and shard size; written to the manifest.
        out: A folder that does not exist yet.
        workers: Processes. Default 1: in this process.
        executor: Where shards are made. Default: on this machine, by the workers.
        report: Whether to draw `report.html` too, which takes some seconds.

    Returns:
        The data set, opened.

    Raises:
        InputError: If `out` exists or is being written by another run, no training patient yields a trajectory, or
            the cohort finds something wrong in its sources.
    """
    out = Path(out)
    if out.exists():
        raise InputError(f"{out}: already exists; expected the name of a new folder.")
    partial = Partial(out)
    with partial.locked():
        try:
            plans, sources = _ready(cohort, settings, partial)
            _make(cohort, settings, plans, partial, executor or on_this_machine(workers))
            examples = _finish(cohort, settings, plans, sources, partial, report)
            partial.publish()
        except BaseException as error:
            _leave(partial, error)
            raise
    return dataclasses.replace(DataSet.open(out), examples=examples)


def _ready(cohort: Cohort, settings: CohortSettings, partial: Partial) -> tuple[list[Plan], dict[str, str]]:
    """Stages the sources and plans the shards; empties the folder unless what it holds is what this run would make."""
    own = _digest(settings.model_dump(mode="json"), __version__, cohort.spec.model_dump(), cohort.resume_token())
    if partial.key[:1] != [own]:
        partial.begin([own])
    while True:
        cohort.stage(partial.stage)
        sources = cohort.sources()
        key = [own, _digest(sources)]
        if partial.key[:2] in ([own], key):
            plans = plan_shards(cohort, settings)
            key.append(_digest([dataclasses.astuple(plan) for plan in plans]))
            if not plans:
                raise InputError(f"cohort '{settings.name}' has no patients.")
            if partial.key in ([own], key):
                partial.key = key
                return plans, sources
        # The sources are others now, so that nothing that was staged may be used.
        partial.begin([own])


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _make(cohort: Cohort, settings: CohortSettings, plans: list[Plan], partial: Partial, executor: Executor) -> None:
    """Makes the shards that are not there yet."""
    partial.tidy()
    left = [plan for plan in plans if read_sidecar(plan, partial.folder) is None]
    if made := len(plans) - len(left):
        print(f"continuing: {made} of {len(plans)} shards were made before", file=sys.stderr)
    patients, todo = (sum(len(plan.patients) for plan in some) for some in (plans, left))
    with tqdm(
        total=patients,
        initial=patients - todo,
        desc=f"preparing {settings.name}",
        unit=" patients",
        mininterval=0.5,
        disable=None,
    ) as bar:
        if left:
            executor(cohort, left, partial.folder, bar.update)


def _finish(
    cohort: Cohort,
    settings: CohortSettings,
    plans: list[Plan],
    sources: dict[str, str],
    partial: Partial,
    report: bool,
) -> dict[str, list[str]]:
    """Gathers what became of the shards, in the order of the plans, and writes all that is not a shard."""
    spec, folder = cohort.spec, partial.folder
    statistics, flow = Accumulator(spec), Flow()
    profiles = {split: Profile(spec) for split in SPLITS}
    shards, counts = [], {split: [] for split in SPLITS}
    for plan, written in _gathered(plans, partial):
        statistics.merge(written.statistics)
        profiles[plan.split].merge(written.profile)
        flow.merge(written.facts["flow"])
        count = SplitCount.model_validate(written.facts["count"])
        counts[plan.split].append(count)
        size, digest = written.facts["bytes"], written.facts["sha256"]
        shards.append(Shard(path=plan.file, split=plan.split, records=count.trajectories, bytes=size, sha256=digest))
    splits = {split: _total(spec, counts[split]) for split in SPLITS}
    if not splits["train"].trajectories:
        partial.remove()  # the same command would end here again
        why = f" (most often lost: {flow.most_lost()})" if flow.most_lost() else ""
        raise InputError(f"cohort '{settings.name}' has no trajectory in its training split{why}.")
    statistics.finish().save(folder / "statistics.npz")
    manifest = Manifest(
        spec=spec,
        missing_sample=MISSING_SAMPLE,
        shards=shards,
        splits=splits,
        statistics_sha256=sha256(folder / "statistics.npz"),
        provenance=Provenance(
            cohort=settings.model_dump(mode="json"),
            sources=sources,
            flow=flow.levels(
                patients=sum(len(plan.patients) for plan in plans),
                trajectories=sum(count.trajectories for count in splits.values()),
            ),
            notes=cohort.notes(),
            tfmmcl=__version__,
        ),
    )
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=True)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
    if report:
        from tfmmcl.records.report import write_report

        write_report(DataSet(folder, manifest), profiles)
    return flow.examples


def _gathered(plans: list[Plan], partial: Partial) -> Iterator[tuple[Plan, Written]]:
    for plan in plans:
        written = read_sidecar(plan, partial.folder)
        if written is None:
            raise InputError(f"{partial.out}: {plan.file} was not written; the same command tries again.")
        yield plan, written


def _total(spec: Spec, counts: list[SplitCount]) -> SplitCount:
    labels = {
        task.name: LabelCount(
            labelled=sum(count.labels[task.name].labelled for count in counts),
            positive=sum(count.labels[task.name].positive for count in counts),
        )
        for task in spec.tasks
    }
    return SplitCount(
        patients=sum(count.patients for count in counts),
        trajectories=sum(count.trajectories for count in counts),
        labels=labels,
    )


def _leave(partial: Partial, error: BaseException) -> None:
    """Keeps what the same command can continue with, and says so; else removes the folder."""
    made = len(finished(partial.folder))
    bad_data = isinstance(error, InputError) and not isinstance(error, WorkerKilledError)
    if made or (partial.staged() and not bad_data):
        print(f"{partial.folder}: keeps {made} finished shards; the same command continues", file=sys.stderr)
    else:
        partial.remove()
