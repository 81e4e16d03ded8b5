import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmmcl.pipeline.batches import Batches
from tfmmcl.training.pretrain import build_pretrainer
from tfmmcl.training.watching.norms import Norms
from tfmmcl.training.watching.speed import Throughput, TimedInput

RATE = 0.01


def norm(arrays):
    return np.sqrt(sum(np.sum(np.square(array, dtype=np.float64)) for array in arrays))


def weights_of(trainer):
    return [variable.numpy() for variable in trainer.trainable_variables]


class Weights(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_begin(self, batch, logs=None):
        self.found.append(weights_of(self.model))

    def on_train_end(self, logs=None):
        self.found.append(weights_of(self.model))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_norms_are_those_of_what_moved(make_settings, small_data, accumulate):
    """Under plain gradient descent an update is the gradient times the rate."""
    settings = make_settings(f"training.accumulate={accumulate}", "training.epochs=1")
    keras.utils.set_random_seed(0)
    trainer = build_pretrainer(settings, small_data)
    trainer.compile(optimizer=keras.optimizers.SGD(RATE))
    weights = Weights()
    logs = trainer.fit(
        Batches(small_data, settings).training(),
        steps_per_epoch=4,
        verbose=0,
        shuffle=False,
        callbacks=[weights, Norms(4, 0, 0), keep := Kept()],
    )
    assert logs.history["loss"]
    moved = [
        norm([new - old for new, old in zip(after, before)]) for before, after in zip(weights.found, weights.found[1:])
    ]
    updates = moved[accumulate - 1 :: accumulate]
    assert keep.logs["gradient_norm"] == pytest.approx(np.mean(updates) / RATE, rel=1e-3)
    assert keep.logs["parameter_norm"] == pytest.approx(norm(weights.found[-1]), rel=1e-5)
    last = norm([new - old for new, old in zip(weights.found[-1], weights.found[-1 - accumulate])])
    assert keep.logs["update_norm"] == pytest.approx(last, rel=1e-3)
    assert keep.steps[-1]["update_norm"] == keep.logs["update_norm"]  # for a run that stops right there


class Kept(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs):
        self.steps.append(dict(logs))

    def on_epoch_end(self, epoch, logs):
        self.logs = dict(logs)


@pytest.mark.parametrize("scale", [2.0**10, 3e38])
def test_in_half_precision_the_gradient_norm_is_unscaled_and_leaves_out_overflows(make_settings, small_data, scale):
    settings = make_settings("training.precision=mixed_float16", "training.epochs=1")
    keras.utils.set_random_seed(0)
    trainer = build_pretrainer(settings, small_data)
    trainer.optimizer.dynamic_scale.assign(scale)
    batch = next(iter(Batches(small_data, settings).training()))
    with tf.GradientTape() as tape:
        loss = trainer._evaluate(batch, training=True)["loss"] * 1024
    expected = norm([gradient.numpy() / 1024 for gradient in tape.gradient(loss, trainer.trainable_variables)])
    trainer.make_train_function()
    found = float(trainer.train_function(iter([batch]))["gradient_norm"])
    assert found == pytest.approx(expected, rel=0.05) if scale < 1e30 else found == 0


def test_the_wait_for_input_is_measured_and_nothing_else_is(make_settings, small_data):
    settings = make_settings("training.epochs=1")
    trainer = build_pretrainer(settings, small_data)
    batch = next(iter(Batches(small_data, settings).training()))
    ready = tf.data.Dataset.from_tensors(batch).repeat(6)
    slow = ready.map(lambda *views: (tf.numpy_function(lambda: time.sleep(0.1), (), ()), views)[1])
    found = {}
    for name, data in (("ready", ready), ("slow", slow)):
        keep = Kept()
        callbacks = [Throughput(8, trainer.waiting), keep]
        trainer.fit(data, steps_per_epoch=6, callbacks=callbacks, verbose=0, shuffle=False)
        found[name] = keep.logs
    assert found["ready"]["input_wait_ms"] < 30
    assert 80 < found["slow"]["input_wait_ms"] < 200
    assert found["ready"]["input_wait_share"] < found["slow"]["input_wait_share"] <= 1


def test_timed_input_ends_where_its_batches_do():
    batches = TimedInput().of(iter([1, 2]))
    assert list(batches) == [1, 2]
