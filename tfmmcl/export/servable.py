"""A finished run's model as one function of physical units, whatever file it then goes into."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfmmcl.errors import InputError
from tfmmcl.export.signature import Function
from tfmmcl.finetune_settings import FinetuneSettings
from tfmmcl.models.loading import load_model
from tfmmcl.pipeline.batches import Batches
from tfmmcl.pipeline.preprocess import Preprocessor
from tfmmcl.pipeline.reading import Reading, mean_over_crops
from tfmmcl.pipeline.shapes import check_identity
from tfmmcl.records.manifest import DataSet
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.run_directory import FinetuneDirectory, RunDirectory


@dataclass(frozen=True)
class Servable:
    """What of a run is exported.

    Attributes:
        run: The run.
        settings: Its settings.
        data: The data set that it was trained on.
        result: What its `result.json` holds, or is to hold; empty where there is none.
        model: The encoder, or encoder and head, in float32.
        function: From the inputs, in physical units with NaN for missing, to the outputs by name.
    """

    run: RunDirectory
    settings: PretrainSettings | FinetuneSettings
    data: DataSet
    result: Mapping[str, Any]
    model: keras.Model
    function: Function

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs' names."""
        return tuple(self.model.input)

    def module(self) -> tf.Module:
        """Returns what a file's functions are to hang on: it keeps the weights."""
        module = tf.Module()
        module.variables_of_model = [variable.value for variable in self.model.variables]
        return module


def load_servable(
    run: RunDirectory | FinetuneDirectory, data: str | None = None, result: Mapping[str, Any] | None = None
) -> Servable:
    """Loads the model of a pre-training or of a fine-tuning run, with its preprocessing.

    An encoder gives `embedding` `(B, D)` of each window's first segment. A fine-tuned model gives, beside it,
    `probability` `(B,)` of label 1 for a binary task, `probability` `(B, K)` of each class for a multiclass one, or
    `prediction` `(B,)` in the label's unit, each the mean over the crops that the run's settings have it read.

    Args:
        run: The run.
        data: Where its data set is now. Default None: where its settings say.
        result: What its `result.json` is to hold. Default None: what it holds, if it is there.

    Raises:
        InputError: If the run has no finished model, or the data set is not the run's.
    """
    settings = run.load_settings()
    file, tool = (run.model, "finetune.py") if isinstance(run, FinetuneDirectory) else (run.encoder, "pretrain.py")
    if not file.is_file():
        raise InputError(f"{file}: no such file; expected a run that {tool} has finished.")
    dataset = DataSet.open(data or settings.data.path)
    check_identity(dataset, settings)
    model = load_model(file)
    if isinstance(settings, FinetuneSettings):
        function = _classifier(model, settings, dataset)
    else:
        function = _encoder(model, settings, dataset)
    found = _result(run.result) if result is None else result
    return Servable(run, settings, dataset, found, model, function)


def _encoder(model: keras.Model, settings: PretrainSettings, data: DataSet) -> Function:
    views = Batches(data, settings).views

    def embed(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"embedding": model(views.of_physical_units(dict(inputs)), training=False)}

    return embed


def _classifier(model: keras.Model, settings: FinetuneSettings, data: DataSet) -> Function:
    preprocessor = Preprocessor(data.spec, data.statistics)
    reading = Reading(preprocessor, settings.reading, signals="signals" in model.input)

    def predict(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        view = reading.of_physical_units(dict(inputs))
        return mean_over_crops(lambda crops: model(crops, training=False), view)

    return predict


def _result(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
