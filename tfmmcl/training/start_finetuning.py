"""What comes before and after fine-tuning on the command line, without TensorFlow: settings, checks, the last words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfmmcl.config import load
from tfmmcl.errors import InputError
from tfmmcl.finetune_settings import FinetuneSettings
from tfmmcl.pipeline.shapes import check_identity, reading_samples
from tfmmcl.records.labels import labels_of_run
from tfmmcl.records.manifest import DataSet
from tfmmcl.training.run_directory import FinetuneDirectory, RunDirectory
from tfmmcl.training.start import changed, quoted


def start_settings(
    config: str | Path, task: str | None, data: str | None, encoder: str | None, overrides: Sequence[str]
) -> FinetuneSettings:
    """Returns a new fine-tuning run's settings, complete.

    Args:
        config: The settings file.
        task: One of the data set's tasks, or None: the settings' own.
        data: A prepared data set, or None: the settings' own.
        encoder: A pre-training run, or None: the settings' own, if any.
        overrides: Dotted `key=value` assignments.

    Raises:
        InputError: If the settings, the data set or the pre-training run is wrong, or they do not fit each other.
    """
    given = {"task": task, "data.path": data, "pretrained": encoder}
    overrides = [*overrides, *(f"{key}={quoted(text)}" for key, text in given.items() if text is not None)]
    settings = load(config, FinetuneSettings, overrides)
    data_set = DataSet.open(settings.data.path)
    settings = complete(settings, data_set)
    labels_of_run(data_set, settings.task, settings.label_fraction, settings.seed)
    if settings.pretrained is not None:
        before = RunDirectory(settings.pretrained).load_settings().data
        if before.fingerprint != data_set.fingerprint:
            print(
                f"warning: {settings.pretrained} was pre-trained on another data set ({before.path}); inputs are "
                f"standardised by the statistics of {data_set.path}",
                flush=True,
            )
    # Absolute, so that the run can be repeated from anywhere.
    where = {"path": str(data_set.path.resolve()), "fingerprint": data_set.fingerprint}
    return settings.model_copy(update={"data": settings.data.model_copy(update=where)})


RESUMABLE = ("data.path", "data.cache", "data.parallel_calls")
"""What may change when a run is resumed: where the data are."""


def resume_settings(
    run: FinetuneDirectory, data: str | None, overrides: Sequence[str], *, allow_changes: bool = False
) -> FinetuneSettings:
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
    if run.result.exists():
        raise InputError(f"{run.path}: this run is finished; expected one that was interrupted.")
    settings = changed(run, before, data, overrides, None if allow_changes else RESUMABLE)
    return complete(settings, DataSet.open(settings.data.path))


def complete(settings: FinetuneSettings, data: DataSet) -> FinetuneSettings:
    """Returns settings with what follows from the pre-trained encoder filled in: its sizes, and how long it read.

    Raises:
        InputError: If the data set does not fit the settings or the encoder.
    """
    check_identity(data, settings)
    if settings.pretrained is not None:
        run = RunDirectory(settings.pretrained)
        before = run.load_settings()
        if not run.encoder.is_file():
            raise InputError(f"{run.encoder}: no such file; expected a run that pretrain.py has finished.")
        if before.data.fingerprint != data.fingerprint:
            check_features(run, data)
        update = {"encoder": before.encoder, "pretrained": str(run.path.resolve())}
        if settings.reading.seconds is None and before.encoder.signal is not None:
            seconds = before.augmentation.segment.seconds
            update["reading"] = settings.reading.model_copy(update={"seconds": seconds})
        settings = settings.model_copy(update=update)
    if settings.encoder.signal is not None:
        if not data.spec.leads:
            raise InputError(
                f"{data.path}: has no signals, but encoder.signal asks for them; expected an encoder without ECG."
            )
        reading_samples(data.spec, settings.reading)
    return settings


def report(result: dict[str, Any], run: FinetuneDirectory) -> str:
    """Returns the summary that ends a run: what it was trained with, how good it is, where everything is."""
    training = result["training"]
    lines = [
        f"best epoch {result['best_epoch']} of {result['epochs']}, validation loss {result['final']['val_loss']:.3f}; "
        f"trained with {training['trajectories']} labelled trajectories of {training['patients']} patients, "
        f"{result['wall_seconds']:.0f} s"
    ]
    for split, scores in result["scores"].items():
        figures = ", ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in scores.items())
        lines.append(f"{split}: {figures}")
    lines += [
        f"model: {run.model}; SavedModel: {run.saved_model}; predictions: {run.predictions}; figures: {run.result}",
        f"look at it: tensorboard --logdir {run.tensorboard}",
    ]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    if value is None:
        return "undefined"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def check_features(run: RunDirectory, data: DataSet) -> None:
    """Raises `InputError` unless a data set has the windows, features and leads that a run was pre-trained on.

    Both need not be the same data set. Standardisation is by the statistics of the one at hand.
    """
    spec = run.load_spec()
    names = ("windows", "structured", "statics")
    if run.load_settings().encoder.signal is not None:
        names = (*names, "leads", "sampling_rate_hz")
    for name in names:
        expected, found = getattr(spec, name), getattr(data.spec, name)
        if expected != found:
            raise InputError(
                f"{data.path}: has {name} {_named(found)}, expected {_named(expected)}, which the encoder of "
                f"{run.path} was trained on."
            )


def _named(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(item) if isinstance(item, str) else f"{item.name} ({item.unit})" for item in value)
    return str(value)
