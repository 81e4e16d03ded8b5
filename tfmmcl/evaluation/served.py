"""A SavedModel as others use it, without Keras: loaded, looked at, called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfmmcl.errors import InputError
from tfmmcl.files import sha256
from tfmmcl.records.manifest import DataSet

INPUTS = ("signals", "structured", "statics")
"""The inputs that a model may take."""


class Served:
    """A model that `export` wrote, or any SavedModel with such a signature.

    Args:
        path: The SavedModel's folder.

    Raises:
        InputError: If it cannot be loaded, has no signature `serving_default`, or takes another input.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._model = _load(self.path)  # its variables live as long as it does, not as long as its signature
        self._serve = self._model.signatures["serving_default"]
        shapes = {name: tuple(spec.shape[1:]) for name, spec in self._serve.structured_input_signature[1].items()}
        for name in shapes:
            if name not in INPUTS:
                raise InputError(f"{path}: takes an input '{name}'; expected none but {', '.join(INPUTS)}.")
        # In an order of our own: TensorFlow's is another in each process.
        self.inputs: dict[str, tuple[int, ...]] = {name: shapes[name] for name in INPUTS if name in shapes}

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs' names."""
        return tuple(sorted(self._serve.structured_outputs))

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns each output `(B, …)` as float32.

        Args:
            inputs: Name → `(B, …)` in physical units, NaN where missing.
        """
        return {name: values.numpy().astype(np.float32) for name, values in self._serve(**inputs).items()}

    def fingerprint(self) -> str:
        """Returns a hash of the model's graph and weights, in hex."""
        files = [self.path / "saved_model.pb", *sorted((self.path / "variables").glob("*"))]
        return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()

    def check(self, data: DataSet) -> None:
        """Raises `InputError` unless a data set has the model's inputs."""
        spec = data.spec
        for name, shape in self.inputs.items():
            if name == "signals" and not spec.leads:
                raise InputError(
                    f"{self.path}: takes signals, which {data.path} does not have; expected a No-ECG model."
                )
            if shape != (expected := spec.shapes[name]):
                raise InputError(
                    f"{self.path}: takes '{name}' of shape {shape}, expected {expected} as {data.path} has it."
                )


def _load(path: Path) -> Any:
    import tensorflow as tf

    # The loader's own message for these is about TensorFlow 1.
    if not (path / "saved_model.pb").is_file():
        raise InputError(f"{path}: holds no saved_model.pb; expected a SavedModel, such as a run's saved_model.")
    try:
        model = tf.saved_model.load(str(path))
    except Exception as error:  # a damaged one raises any of a dozen kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"{path}: cannot be loaded as a SavedModel ({reason}).") from None
    if "serving_default" not in model.signatures:
        raise InputError(f"{path}: has no signature serving_default; expected a model that export.py wrote.")
    return model
