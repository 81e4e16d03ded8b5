"""Embeddings of a few trajectories by the encoder as it is, in inference mode and without gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfmmcl.cohorts.splits import Split
from tfmmcl.cohorts.trajectory import Task
from tfmmcl.errors import InputError
from tfmmcl.objectives.contrastive import normalise
from tfmmcl.pipeline.batches import VALIDATION_EPOCH, Batches, together
from tfmmcl.records.labels import find_task
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.schema import TASK_PREFIX
from tfmmcl.training.pretrainer import Pretrainer

BATCH_SIZE = 64
COMPARED = 64
"""Trajectories whose views' similarities are looked at."""
SPLITS: tuple[Split, ...] = ("train", "validation")
"""The test split is not looked at."""


def watched_task(data: DataSet, name: str | None) -> Task | None:
    """Returns the task whose labels are read while training.

    Args:
        data: The data set.
        name: `watching.task`: a task's name, `auto` for the first binary one, or None for none.

    Raises:
        InputError: If the data set has no task of this name.
    """
    tasks = {task.name: task for task in data.spec.tasks}
    if name == "auto" and name not in tasks:
        return next((task for task in data.spec.tasks if task.kind == "binary"), None)
    try:
        return None if name is None else find_task(data, name)
    except InputError as error:
        raise InputError(f"watching.task: {error}") from None


@dataclass(frozen=True)
class Embedded:
    """Some trajectories of a split.

    Attributes:
        embeddings: `(N, D)`.
        trajectories: `(N,)` ids.
        patients: `(N,)` ids.
        labels: Task → `(N,)`, NaN where there is none.
    """

    embeddings: np.ndarray
    trajectories: list[str]
    patients: list[str]
    labels: dict[str, np.ndarray]


class FrozenEncoder:
    """Embeds the first trajectories, in stored order, of the training and the validation split.

    Args:
        trainer: Has the encoder and the objective's head; what is embedded follows their weights.
        batches: The run's pipeline.
        task: Only trajectories that have a label of it are embedded; None: all may be.
        count: Of each split, at most. Their inputs are held in memory: 384 kB each at the paper's size.
    """

    def __init__(self, trainer: Pretrainer, batches: Batches, task: Task | None, count: int) -> None:
        self._trainer, self._batches = trainer, batches
        view = {
            name: tf.TensorSpec((None, *spec.shape), spec.dtype, name)
            for name, spec in batches.views.element_spec.items()
        }
        # Made once, for any batch size.
        self.forward = tf.function(lambda view: trainer(view, training=False), input_signature=[view], autograph=False)
        self._inputs = {split: self._first(split, task, count).cache() for split in SPLITS}
        self._views = self._pairs(COMPARED)

    def embed(self) -> dict[Split, Embedded]:
        """Returns each split's trajectories; a split without any is absent."""
        return {split: found for split in SPLITS if (found := self._embed(split))}

    def similarity(self) -> np.ndarray:
        """Returns the cosine similarities `(N, N)` of the first validation trajectories' two views.

        They are compared as the objective does, after its head: rows are first views, columns second ones; the views
        are those of validation.
        """
        outputs = [[tf.cast(self.forward(view)[1], tf.float32).numpy() for view in views] for views in self._views]
        first, second = (normalise(np.concatenate(parts)) for parts in zip(*outputs))
        return np.asarray(first) @ np.asarray(second).T

    def _pairs(self, count: int) -> tf.data.Dataset:
        data = self._batches.data
        records = tf.data.TFRecordDataset(data.shards("validation")).take(count)
        epoch = tf.data.Dataset.range(VALIDATION_EPOCH, VALIDATION_EPOCH + 1)
        # As many at a time as in training: what was compiled for those is used.
        size = min(together(self._batches.settings.data.batch_size), data.count("validation"))
        return self._batches.augmented(epoch, lambda _: records, 2, size).cache()

    def _first(self, split: Split, task: Task | None, count: int) -> tf.data.Dataset:
        names = ("trajectory", "patient", *(TASK_PREFIX + item.name for item in self._batches.data.spec.tasks))
        plain = self._batches.plain(split)
        if task is not None:
            plain = plain.filter(lambda example, _: tf.math.is_finite(example[TASK_PREFIX + task.name]))
        return plain.map(lambda example, view: ({name: example[name] for name in names}, view)).take(count)

    def _embed(self, split: Split) -> Embedded | None:
        examples, embeddings = [], []
        for example, view in self._inputs[split].batch(BATCH_SIZE):
            examples.append({name: tensor.numpy() for name, tensor in example.items()})
            embeddings.append(tf.cast(self.forward(view)[0], tf.float32).numpy())
        if not examples:
            return None
        table = {name: np.concatenate([example[name] for example in examples]) for name in examples[0]}
        texts = {
            name: [text.decode("utf-8", "replace") for text in table.pop(name)] for name in ("trajectory", "patient")
        }
        labels = {name.removeprefix(TASK_PREFIX): column for name, column in table.items()}
        return Embedded(np.concatenate(embeddings), texts["trajectory"], texts["patient"], labels)
