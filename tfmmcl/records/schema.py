"""A trajectory as one `tf.train.Example`, and back, without TensorFlow."""

from __future__ import annotations

import numpy as np
from google.protobuf.message import DecodeError

from tfmmcl.cohorts.trajectory import Spec, Trajectory
from tfmmcl.errors import InputError
from tfmmcl.records.protos import example_pb2

MISSING_SAMPLE = -32768
"""The stored int16 that stands for a missing sample; the least value int16 holds."""

TASK_PREFIX = "task/"


def encode(trajectory: Trajectory, spec: Spec) -> bytes:
    """Serialises a trajectory; the same trajectory gives the same bytes.

    Arrays are little-endian bytes. Signals are int16 in steps of `spec.signal_scale_mv`; a sample that is NaN
    or does not fit is stored as `MISSING_SAMPLE`. A cohort without leads stores no signals at all.
    """
    trajectory.check(spec)
    features = {
        "patient": _bytes(trajectory.patient.encode("utf-8", "surrogatepass")),
        "trajectory": _bytes(trajectory.name.encode("utf-8", "surrogatepass")),
        "structured": _bytes(trajectory.structured.astype("<f4").tobytes()),
        "statics": _bytes(trajectory.statics.astype("<f4").tobytes()),
    }
    if spec.leads:
        stored = quantise(trajectory.signals, spec)
        features["signals"] = _bytes(stored.astype("<i2").tobytes())
        features["signals_present"] = _bytes((stored != MISSING_SAMPLE).any(axis=1).astype("u1").tobytes())
    for task in spec.tasks:
        label = float(trajectory.labels.get(task.name, np.nan))
        features[TASK_PREFIX + task.name] = example_pb2.Feature(float_list=example_pb2.FloatList(value=[label]))
    example = example_pb2.Example(features=example_pb2.Features(feature=features))
    # Protobuf maps have no order of their own; deterministic output sorts the keys.
    return example.SerializeToString(deterministic=True)


def decode(data: bytes, spec: Spec) -> Trajectory:
    """Parses what `encode` wrote.

    Raises:
        InputError: If a field is absent or its size does not fit the spec.
    """
    try:
        features = example_pb2.Example.FromString(data).features.feature
    except DecodeError:
        raise InputError("not a tf.train.Example.") from None

    def array(key: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        raw = features[key].bytes_list.value if key in features else ()
        expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if len(raw) != 1 or len(raw[0]) != expected:
            found = f"{len(raw[0])} bytes" if len(raw) == 1 else "nothing"
            raise InputError(f"'{key}': found {found}, expected {expected} bytes for shape {shape}.")
        return np.frombuffer(raw[0], dtype).reshape(shape)

    def text(key: str) -> str:
        raw = features[key].bytes_list.value if key in features else ()
        if len(raw) != 1 or not raw[0]:
            raise InputError(f"'{key}': found nothing, expected an id.")
        try:
            return raw[0].decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise InputError(f"'{key}': found {raw[0]!r}, expected an id in UTF-8.") from None

    shapes = spec.shapes
    if spec.leads:
        stored = array("signals", "<i2", shapes["signals"])
        present = array("signals_present", "u1", (spec.windows, len(spec.leads)))
        if (present > 1).any() or (present != (stored != MISSING_SAMPLE).any(axis=1)).any():
            raise InputError("'signals_present': disagrees with the signals.")
    labels = {}
    for task in spec.tasks:
        values = features[TASK_PREFIX + task.name].float_list.value if TASK_PREFIX + task.name in features else ()
        if len(values) != 1:
            raise InputError(f"'{TASK_PREFIX}{task.name}': found {len(values)} values, expected 1.")
        labels[task.name] = values[0]
    return Trajectory(
        patient=text("patient"),
        name=text("trajectory"),
        signals=dequantise(stored, spec) if spec.leads else np.zeros(shapes["signals"], np.float32),
        structured=array("structured", "<f4", shapes["structured"]),
        statics=array("statics", "<f4", shapes["statics"]),
        labels=labels,
    )


def quantise(signals: np.ndarray, spec: Spec) -> np.ndarray:
    """Converts millivolts `(T, Z, C)` to the stored int16."""
    with np.errstate(over="ignore"):
        steps = np.rint(signals / np.asarray(spec.signal_scale_mv, np.float32))
    # Not a number compares false, so NaN ends as missing along with what does not fit.
    return np.where(np.abs(steps) <= 32767, steps, MISSING_SAMPLE).astype(np.int16)


def dequantise(stored: np.ndarray, spec: Spec) -> np.ndarray:
    """Converts stored int16 `(…, Z, C)` to float32 millivolts, NaN where missing."""
    millivolts = stored.astype(np.float32)
    # Leads beside time: broadcasting along a last axis of a few leads is slow.
    rows = millivolts.reshape(*stored.shape[:-2], -1)
    rows *= np.tile(np.asarray(spec.signal_scale_mv, np.float32), stored.shape[-2])
    millivolts[stored == MISSING_SAMPLE] = np.nan
    return millivolts


def _bytes(value: bytes) -> example_pb2.Feature:
    return example_pb2.Feature(bytes_list=example_pb2.BytesList(value=[value]))
