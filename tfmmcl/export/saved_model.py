"""SavedModels with the preprocessing inside: physical units in, embedding or probability out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfmmcl.errors import InputError
from tfmmcl.export.extras import write_extras
from tfmmcl.export.servable import Servable, load_servable
from tfmmcl.export.signature import checked, description, input_specs, output_shapes
from tfmmcl.training.run_directory import FinetuneDirectory, RunDirectory, write_complete

EXTRAS = "assets.extra"
"""Where TensorFlow has a SavedModel keep files that no graph reads."""


def export_run(
    run: RunDirectory | FinetuneDirectory,
    path: str | Path | None = None,
    data: str | None = None,
    *,
    result: Mapping[str, Any] | None = None,
    xla: bool = False,
) -> Path:
    """Writes a run's model as a SavedModel that needs neither tfmmcl nor Keras to run.

    Its `serving_default` signature takes, for any batch size B, `structured` `(B, T, M)` and `statics` `(B, L)` in the
    data set's units and `signals` `(B, T, Z, C)` in millivolts (absent without ECG), all float32 with NaN for what is
    missing, and returns what `load_servable` says; inputs of other shapes are refused with a sentence. Its `describe`
    signature takes nothing and tells every feature's place, name, unit and training mean, and the model card. The
    card, the settings and an excerpt of the manifest lie in its `assets.extra`.

    Args:
        run: A finished run.
        path: Folder to make. Default None: the run's own `saved_model`.
        data: Where the run's data set is now. Default None: where its settings say.
        result: What the run's `result.json` is to hold, for the model card. Default None: what it holds.
        xla: Whether XLA compiles the network, once for each batch size, when it is called. Default False.

    Returns:
        The folder.

    Raises:
        InputError: If the run is not finished, the data set is not the run's, or `path` exists.
    """
    if path is not None and Path(path).exists():
        raise InputError(f"{path}: already exists; expected the name of a new folder.")
    target = run.saved_model if path is None else Path(path)
    servable = load_servable(run, data, result)
    write_complete(target, lambda partial: _save(servable, partial, xla=xla))
    return target


def _save(servable: Servable, path: Path, *, xla: bool) -> None:
    spec, names = servable.data.spec, servable.inputs
    # The checks stay outside: XLA drops what ends a call with a message.
    function = tf.function(servable.function, jit_compile=True) if xla else servable.function
    module = servable.module()
    serve = tf.function(checked(function, spec)).get_concrete_function(**input_specs(spec, names))
    path.mkdir()
    card = write_extras(servable, path / EXTRAS, output_shapes(serve))
    describe = tf.function(lambda: description(spec, servable.data.statistics, names, card)).get_concrete_function()
    module.serve, module.describe = serve, describe
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve, "describe": describe})
