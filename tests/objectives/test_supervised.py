import keras
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.objectives.supervised import supervised_losses

BINARY = Task(name="b")
CLASSES = Task(name="m", kind="multiclass", classes=("x", "y", "z", "w"))
NUMBER = Task(name="r", kind="regression")


def mean_loss(task, outputs, labels):
    return float(np.mean(supervised_losses(task, keras.ops.convert_to_tensor(outputs), labels.astype(np.float32))))


@pytest.mark.parametrize("crops", [1, 3])
def test_it_is_the_log_loss_of_the_mean_probability(crops):
    rng = np.random.default_rng(0)
    outputs = rng.normal(0, 3, (50, crops, 1)).astype(np.float32)
    labels = rng.integers(0, 2, 50)
    assert mean_loss(BINARY, outputs, labels) == pytest.approx(log_loss(labels, expit(outputs).mean(axis=(1, 2))), 1e-4)
    outputs, labels = rng.normal(0, 3, (50, crops, 4)).astype(np.float32), rng.integers(0, 4, 50)
    expected = log_loss(labels, softmax(outputs, axis=-1).mean(axis=1), labels=range(4))
    assert mean_loss(CLASSES, outputs, labels) == pytest.approx(expected, 1e-4)


def test_regression_is_the_squared_error_of_the_mean():
    outputs = np.array([[[1.0], [3.0]], [[0.0], [-1.0]]], np.float32)
    losses = supervised_losses(NUMBER, keras.ops.convert_to_tensor(outputs), np.array([2.5, -0.5], np.float32))
    np.testing.assert_allclose(losses, [0.25, 0])


@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("crops", [1, 2])
def test_enormous_logits_stay_finite(logit, crops):
    outputs = keras.ops.full((2, crops, 1), logit)
    losses = np.array(supervised_losses(BINARY, outputs, np.array([0, 1], np.float32)))
    np.testing.assert_allclose(losses, [0, 1e4] if logit < 0 else [1e4, 0])


def test_half_precision_outputs_give_a_float32_loss():
    for task, size in ((BINARY, 1), (CLASSES, 4), (NUMBER, 1)):
        outputs = keras.ops.ones((3, 2, size), "float16")
        losses = supervised_losses(task, outputs, np.zeros(3, np.float32))
        assert keras.backend.standardize_dtype(losses.dtype) == "float32"
