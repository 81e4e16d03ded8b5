"""SavedModels with the preprocessing inside: physical units in, embedding or probability out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.errors import InputError
from tfmmcl.models.loading import load_model
from tfmmcl.pipeline.batches import Batches
from tfmmcl.pipeline.preprocess import Preprocessor
from tfmmcl.pipeline.reading import Reading, mean_over_crops
from tfmmcl.pipeline.shapes import check_identity
from tfmmcl.pipeline.views import Views
from tfmmcl.records.manifest import DataSet
from tfmmcl.training.run_directory import FinetuneDirectory, RunDirectory, write_complete


def export_run(run: RunDirectory, path: str | Path | None = None, data: str | None = None) -> Path:
    """Writes a pre-training run's encoder as a SavedModel.

    Args:
        run: A run that has its `encoder.keras`.
        path: Folder to make. Default None: the run's own `saved_model`.
        data: Where the run's data set is now. Default None: where its settings say.

    Returns:
        The folder.

    Raises:
        InputError: If the run is not finished, the data set is not the run's, or `path` exists.
    """
    settings = run.load_settings()
    if not run.encoder.is_file():
        raise InputError(f"{run.encoder}: no such file; expected a run that pretrain.py has finished.")
    if path is not None and Path(path).exists():
        raise InputError(f"{path}: already exists; expected the name of a new folder.")
    dataset = DataSet.open(data or settings.data.path)
    check_identity(dataset, settings)
    encoder = load_model(run.encoder)
    views = Batches(dataset, settings).views
    target = Path(path) if path is not None else run.saved_model
    write_complete(target, lambda partial: export_encoder(encoder, dataset.spec, views, partial))
    return target


def export_finetuned(run: FinetuneDirectory) -> Path:
    """Writes a fine-tuning run's model as its `saved_model`, and returns that folder.

    Beside `embedding` it returns `probability` `(B,)` of label 1 for a binary task, `probability` `(B, K)` of each
    class for a multiclass one, or `prediction` `(B,)` in the label's unit. Each is the mean over the crops that the
    run's settings have it read.

    Raises:
        InputError: If the run has no `model.keras`, or the data set is not the run's.
    """
    settings = run.load_settings()
    dataset = DataSet.open(settings.data.path)
    check_identity(dataset, settings)
    model = load_model(run.model)
    preprocessor = Preprocessor(dataset.spec, dataset.statistics)
    reading = Reading(preprocessor, settings.reading, signals="signals" in model.input)

    def predict(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return mean_over_crops(lambda view: model(view, training=False), reading.of_physical_units(inputs))

    write_complete(run.saved_model, lambda partial: _save(predict, model, dataset.spec, partial))
    return run.saved_model


def export_encoder(encoder: keras.Model, spec: Spec, views: Views, path: str | Path) -> None:
    """Writes a SavedModel that needs neither tfmmcl nor Keras to run.

    Its `serving_default` signature takes, for any batch size B, `structured` `(B, T, M)` and `statics` `(B, L)` in the
    data set's units and `signals` `(B, T, Z, C)` in millivolts (absent without ECG), all float32 with NaN for what is
    missing, and returns `embedding` `(B, D)`. Of each window it reads the first segment, as `Views.plain` does.

    Args:
        encoder: A float32 encoder; see `models.encoder`.
        spec: Names, units and shapes of the data set that it was trained on.
        views: Makes the encoder's inputs of physical units, with that data set's statistics.
        path: Folder to write.
    """

    def embed(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": encoder(views.of_physical_units(inputs), training=False)}

    _save(embed, encoder, spec, path)


def _save(function: Callable[..., dict[str, tf.Tensor]], model: keras.Model, spec: Spec, path: str | Path) -> None:
    """Writes a function of physical units that calls a model, as `export_encoder` says."""
    signature = {
        "structured": tf.TensorSpec((None, spec.windows, len(spec.structured)), tf.float32, name="structured"),
        "statics": tf.TensorSpec((None, len(spec.statics)), tf.float32, name="statics"),
    }
    if "signals" in model.input:
        shape = (None, spec.windows, spec.samples, len(spec.leads))
        signature["signals"] = tf.TensorSpec(shape, tf.float32, name="signals")
    module = tf.Module()
    module.variables_of_model = [variable.value for variable in model.variables]
    module.serve = tf.function(function).get_concrete_function(**signature)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
