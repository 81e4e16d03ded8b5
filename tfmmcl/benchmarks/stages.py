"""The training pipeline, cut off after each of its stages."""

from __future__ import annotations

import tensorflow as tf

from tfmmcl.pipeline.batches import Batches, ordered, shuffled_records, together
from tfmmcl.records.manifest import DataSet
from tfmmcl.settings import PretrainSettings


def stages(data: DataSet, settings: PretrainSettings) -> dict[str, tuple[tf.data.Dataset, int]]:
    """Returns endless data sets, and how many trajectories one of their elements has.

    Records are `read` one by one, `parse`d some at a time, made `views` of, and put together to a training `batch`.
    """
    batches = Batches(data, settings)
    some, calls = together(settings.data.batch_size), settings.data.parallel_calls or tf.data.AUTOTUNE
    epochs = tf.data.Dataset.range(settings.training.epochs)

    def records(epoch: tf.Tensor) -> tf.data.Dataset:
        return shuffled_records(data, "train", settings.seed, epoch, settings.data.shuffle_buffer)

    read = epochs.flat_map(records)
    return {
        "read": (ordered(read), 1),
        "parse": (ordered(read.batch(some, drop_remainder=True).map(batches.parsed, calls)), some),
        "views": (ordered(batches.augmented(epochs, records, 2, some)), some),
        "batch": (batches.training(), settings.data.batch_size),
    }
