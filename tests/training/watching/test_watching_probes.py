import numpy as np
import pytest

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.training.watching.probes import effective_rank, probe

BINARY = Task(name="sick")


@pytest.mark.parametrize("kept", [1, 3, 8])
def test_effective_rank_counts_equal_directions(kept):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    assert effective_rank(5 * rotation[:, :kept] @ rotation[:kept]) == pytest.approx(kept)


def test_effective_rank_is_the_exponential_of_the_entropy():
    # Roy and Vetterli 2007: singular values 3 and 1 are the parts 3/4 and 1/4.
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_embeddings_of_one_point_have_rank_one(value):
    assert effective_rank(np.full((20, 6), value)) == pytest.approx(1)


def embeddings(seed, signal):
    chance = np.random.default_rng(seed)
    labels = (chance.random(200) < 0.3).astype(float)
    x = chance.normal(size=(200, 16))
    x[:, 0] += signal * labels
    return x, labels


@pytest.mark.parametrize(("signal", "low", "high"), [(0, 0.3, 0.7), (3, 0.9, 1.0)])
def test_probes_find_what_is_there_and_nothing_else(signal, low, high):
    found = probe(BINARY, *embeddings(1, signal), *embeddings(2, signal))
    assert set(found) == {"linear_probe_auroc", "knn_auroc"}
    assert low < found["linear_probe_auroc"] < high
    assert low - 0.2 < found["knn_auroc"] <= high


def test_nearest_neighbours_by_hand():
    (train_x, train_y), (x, y) = embeddings(1, 2), embeddings(2, 2)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (train_x, x)]
    score = train_y[np.argsort(-(unit[1] @ unit[0].T), axis=1)[:, :10]].mean(axis=1)
    pairs = score[y == 1][:, None] - score[y == 0]
    assert probe(BINARY, train_x, train_y, x, y)["knn_auroc"] == pytest.approx(
        np.mean((pairs > 0) + 0.5 * (pairs == 0))
    )


def test_other_kinds_of_tasks():
    chance = np.random.default_rng(0)
    x = chance.normal(size=(300, 8))
    three = Task(name="rhythm", kind="multiclass", classes=("a", "b", "c"))
    classes = np.argmax(x[:, :3], axis=1).astype(float)
    assert probe(three, x[:150], classes[:150], x[150:], classes[150:])["linear_probe_auroc"] > 0.9
    number = Task(name="pressure", kind="regression", unit="mmHg")
    pressure = 30 + 5 * x[:, 0]
    assert probe(number, x[:150], pressure[:150], x[150:], pressure[150:])["linear_probe_r2"] > 0.9


def test_labels_that_are_all_alike_are_not_probed():
    x, y = embeddings(0, 1)
    assert probe(BINARY, x, np.zeros(200), x, y) == {}
    assert probe(BINARY, x, y, x, np.ones(200)) == {}
