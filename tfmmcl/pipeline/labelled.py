"""Labelled trajectories → batches for fine-tuning. A trajectory without a label of the task is never among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfmmcl.cohorts.splits import Split
from tfmmcl.finetune_settings import FinetuneSettings
from tfmmcl.pipeline.batches import epoch_key, ordered, shuffled_records
from tfmmcl.pipeline.parse import parse
from tfmmcl.pipeline.preprocess import Preprocessor
from tfmmcl.pipeline.reading import Reading
from tfmmcl.pipeline.shapes import even_batches
from tfmmcl.pipeline.views import View, trajectory_key
from tfmmcl.records.labels import Label, find_task, labels_of_run
from tfmmcl.records.manifest import DataSet

MEMORY_BYTES = 2**30
"""Trajectories of a split that are together smaller are held in memory, as they are stored."""

Example = dict[str, tf.Tensor]


class LabelledBatches:
    """The pipeline of one data set under one fine-tuning run's settings.

    A batch is a triple: the encoder's inputs, `label` `(B,)` and `weight` `(B,)`. A pass has every trajectory once,
    in batches of equal size, see `even_batches`; what the last one lacks is filled with trajectories from the pass's
    beginning, at weight zero. An epoch is one pass, or as many as `training.least_steps` asks for.

    Args:
        data: The data set; its own training statistics standardise, whatever the encoder was pre-trained on.
        settings: The run's settings, complete (see `training.start_finetuning.complete`).

    Raises:
        InputError: If the task is unknown, or no training or no validation trajectory has a label of it.
    """

    def __init__(self, data: DataSet, settings: FinetuneSettings) -> None:
        self.data = data
        self.settings = settings
        self.task = find_task(data, settings.task)
        self.labels = labels_of_run(data, settings.task, settings.label_fraction, settings.seed)
        self._rows = {split: _row_table(labels) for split, labels in self.labels.items()}
        self.reads_signals = settings.encoder.signal is not None
        preprocessor = Preprocessor(data.spec, data.statistics)
        self.reading = Reading(preprocessor, settings.reading, signals=self.reads_signals)
        training = np.array([item.label for item in self.labels["train"]])
        self.class_weights = _class_weights(training, self.task.values, settings.training.class_weights == "balanced")
        self.mean, self.std = _scale(training) if self.task.kind == "regression" else (0.0, 1.0)

    def training_batches(self) -> tuple[int, int]:
        """Returns how many batches an epoch has, and their size."""
        steps, size = self._even("train")
        return steps * self._passes(), size

    def training(self, first_epoch: int = 0) -> tf.data.Dataset:
        """Returns the batches of all epochs from one on, in an order that follows from seed and pass.

        Args:
            first_epoch: Where to begin. Default 0.
        """
        seed, held = self.settings.seed, self._held("train")

        def batches(number: tf.Tensor) -> tf.data.Dataset:
            def prepare(example: Example) -> View:
                return self.reading.one(example, trajectory_key(seed, number, example["trajectory"]))

            if held is None:
                records = shuffled_records(self.data, "train", seed, number, self.settings.data.shuffle_buffer)
                examples = self._parsed("train", records)
            else:
                order = tf.random.experimental.stateless_shuffle(held["row"], epoch_key(seed, number))
                examples = _taken(held, order)
            return self._batches("train", examples, prepare)

        return ordered(
            tf.data.Dataset.range(
                first_epoch * self._passes(), self.settings.training.epochs * self._passes()
            ).flat_map(batches)
        )

    def inference(self, split: Split) -> tf.data.Dataset:
        """Returns a split's batches in stored order, that of `labels`, with all crops of each signal."""
        held = self._held(split)
        examples = self._stored(split) if held is None else _taken(held, held["row"])
        batches = self._batches(split, examples, self.reading.every)
        # Keras has to know where to stop.
        return ordered(batches.apply(tf.data.experimental.assert_cardinality(self._even(split)[0])))

    def _passes(self) -> int:
        return math.ceil(self.settings.training.least_steps / self._even("train")[0])

    def _even(self, split: Split) -> tuple[int, int]:
        return even_batches(len(self.labels[split]), self.settings.data.batch_size)

    def _batches(self, split: Split, examples: tf.data.Dataset, prepare: Callable[[Example], View]) -> tf.data.Dataset:
        count, (steps, size) = len(self.labels[split]), self._even(split)
        labels = np.array([item.label for item in self.labels[split]])
        weights = self.class_weights[labels.astype(int)] if self.task.values else np.ones(count)
        labels = tf.constant((labels - self.mean) / self.std, tf.float32)
        weights = tf.constant(weights, tf.float32)

        def finish(place: tf.Tensor, example: Example) -> tuple[View, tf.Tensor, tf.Tensor]:
            weight = tf.where(place < count, tf.gather(weights, example["row"]), 0.0)
            return prepare(example), tf.gather(labels, example["row"]), weight

        return (
            # The second pass, in the same order, fills the last batch.
            examples.repeat(2)
            .take(steps * size)
            .enumerate()
            .map(finish, self.settings.data.parallel_calls or tf.data.AUTOTUNE)
            .batch(size, drop_remainder=True)
        )

    def _held(self, split: Split) -> Example | None:
        """Returns all of a split's labelled trajectories as tensors, or None if they are too large to be held."""
        spec, count = self.data.spec, len(self.labels[split])
        samples = spec.windows * spec.samples * len(spec.leads) if self.reads_signals else 0
        numbers = spec.windows * len(spec.structured) + len(spec.statics)
        if count * (2 * samples + 4 * numbers) > MEMORY_BYTES:
            return None
        return next(iter(self._stored(split).batch(count)))

    def _stored(self, split: Split) -> tf.data.Dataset:
        return self._parsed(split, tf.data.TFRecordDataset(self.data.shards(split)))

    def _parsed(self, split: Split, records: tf.data.Dataset) -> tf.data.Dataset:
        """Parses the records of labelled trajectories, each with its `row` in `labels`; the others are dropped."""
        table, calls = self._rows[split], self.settings.data.parallel_calls or tf.data.AUTOTUNE

        def find(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            name = tf.io.parse_single_example(record, {"trajectory": tf.io.FixedLenFeature([], tf.string)})
            return record, table.lookup(name["trajectory"])

        def decode(record: tf.Tensor, row: tf.Tensor) -> Example:
            return parse(record, self.data.spec, signals=self.reads_signals) | {"row": row}

        return records.map(find, calls).filter(lambda _, row: row >= 0).map(decode, calls)


def _row_table(labels: Sequence[Label]) -> tf.lookup.StaticHashTable:
    """Returns trajectory → its position, or -1 for one that is not there."""
    names = [item.trajectory.encode("utf-8", "surrogatepass") for item in labels]
    rows = tf.lookup.KeyValueTensorInitializer(tf.constant(names, tf.string), tf.range(len(names)))
    return tf.lookup.StaticHashTable(rows, default_value=-1)


def _taken(held: Example, order: tf.Tensor) -> tf.data.Dataset:
    """Returns held trajectories one by one in this order of their rows."""
    return tf.data.Dataset.from_tensor_slices(order).map(
        lambda row: {name: tf.gather(tensor, row) for name, tensor in held.items()}
    )


def _class_weights(labels: np.ndarray, classes: tuple[int, ...], balanced: bool) -> np.ndarray:
    """Returns each class's weight `(K,)`; balanced, every class that occurs has the same sum of weights."""
    counts = np.bincount(labels.astype(int), minlength=len(classes)) if classes else np.zeros(0)
    if not balanced:
        return np.ones(len(counts))
    return np.where(counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 1.0)


def _scale(labels: np.ndarray) -> tuple[float, float]:
    """Returns mean and standard deviation, 1 where all labels are equal."""
    return float(labels.mean()), float(labels.std()) or 1.0
