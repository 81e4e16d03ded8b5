import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmmcl.models.encoder import build_encoder, portable
from tfmmcl.models.recomputed import Recomputed
from tfmmcl.settings import EncoderSettings, SignalEncoderSettings

SIGNAL = SignalEncoderSettings(stem_filters=4, stage_filters=(4, 8, 8), blocks_per_stage=2, kernel_size=5, units=6)
INPUTS = {
    name: tf.random.stateless_normal(shape, (0, 1))
    for name, shape in {"signals": (5, 3, 64, 2), "structured": (5, 3, 4), "statics": (5, 2)}.items()
}


def encoder(recompute):
    keras.utils.set_random_seed(0)
    signal = SIGNAL.model_copy(update={"recompute": recompute})
    settings = EncoderSettings(signal=signal, structured_units=(5,), statics_units=(3,), recurrent_units=7)
    return build_encoder(3, 4, 2, 64, 2, settings)


@pytest.mark.parametrize(
    "compiled", [pytest.param(False, id="plain"), pytest.param(True, id="xla", marks=pytest.mark.slow)]
)
def test_loss_gradients_and_running_statistics_are_the_same(compiled):
    results = []
    for recompute in (False, True):
        model = encoder(recompute)

        @tf.function(jit_compile=compiled)
        def step(model=model):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(INPUTS, training=True) ** 2)
            return loss, tape.gradient(loss, model.trainable_variables)

        step()
        loss, gradients = step()
        results.append([loss, *gradients, *model.get_weights()])
    for plain, recomputed in zip(*results):
        np.testing.assert_allclose(recomputed, plain, rtol=0, atol=1e-6)


def test_weights_are_in_the_same_order_and_the_finished_encoder_has_none_of_it():
    plain, recomputed = encoder(False), encoder(True)
    assert [weight.path.split("/")[-2:] for weight in recomputed.weights] == [
        weight.path.split("/")[-2:] for weight in plain.weights
    ]
    settings = EncoderSettings(signal=SIGNAL.model_copy(update={"recompute": True}))
    assert portable(settings).signal == SIGNAL.model_copy(update={"convolution": "direct"})


def test_it_computes_again_in_training_only():
    calls = []
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(3, activation=lambda x: calls.append(1) or keras.ops.tanh(x))
    layer = Recomputed(keras.Model(inputs, dense(inputs)))
    x = tf.ones((2, 4))
    for training, expected in ((False, 1), (True, 2)):
        calls.clear()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=training))
        assert tape.gradient(loss, layer.trainable_variables)[0] is not None
        assert len(calls) == expected


def test_it_is_saved_and_loaded(tmp_path):
    model = encoder(True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(INPUTS), model(INPUTS))
