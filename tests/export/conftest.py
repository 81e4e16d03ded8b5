from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tfmmcl.config import load
from tfmmcl.pipeline.batches import Batches
from tfmmcl.records.verify import read_trajectories
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.pretrain import pretrain
from tfmmcl.training.run_directory import RunDirectory


@pytest.fixture(scope="session")
def trained(small_data, small_overrides, tmp_path_factory):
    """A run, the test split as its records have it, and what the Keras model makes of that in the pipeline."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "settings.yaml").write_text(f"data: {{path: '{small_data.path}'}}\n")
    # Wide enough for LiteRT to think 8-bit weights worth it.
    overrides = [*small_overrides, "training.epochs=1", "encoder.recurrent_units=48"]
    settings = load(folder / "settings.yaml", PretrainSettings, overrides)
    run = RunDirectory(folder / "run")
    run_result = pretrain(settings, run)
    run.write_result(run_result)
    encoder = keras.saving.load_model(run.encoder)
    views = [view for _, view in Batches(small_data, settings).plain("test").batch(4)]
    trajectories = list(read_trajectories(small_data, "test"))
    inputs = {name: np.stack([getattr(t, name) for t in trajectories]) for name in ("signals", "structured", "statics")}
    assert all(np.isnan(value).any() for value in inputs.values())
    expected = np.concatenate([encoder(view).numpy() for view in views])
    return SimpleNamespace(run=run, data=small_data, inputs=inputs, expected=expected, result=run_result)
