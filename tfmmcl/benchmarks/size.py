"""Cost against size: the same work on more trajectories, whose time each and whose memory should not grow."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tfmmcl.benchmarks.memory import peak_bytes
from tfmmcl.benchmarks.table import print_table, with_machine
from tfmmcl.cohorts.catalog import load_cohort, make_cohort
from tfmmcl.config import load
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.verify import verify
from tfmmcl.records.writer import write_dataset
from tfmmcl.settings import PretrainSettings


def run(config: str | Path, overrides: Sequence[str], times: Sequence[int]) -> dict[str, Any]:
    """Prepares, verifies and pre-trains for an epoch on a synthetic cohort and on multiples of it.

    Args:
        config: Settings file whose `data.cohort` is a synthetic cohort.
        overrides: Dotted `key=value` assignments.
        times: How many times the cohort's patients.

    Returns:
        Every figure printed, by name.
    """
    settings = load(config, PretrainSettings, [*overrides, "training.epochs=1"])
    cohort = Path(config).parent / str(settings.data.cohort)
    rows = []
    with tempfile.TemporaryDirectory(prefix="tfmmcl-benchmark-") as folder:
        for factor in times:
            data = Path(folder) / f"data-{factor}"
            work = {"prepare": (_prepare, cohort, factor), "verify": (_verify,), "pretrain": (_pretrain, settings)}
            for name, (function, *arguments) in work.items():
                # A process of its own: its peak memory is that of this work alone.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    measured = pool.submit(_measured, function, data, *arguments).result()
                rows.append({"work": name, "times": factor, **measured})
    rows.sort(key=lambda row: list(work).index(row["work"]))
    print_table(
        ("", "trajectories", "ms a trajectory", "peak memory (MB)"),
        [
            [
                f"{row['work']} {row['times']}×",
                f"{row['trajectories']:,}",
                f"{row['seconds_each'] * 1e3:.2f}",
                f"{row['peak_megabytes']:,.0f}",
            ]
            for row in rows
        ],
    )
    return with_machine({"rows": rows})


def _measured(work: Callable[..., tuple[int, float]], *arguments: Any) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        trajectories, seconds_each = work(*arguments)
    return {"trajectories": trajectories, "seconds_each": seconds_each, "peak_megabytes": peak_bytes() / 1e6}


def _prepare(out: Path, cohort: Path, factor: int) -> tuple[int, float]:
    settings = load_cohort(cohort)
    settings = settings.model_copy(update={"patients": settings.patients * factor})
    began = time.perf_counter()
    data = write_dataset(make_cohort(settings), settings, out, 1)
    return (count := _count(data)), (time.perf_counter() - began) / count


def _verify(path: Path) -> tuple[int, float]:
    data = DataSet.open(path)
    began = time.perf_counter()
    if problems := verify(data):
        raise RuntimeError(problems[0])
    return (count := _count(data)), (time.perf_counter() - began) / count


def _pretrain(path: Path, settings: PretrainSettings) -> tuple[int, float]:
    from tfmmcl.training.pretrain import pretrain
    from tfmmcl.training.run_directory import RunDirectory

    data = settings.data.model_copy(update={"path": str(path), "cohort": None})
    result = pretrain(settings.model_copy(update={"data": data}), RunDirectory(path.with_name(f"{path.name}-run")))
    assert result is not None  # there is one worker
    return DataSet.open(path).count("train"), 1 / result["trajectories_per_second"]


def _count(data: DataSet) -> int:
    return sum(count.trajectories for count in data.manifest.splits.values())
