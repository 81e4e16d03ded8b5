"""LiteRT (TensorFlow Lite) files for small devices: one trajectory at a time, in float32 or with int8 weights."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tfmmcl.cohorts.trajectory import Trajectory
from tfmmcl.errors import InputError
from tfmmcl.export.extras import write_extras
from tfmmcl.export.servable import Servable, load_servable
from tfmmcl.export.signature import input_specs, output_shapes
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.verify import read_trajectories
from tfmmcl.training.run_directory import FinetuneDirectory, RunDirectory, write_complete

MODEL = "model.tflite"
"""The file in the folder that is written."""

COMPARED = 64
"""Trajectories on which the file is compared with the model that it was made of."""


@dataclass(frozen=True)
class Conversion:
    """What became of a conversion.

    Attributes:
        path: The folder.
        weights: `float32` or `int8`.
        size: Of the file, in bytes.
        compared: Trajectories on which it was compared with the model.
        split: Where they are from.
        errors: Output → its largest difference, and that as a fraction of its standard deviation over trajectories.
    """

    path: Path
    weights: str
    size: int
    compared: int
    split: str
    errors: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        errors = ", ".join(
            f"{name} differs by at most {largest:.2g} ({share:.2g} of its standard deviation)"
            for name, (largest, share) in self.errors.items()
        )
        return (
            f"{self.weights} weights, {self.size:,} bytes; on {self.compared} trajectories of the {self.split} split "
            f"{errors}"
        )


def export_litert(
    run: RunDirectory | FinetuneDirectory,
    path: str | Path,
    data: str | None = None,
    *,
    quantize: Literal["int8"] | None = None,
) -> Conversion:
    """Writes a run's model as a LiteRT file, and measures what the conversion changed.

    The file takes and returns what a SavedModel of the run does, for one trajectory, and uses LiteRT's own operations
    only. It does not check shapes itself: a LiteRT interpreter refuses tensors of other shapes.

    Args:
        run: A finished run.
        path: Folder to make, with the file, the model card, the settings and an excerpt of the manifest.
        data: Where the run's data set is now. Default None: where its settings say. Its records are read.
        quantize: `int8`: weights of convolutions and matrix products in 8 bits, a scale for each channel; what is
            computed from them stays float32 between operations. Default None: float32.

    Raises:
        InputError: If the run is not finished, the data set is not the run's, or `path` exists.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path}: already exists; expected the name of a new folder.")
    servable = load_servable(run, data)
    specs = input_specs(servable.data.spec, servable.inputs, batch=1)
    module = servable.module()
    module.serve = tf.function(lambda **inputs: servable.function(inputs))
    serve = module.serve.get_concrete_function(**specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if quantize else []
    content = converter.convert()
    split, trajectories = _some_trajectories(servable.data)
    conversion = Conversion(
        path=path,
        weights=quantize or "float32",
        size=len(content),
        compared=len(trajectories),
        split=split,
        errors=_errors(content, serve, servable, trajectories),
    )

    def write(partial: Path) -> None:
        partial.mkdir()
        (partial / MODEL).write_bytes(content)
        write_extras(servable, partial, output_shapes(serve), [f"LiteRT, one trajectory at a time: {conversion}."])

    write_complete(path, write)
    return conversion


def _errors(
    content: bytes, serve: tf.types.experimental.ConcreteFunction, servable: Servable, trajectories: list[Trajectory]
) -> dict[str, tuple[float, float]]:
    run = _interpreter(content).get_signature_runner("serving_default")
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in serve.structured_outputs}
    for trajectory in trajectories:
        inputs = {name: getattr(trajectory, name)[np.newaxis] for name in servable.inputs}
        expected = serve(**{name: tf.constant(value) for name, value in inputs.items()})
        found = run(**inputs)
        for name, values in pairs.items():
            values.append((expected[name].numpy()[0], found[name][0]))
    errors = {}
    for name, values in pairs.items():
        expected, found = (np.stack(side) for side in zip(*values))
        largest, spread = float(np.abs(found - expected).max()), float(expected.std(axis=0).mean())
        errors[name] = largest, largest / spread if spread else float(largest > 0)
    return errors


def _interpreter(content: bytes) -> Any:
    """Returns LiteRT's interpreter: of its own package where that is installed, else TensorFlow's older one."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tf.lite.Interpreter  # noqa: N806
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that TensorFlow's will go
        return Interpreter(model_content=content)


def _some_trajectories(data: DataSet) -> tuple[str, list[Trajectory]]:
    """Returns the first few trajectories of a split that the model was not trained with, if there is one."""
    for split in ("test", "validation", "train"):
        if data.count(split):
            return split, list(_first(read_trajectories(data, split)))
    raise InputError(f"{data.path}: has no trajectories; expected some to compare the converted model on.")


def _first(trajectories: Iterator[Trajectory]) -> Iterator[Trajectory]:
    return itertools.islice(trajectories, COMPARED)
