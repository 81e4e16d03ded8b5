"""What comes before and after a run on the command line, without TensorFlow: settings, the cohort, the last words."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfmmcl.cohorts.catalog import load_cohort, make_cohort
from tfmmcl.config import SettingsT, load
from tfmmcl.errors import InputError
from tfmmcl.pipeline.shapes import check_fit
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.writer import write_dataset
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.run_directory import RunDirectory


def start_settings(config: str | Path, data: str | None, overrides: Sequence[str]) -> PretrainSettings:
    """Returns a new run's settings, with the data set they name made if it is not there.

    Args:
        config: The settings file.
        data: A prepared data set to use instead of the settings' own, or None.
        overrides: Dotted `key=value` assignments.

    Raises:
        InputError: If the settings, the cohort file or the data set is wrong.
    """
    if data is not None:
        overrides = [*overrides, "data.cohort=null", f"data.path={quoted(data)}"]
    settings = load(config, PretrainSettings, overrides)
    if settings.data.cohort is not None and "://" in settings.data.path:
        raise InputError(
            f"data.path: found {settings.data.path}, expected a folder on disk, where data.cohort can be prepared."
        )
    if settings.data.cohort is not None and settings.training.distribution != "multi_worker":
        # A cohort file is named as seen from where the command runs, or else from the settings file beside it.
        cohort = Path(settings.data.cohort)
        if not cohort.exists():
            cohort = Path(config).parent / cohort
        _prepare_once(cohort, Path(settings.data.path))
        settings = _with_data(settings, cohort=str(cohort.resolve()))
    data_set = DataSet.open(settings.data.path)
    check_fit(data_set, settings)
    # Absolute, so that the run can be resumed and exported from anywhere.
    return _with_data(settings, path=str(data_set.path.resolve()), fingerprint=data_set.fingerprint)


def join_workers(workers: str, index: int | None) -> None:
    """Sets `TF_CONFIG`, which tells TensorFlow of all the workers and which of them this process is.

    Args:
        workers: `HOST:PORT` of each, comma-separated.
        index: This process's position among them, or None: that of the SLURM task.

    Raises:
        InputError: If a worker has no port, or the position is not known or not one of theirs.
    """
    addresses = workers.split(",")
    for address in addresses:
        if not re.fullmatch(r"[^:]+:\d+|\[.+\]:\d+", address):
            raise InputError(f"--workers: found {address!r}, expected HOST:PORT,HOST:PORT.")
    found = os.environ.get("SLURM_PROCID", "") if index is None else str(index)
    if not found.isdecimal() or int(found) >= len(addresses):
        raise InputError(f"--worker: found {found or 'none'}, expected 0 to {len(addresses) - 1}, one on each machine.")
    task = {"type": "worker", "index": int(found)}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})


RESUMABLE = (
    "data.path",
    "data.cache",
    "data.parallel_calls",
    "training.epochs",
    "training.checkpoints",
    "training.checkpoint_minutes",
    "training.distribution",
    "watching.task",
    "watching.trajectories",
    "watching.every",
    "watching.profile",
)
"""What may change when a run is resumed: where the data are, on which devices, how long it runs, what is watched."""


def is_first_worker() -> bool:
    """Returns whether this process is the one that writes, by `TF_CONFIG`."""
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    task, first = config.get("task", {}), "chief" if "chief" in config.get("cluster", {}) else "worker"
    return not task or (task.get("type"), task.get("index")) == (first, 0)


def resume_settings(
    run: RunDirectory, data: str | None, overrides: Sequence[str], *, allow_changes: bool = False
) -> PretrainSettings:
    """Returns the settings to continue a run with.

    Args:
        run: The run.
        data: Where its data set is now, or None: where its settings say.
        overrides: Dotted `key=value` assignments, of the keys in `RESUMABLE`.
        allow_changes: Whether other keys may change too. Default False.

    Raises:
        InputError: If the folder holds no run or one that is finished, another key changes, or the data set is not
            the run's.
    """
    before = run.load_settings()
    settings = changed(run, before, data, overrides, None if allow_changes else RESUMABLE)
    if settings.training.epochs < before.training.epochs:
        raise InputError(
            f"training.epochs: found {settings.training.epochs}, expected at least the {before.training.epochs} that "
            f"{run.path} was started with."
        )
    if run.completed_epochs() >= settings.training.epochs:
        raise InputError(f"{run.path}: this run is finished; it goes on only with a larger training.epochs.")
    check_fit(DataSet.open(settings.data.path), settings)
    return settings


def changed(
    run: RunDirectory, before: SettingsT, data: str | None, overrides: Sequence[str], may_change: Sequence[str] | None
) -> SettingsT:
    """Returns the settings of a run that goes on, with what is given on the command line.

    Args:
        run: The run.
        before: Its settings.
        data: Where its data set is now, or None: where its settings say.
        overrides: Dotted `key=value` assignments.
        may_change: The keys that may differ; None: all of them.

    Raises:
        InputError: If another key differs.
    """
    if data is not None:
        overrides = [*overrides, f"data.path={quoted(data)}"]
    settings = load(run.config, type(before), overrides)
    for key, old, new in _differences(before.model_dump(), settings.model_dump()):
        if may_change is not None and key not in may_change:
            raise InputError(
                f"{run.path}: was started with {key}={old}, found {new}; a resumed run may only change "
                f"{', '.join(may_change)}, others with --allow-changes."
            )
    return settings


def report(result: dict[str, Any], run: RunDirectory, tools: Path) -> str:
    """Returns the five lines that end a run: how far it got, where everything is, and what to do next.

    Args:
        result: As `result.json` holds it.
        run: The run.
        tools: The folder of the commands.
    """
    data, tasks = _shown(result["data"]["path"]), [task["name"] for task in result["data"]["spec"]["tasks"]]
    finetune, embed = (f"python {_shown(tools / name)}" for name in ("finetune.py", "embed.py"))
    others = (
        f"    # or {', '.join(tasks[1:])}" if len(tasks) > 1 else "" if tasks else "    # this data set has no task"
    )
    epochs = f"{result['epochs']} epochs" if result["epochs"] > 1 else "1 epoch"
    return "\n".join(
        [
            f"{'; '.join(result['summary'])}; {epochs}, {result['steps']} steps, {result['wall_seconds']:.0f} s",
            f"encoder: {run.encoder}; SavedModel: {run.saved_model}; figures: {run.result}",
            f"look at it: tensorboard --logdir {_shown(run.tensorboard)}",
            f"fine-tune:  {finetune} --task {shlex.quote(tasks[0]) if tasks else 'NAME'} --data {data} "
            f"--encoder {_shown(run.path)}{others}",
            f"embed:      {embed} --model {_shown(run.saved_model)} --data {data} "
            f"--out {_shown(run.path / 'embeddings.parquet')}",
        ]
    )


def _shown(path: str | Path) -> str:
    """Returns a path as a shell takes it, from the current folder where it is inside."""
    if "://" not in str(path) and Path(path).is_absolute() and Path(path).is_relative_to(Path.cwd()):
        path = Path(path).relative_to(Path.cwd())
    return shlex.quote(str(path))


def _differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields each dotted key with two different values."""
    for name in one.keys() | other.keys():
        old, new = one.get(name), other.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}", old, new


def _with_data(settings: PretrainSettings, **changes: str) -> PretrainSettings:
    return settings.model_copy(update={"data": settings.data.model_copy(update=changes)})


def _prepare_once(cohort: Path, path: Path) -> None:
    wanted = load_cohort(cohort)
    if not path.exists():
        data = write_dataset(make_cohort(wanted), wanted, path, os.cpu_count() or 1)
        print(f"{path}: made from {cohort}, {data.count('train')} training trajectories", flush=True)
        return
    found = DataSet.open(path).manifest.provenance.cohort
    for key, value in wanted.model_dump(mode="json").items():
        if found.get(key) != value:
            raise InputError(
                f"{path}: was made with {key}={found.get(key)!r}, but {cohort} says {value!r}; use it as it is with "
                f"--data {path}, or have the cohort made in another folder with data.path=DIR."
            )
    print(f"{path}: reused", flush=True)


def quoted(text: str) -> str:
    """Returns a text as a YAML string, whatever it looks like."""
    return "'" + text.replace("'", "''") + "'"
