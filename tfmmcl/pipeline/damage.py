"""Which record is damaged, where TensorFlow says only that one is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from tfmmcl.cohorts.splits import Split
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.verify import read_trajectories


@contextlib.contextmanager
def naming_damage(data: DataSet, splits: Sequence[Split]) -> Iterator[None]:
    """Reads shards again when TensorFlow finds damage inside, to say where it is.

    Args:
        data: What is read inside.
        splits: Which of its splits.

    Raises:
        InputError: If a record is damaged, with its shard and number.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        for split in splits:
            if data.count(split):
                for _ in read_trajectories(data, split):
                    pass
        raise
