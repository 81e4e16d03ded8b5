"""Embeddings of a data set by an arm's frozen encoder, pre-trained or not."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfmmcl.cohorts.splits import SPLITS, Split
from tfmmcl.pipeline.batches import Batches
from tfmmcl.records.manifest import DataSet
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.pretrain import build_pretrainer

BATCH_SIZE = 64


@dataclass(frozen=True)
class Embedded:
    """A split's embeddings.

    Attributes:
        trajectories: `(n,)` ids, in stored order.
        embeddings: `(n, D)` float32.
    """

    trajectories: np.ndarray
    embeddings: np.ndarray


def random_encoder(settings: PretrainSettings, data: DataSet, seed: int) -> keras.Model:
    """Builds an encoder that was not trained, its running statistics those of a batch."""
    keras.utils.set_random_seed(seed)
    trainer = build_pretrainer(settings, data)
    trainer.calibrate(next(iter(Batches(data, settings).training(views=trainer.objective.views))))
    return trainer.encoder


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
    found: dict[Split, Embedded] = {}
    for split in SPLITS:
        if not data.count(split):
            continue
        plain = batches.plain(split).map(lambda example, view: (example["trajectory"], view))
        names, rows = [], []
        for trajectories, view in plain.batch(BATCH_SIZE):
            names += [name.decode("utf-8", "surrogatepass") for name in trajectories.numpy()]
            rows.append(tf.cast(forward(view), tf.float32).numpy())
        found[split] = Embedded(np.array(names), np.concatenate(rows))
    return found
