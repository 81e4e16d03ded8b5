"""The paper's experiment: every arm, task, mode, label fraction and seed, done once and kept."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tfmmcl.errors import InputError, nearest
from tfmmcl.evaluation.arms import applicable, pretrain_missing
from tfmmcl.evaluation.cells import Cells, Job
from tfmmcl.evaluation.results import Cell, EvaluatedTask, Pretraining, Results
from tfmmcl.evaluation.settings import EvaluateSettings
from tfmmcl.evaluation.summaries import summarise
from tfmmcl.records.manifest import DataSet
from tfmmcl.training.run_directory import RunDirectory

HEADLINE = {"binary": "auroc", "multiclass": "auroc", "regression": "mae"}


def evaluate(settings: EvaluateSettings, data: DataSet, out: Path, workers: int | None = None) -> Results:
    """Runs what is missing of an evaluation, and gathers all of it.

    Pre-training sees no label. Every choice, be it of a stopping epoch, a regularisation strength or a number of
    neighbours, is made on the validation split; the test split is only ever predicted. Whatever was done before with
    the same settings on the same data is reused, so an interrupted evaluation continues.

    Args:
        settings: The evaluation's settings.
        data: The data set.
        out: The report's folder: pre-training runs, and every single result.
        workers: Processes that fine-tune and probe at once. Default None: see `default_workers`.

    Raises:
        InputError: If a task or an arm does not fit the data set.
    """
    from tfmmcl.evaluation import embeddings  # TensorFlow

    began = time.perf_counter()
    tasks = chosen_tasks(settings, data)
    arms = applicable(settings, data)
    workers = workers or default_workers()
    runs = {arm: pretrain_missing(arm, settings, data, out) for arm in arms}
    for run in filter(None, runs.values()):
        embeddings.of_run(run, data)  # here, so that no two processes do it
    jobs = list(all_jobs(settings, arms, [item.task.name for item in tasks]))
    cells = run_jobs(jobs, settings, data, out, workers)
    summary, comparisons = summarise(cells, tasks, out, settings.resamples, settings.level)
    pretraining = [_pretraining(arm, run, out) for arm, run in runs.items() if run is not None]
    # An evaluation may have been interrupted and continued: what its parts took says more than the last session.
    work = sum(cell.seconds for cell in cells) + sum(run.wall_seconds for run in pretraining)
    return Results(
        data={
            "name": data.manifest.provenance.cohort.get("name", data.path.name),
            "description": data.manifest.provenance.cohort.get("description", ""),
            "fingerprint": data.fingerprint,
            "tfmmcl": data.manifest.provenance.tfmmcl,
            "splits": {split: count.model_dump() for split, count in data.manifest.splits.items()},
        },
        tasks=tasks,
        settings=settings.model_dump(mode="json"),
        machine=_machine() | {"wall_seconds": time.perf_counter() - began, "work_seconds": work, "workers": workers},
        cells=cells,
        summary=summary,
        comparisons=comparisons,
        pretraining=pretraining,
    )


def chosen_tasks(settings: EvaluateSettings, data: DataSet) -> list[EvaluatedTask]:
    """Returns the tasks to predict; raises `InputError` for one that the data set does not have."""
    known = {task.name: task for task in data.spec.tasks}
    names = list(known) if settings.tasks is None else settings.tasks
    for name in (*names, *settings.headline):
        if name not in known:
            expected = f"expected one of {', '.join(known)}" if known else "and it has no tasks"
            raise InputError(f"{data.path}: has no task '{name}', {expected}{nearest(name, known)}.")
    if not names:
        raise InputError(f"{data.path}: has no tasks, expected at least one to evaluate.")
    return [
        EvaluatedTask(task=known[name], headline=settings.headline.get(name, HEADLINE[known[name].kind]))
        for name in names
    ]


def all_jobs(settings: EvaluateSettings, arms: Sequence[str], tasks: Sequence[str]) -> Iterator[Job]:
    """Yields every result's job, those that share an encoder one after the other."""
    for seed in range(settings.seeds):
        for task in tasks:
            for fraction in settings.fractions:
                for baseline in settings.baselines:
                    yield Job(baseline, task, "baseline", fraction, seed)
    for arm in arms:
        for seed in range(settings.seeds):
            for task in tasks:
                for mode in settings.modes:
                    for fraction in settings.fractions:
                        yield Job(arm, task, mode, fraction, seed)


def run_jobs(jobs: Sequence[Job], settings: EvaluateSettings, data: DataSet, out: Path, workers: int) -> list[Cell]:
    """Returns every job's result, in the jobs' order, and shows how far it is with what is still to be done."""
    here = Cells(settings, data, out)
    missing = [job for job in jobs if not here.path(job).is_file()]
    with _Progress(len(missing)) as progress:
        if workers == 1:
            for done, job in enumerate(missing, start=1):
                here.get(job)
                progress.show(done)
        elif missing:
            _in_processes(missing, here, workers, progress)
    return [here.get(job) for job in jobs]


class _Progress:
    """A bar on a terminal; elsewhere a line for every twentieth of the results."""

    def __init__(self, total: int) -> None:
        self._bar = tqdm(total=total, desc="evaluating", unit=" results", disable=None)
        self._total, self._began, self._said = total, time.perf_counter(), 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, done: int) -> None:
        """Shows that so many results are done."""
        self._bar.update(done - self._bar.n)
        if self._bar.disable and 20 * done // self._total > self._said:
            self._said = 20 * done // self._total
            minutes = (time.perf_counter() - self._began) / 60
            print(f"evaluating: {done} of {self._total} results in {minutes:.1f} min", flush=True)


def _in_processes(jobs: Sequence[Job], here: Cells, workers: int, progress: _Progress) -> None:
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    groups: dict[tuple[str, int], list[Job]] = {}
    for job in jobs:  # what shares an encoder goes to one process, which remembers its embeddings
        groups.setdefault((job.arm, job.seed), []).append(job)
    paths = [here.path(job) for job in jobs]
    arguments = (here.settings, here.data, here.out, workers)
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=arguments) as pool:
        left = {pool.submit(_work, group) for group in groups.values()}
        try:
            while left:
                ended, left = wait(left, timeout=1, return_when=FIRST_EXCEPTION)
                for future in ended:
                    future.result()
                progress.show(sum(path.is_file() for path in paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_worker: dict[str, Cells] = {}


def _start(settings: EvaluateSettings, data: DataSet, out: Path, workers: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(max(1, (os.cpu_count() or 1) // workers))
    _worker["cells"] = Cells(settings, data, out)


def _work(jobs: Sequence[Job]) -> None:
    for job in jobs:
        _worker["cells"].get(job)


def _pretraining(arm: str, run: RunDirectory, out: Path) -> Pretraining:
    result = json.loads(run.result.read_text(encoding="utf-8"))
    return Pretraining(
        arm=arm,
        run=str(run.path.relative_to(out)),
        history=run.read_history(),
        chance=result["chance"],
        wall_seconds=result["wall_seconds"],
    )


def _machine() -> dict[str, Any]:
    from tfmmcl.training.pretrain import device, versions

    return {"device": device(), "versions": versions(), "date": datetime.date.today().isoformat()}


def default_workers() -> int:
    """Returns one process where there is a GPU, else one per core, but no more than have 2 GB of free memory each."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return 1
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2e9
    return max(1, min(os.cpu_count() or 1, int(free // 2e9)))
