"""Serialised `tf.train.Example`s → raw tensors with static shapes, by the manifest's schema."""

from __future__ import annotations

import tensorflow as tf

from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.records.schema import TASK_PREFIX


def feature_schema(spec: Spec, *, signals: bool = True) -> dict[str, tf.io.FixedLenFeature]:
    """Returns the `tf.io.parse_example` schema of a data set; plain tf.data users can read the shards with it.

    Args:
        spec: The manifest's spec.
        signals: Whether to include the signals. Default True; they are left unread otherwise.
    """
    scalar_text = tf.io.FixedLenFeature([], tf.string)
    schema = dict.fromkeys(("patient", "trajectory", "structured", "statics"), scalar_text)
    if signals:
        schema |= {"signals": scalar_text, "signals_present": scalar_text}
    return schema | {TASK_PREFIX + task.name: tf.io.FixedLenFeature([], tf.float32) for task in spec.tasks}


def parse(record: tf.Tensor, spec: Spec, *, signals: bool = True) -> dict[str, tf.Tensor]:
    """Parses one record, or several at once, with their axis first in everything that is returned.

    Args:
        record: Scalar string, or strings `(N,)`.
        spec: The manifest's spec.
        signals: Whether to decode the signals. Default True.

    Returns:
        `patient` and `trajectory` ids, `structured` `(T, M)` and `statics` `(L,)` in physical units with NaN where
        missing, `signals` `(T, Z, C)` as stored int16 (only with `signals`), and a `task/NAME` scalar per task.
    """
    record = tf.convert_to_tensor(record)
    several = [-1 if size is None else size for size in record.shape]
    example = tf.io.parse_example(record, feature_schema(spec, signals=signals))
    shapes = {name: (*several, *shape) for name, shape in spec.shapes.items()}
    for name in ("structured", "statics"):
        example[name] = _decode(example[name], tf.float32, shapes[name])
    if signals:
        del example["signals_present"]  # every absent sample is marked in the signals themselves
        example["signals"] = _decode(example["signals"], tf.int16, shapes["signals"])
    return example


def _decode(raw: tf.Tensor, dtype: tf.DType, shape: tuple[int, ...]) -> tf.Tensor:
    return tf.reshape(tf.io.decode_raw(raw, dtype, little_endian=True), shape)
