"""Embeddings of a data set by an arm's frozen encoder, pre-trained or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmmcl.cohorts.splits import SPLITS, Split
from tfmmcl.evaluation.results import EMBEDDINGS
from tfmmcl.models.loading import load_model
from tfmmcl.pipeline.batches import Batches
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.schema import TASK_PREFIX
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.pretrain import build_pretrainer
from tfmmcl.training.run_directory import RunDirectory, write_complete

BATCH_SIZE = 64


@dataclass(frozen=True)
class Embedded:
    """A split's embeddings.

    Attributes:
        trajectories: `(n,)` ids, in stored order.
        patients: `(n,)` ids.
        embeddings: `(n, D)` float32.
        labels: Task → `(n,)` float32, NaN where there is none.
    """

    trajectories: np.ndarray
    patients: np.ndarray
    embeddings: np.ndarray
    labels: dict[str, np.ndarray]


def random_encoder(settings: PretrainSettings, data: DataSet, seed: int) -> keras.Model:
    """Builds an encoder that was not trained, its running statistics those of a batch."""
    keras.utils.set_random_seed(seed)
    trainer = build_pretrainer(settings, data)
    trainer.calibrate(next(iter(Batches(data, settings).training(views=trainer.objective.views))))
    return trainer.encoder


def of_run(run: RunDirectory, data: DataSet) -> dict[Split, Embedded]:
    """Returns what a pre-training run's encoder makes of its data set; read from `embeddings.npz` in the run's folder.

    Where that is not there yet, it is made and written.
    """
    path = run.path / EMBEDDINGS
    if not path.is_file():
        found = embed(load_model(run.encoder), run.load_settings(), data)
        write_complete(path, lambda partial: _save(found, partial))
    return _load(path)


def embed(encoder: keras.Model, settings: PretrainSettings, data: DataSet) -> dict[Split, Embedded]:
    """Embeds every trajectory, not augmented, as the exported model would.

    Args:
        encoder: The encoder.
        settings: Says which part of each signal is read.
        data: The data set.

    Returns:
        Split → its embeddings; a split without trajectories is absent.
    """
    batches = Batches(data, settings)
    forward = tf.function(lambda view: encoder(view, training=False), reduce_retracing=True)
    scalars = ("trajectory", "patient", *(TASK_PREFIX + task.name for task in data.spec.tasks))
    found: dict[Split, Embedded] = {}
    for split in SPLITS:
        if not data.count(split):
            continue
        plain = batches.plain(split).map(lambda example, view: ({name: example[name] for name in scalars}, view))
        columns: dict[str, list[np.ndarray]] = {name: [] for name in (*scalars, "embedding")}
        for example, view in plain.batch(BATCH_SIZE):
            for name in scalars:
                columns[name].append(example[name].numpy())
            columns["embedding"].append(tf.cast(forward(view), tf.float32).numpy())
        table = {name: np.concatenate(parts) for name, parts in columns.items()}
        found[split] = _of_table(table | {name: _text(table[name]) for name in ("trajectory", "patient")})
    return found


def _text(names: np.ndarray) -> np.ndarray:
    return np.array([name.decode("utf-8", "surrogatepass") for name in names])


def _of_table(table: Mapping[str, np.ndarray]) -> Embedded:
    labels = {name.removeprefix(TASK_PREFIX): table[name] for name in table if name.startswith(TASK_PREFIX)}
    return Embedded(table["trajectory"], table["patient"], table["embedding"], labels)


def _save(found: dict[Split, Embedded], path: Path) -> None:
    """Writes one row a trajectory: `split`, `trajectory`, `patient`, `embedding`, and `task/NAME`."""
    items = found.values()
    np.savez(
        path,
        split=np.repeat(list(found), [len(item.trajectories) for item in items]),
        trajectory=np.concatenate([item.trajectories for item in items]),
        patient=np.concatenate([item.patients for item in items]),
        embedding=np.concatenate([item.embeddings for item in items]),
        **{
            TASK_PREFIX + task: np.concatenate([item.labels[task] for item in items])
            for task in next(iter(items)).labels
        },
    )


def _load(path: Path) -> dict[Split, Embedded]:
    with np.load(path, allow_pickle=False) as arrays:
        table = dict(arrays)
    return {
        split: _of_table({name: column[table["split"] == split] for name, column in table.items()})
        for split in SPLITS
        if split in table["split"]
    }
