"""A SavedModel's outputs for every trajectory of a data set, as a table."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from tfmmcl.cohorts.splits import SPLITS, Split
from tfmmcl.cohorts.trajectory import Spec, Trajectory
from tfmmcl.errors import InputError
from tfmmcl.evaluation.tabular import without_signals
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.schema import TASK_PREFIX
from tfmmcl.records.verify import read_trajectories


def embed(
    model_dir: str | Path, data: DataSet, splits: Sequence[Split] = SPLITS, *, batch_size: int = 64
) -> pl.DataFrame:
    """Runs a model that `export` wrote over a data set, with a progress bar; needs TensorFlow alone, not Keras.

    Args:
        model_dir: The SavedModel's folder.
        data: The data set; the model does the preprocessing, with the statistics of the one it was trained on.
        splits: Which splits, those without trajectories left out. Default: all.
        batch_size: Trajectories at once. Default 64.

    Returns:
        A row per trajectory in stored order: `trajectory`, `patient`, `split`, each label as `task/NAME` (null where
        there is none), and each of the model's outputs under its name: `(B, D)` as float32 arrays of D numbers,
        `(B,)` as float32 numbers.

    Raises:
        InputError: If the model cannot be loaded or does not fit the data set, or there is no trajectory.
    """
    model = load(model_dir)  # its variables live as long as it does, not as long as its signature
    serve = model.signatures["serving_default"]
    inputs = {name: tuple(spec.shape) for name, spec in serve.structured_input_signature[1].items()}
    check_inputs(model_dir, inputs, data)
    if "signals" not in inputs:
        data = without_signals(data)
    total = sum(data.count(split) for split in splits)
    if not total:
        raise InputError(f"{data.path}: has no trajectories in {', '.join(splits)}; expected at least one to embed.")
    frames = []
    with tqdm(total=total, desc="embedding", unit=" trajectories", mininterval=0.5, disable=None) as bar:
        for split in splits:
            for batch in _batches(data, split, batch_size):
                arrays = {name: np.stack([getattr(item, name) for item in batch]) for name in inputs}
                frames.append(_frame(batch, split, data.spec, serve(**arrays)))
                bar.update(len(batch))
    return pl.concat(frames)


def load(model_dir: str | Path) -> Any:
    """Loads a SavedModel that has a `serving_default` signature; raises `InputError` for anything else."""
    import tensorflow as tf

    # The loader's own message for these is about TensorFlow 1.
    if not (Path(model_dir) / "saved_model.pb").is_file():
        raise InputError(f"{model_dir}: holds no saved_model.pb; expected a SavedModel, such as a run's saved_model.")
    try:
        model = tf.saved_model.load(str(model_dir))
    except Exception as error:  # a damaged one raises any of a dozen kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"{model_dir}: cannot be loaded as a SavedModel ({reason}).") from None
    if "serving_default" not in model.signatures:
        raise InputError(f"{model_dir}: has no signature serving_default; expected a model that export.py wrote.")
    return model


def check_inputs(model_dir: str | Path, inputs: Mapping[str, tuple[int | None, ...]], data: DataSet) -> None:
    """Raises `InputError` unless the data set has a model's inputs.

    Args:
        model_dir: The model's folder, for the sentence.
        inputs: Name → shape, the batch axis first.
        data: The data set.
    """
    spec = data.spec
    known = {
        "structured": (spec.windows, len(spec.structured)),
        "statics": (len(spec.statics),),
        "signals": (spec.windows, spec.samples, len(spec.leads)),
    }
    for name, (_, *shape) in inputs.items():
        if name not in known:
            raise InputError(f"{model_dir}: takes an input '{name}'; expected none but {', '.join(known)}.")
        if name == "signals" and not spec.leads:
            raise InputError(f"{model_dir}: takes signals, which {data.path} does not have; expected a No-ECG model.")
        if tuple(shape) != known[name]:
            raise InputError(
                f"{model_dir}: takes '{name}' of shape {tuple(shape)}, expected {known[name]} as {data.path} has it."
            )


def _batches(data: DataSet, split: Split, size: int) -> Iterator[list[Trajectory]]:
    trajectories = read_trajectories(data, split) if data.count(split) else iter(())
    while batch := list(itertools.islice(trajectories, size)):
        yield batch


def _frame(batch: list[Trajectory], split: Split, spec: Spec, outputs: Mapping[str, Any]) -> pl.DataFrame:
    columns = [
        pl.Series("trajectory", [_text(item.name) for item in batch]),
        pl.Series("patient", [_text(item.patient) for item in batch]),
        pl.Series("split", [split] * len(batch)),
    ]
    for task in spec.tasks:
        labels = pl.Series(TASK_PREFIX + task.name, [item.labels[task.name] for item in batch], pl.Float32)
        columns.append(labels.fill_nan(None))
    columns += [pl.Series(name, values.numpy().astype(np.float32)) for name, values in sorted(outputs.items())]
    return pl.DataFrame(columns)


def _text(identifier: str) -> str:
    """Returns an id as it is, but for what no Parquet file can hold: a lone surrogate is spelt out in ASCII."""
    return identifier.encode("utf-8", "backslashreplace").decode("utf-8")
