"""How convolutions are computed changes neither what is learned nor what a run leaves behind."""

import sys

import keras
import numpy as np
import pytest

from tfmmcl.models.fourier_convolution import Conv1D
from tfmmcl.pipeline.batches import Batches
from tfmmcl.training.pretrain import build_pretrainer, float32_encoder


def trainer_of(settings, data):
    keras.utils.set_random_seed(settings.seed)
    return build_pretrainer(settings, data)


def losses(settings, data, trainer):
    batches = Batches(data, settings)
    history = trainer.fit(batches.training(), epochs=1, steps_per_epoch=6, verbose=0, shuffle=False)
    return history.history["loss"]


@pytest.mark.slow
def test_the_losses_of_a_short_run_are_those_of_direct_convolutions(make_settings, small_data):
    found, weights = {}, {}
    for convolution in ("direct", "fourier"):
        settings = make_settings(f"encoder.signal.convolution={convolution}")
        trainer = trainer_of(settings, small_data)
        before = trainer.encoder.get_weights()
        found[convolution] = [losses(settings, small_data, trainer) for _ in range(2)]
        weights[convolution] = trainer.encoder.get_weights()
        assert not np.allclose(before[0], weights[convolution][0], atol=1e-3)
    np.testing.assert_allclose(found["fourier"], found["direct"], rtol=0, atol=1e-4)
    assert found["direct"][0] != found["direct"][1]


@pytest.mark.parametrize("writer", ["direct", "fourier"])
def test_a_checkpoint_loads_whatever_the_setting(make_settings, small_data, tmp_path, writer):
    reader = {"direct": "fourier", "fourier": "direct"}[writer]
    one, other = (
        trainer_of(make_settings(f"encoder.signal.convolution={name}", f"seed={seed}"), small_data)
        for seed, name in enumerate((writer, reader))
    )
    one.save_weights(tmp_path / "checkpoint.weights.h5")
    other.load_weights(tmp_path / "checkpoint.weights.h5")
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_finished_encoder_has_only_layers_of_keras(make_settings, small_data):
    settings = make_settings("encoder.signal.convolution=fourier")
    trainer = trainer_of(settings, small_data)
    trained = trainer.encoder.get_layer("signal_encoder").layers
    assert any(isinstance(layer, Conv1D) for layer in trained)
    finished = float32_encoder(settings, small_data, trainer.encoder)
    for layer in finished._flatten_layers():
        assert type(layer).__module__.startswith("keras."), sys.modules[type(layer).__module__]
