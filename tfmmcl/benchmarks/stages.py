"""The training pipeline, cut off after each of its stages."""

from __future__ import annotations

import tensorflow as tf

from tfmmcl.pipeline.batches import Batches, ordered, shuffled_records
from tfmmcl.pipeline.parse import parse
from tfmmcl.pipeline.views import View, trajectory_key
from tfmmcl.records.manifest import DataSet
from tfmmcl.settings import PretrainSettings


def stages(data: DataSet, settings: PretrainSettings) -> dict[str, tf.data.Dataset]:
    """Returns endless data sets: records `read`, `parse`d, made `views` of, one by one, and the training `batch`es."""
    batches = Batches(data, settings)
    seed, calls = settings.seed, settings.data.parallel_calls or tf.data.AUTOTUNE

    def parsed(record: tf.Tensor) -> dict[str, tf.Tensor]:
        return parse(record, data.spec, signals=batches.reads_signals)

    def views(record: tf.Tensor) -> tuple[View, ...]:
        example = parsed(record)
        return batches.views.augmented(example, trajectory_key(seed, 0, example["trajectory"]))

    epochs = tf.data.Dataset.range(settings.training.epochs)
    records = epochs.flat_map(lambda epoch: shuffled_records(data, "train", seed, epoch, settings.data.shuffle_buffer))
    return {
        "read": ordered(records),
        "parse": ordered(records.map(parsed, calls)),
        "views": ordered(records.map(views, calls)),
        "batch": batches.training(),
    }
