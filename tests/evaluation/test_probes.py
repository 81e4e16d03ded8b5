import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.neural_network import MLPClassifier

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.evaluation import baselines, probes

pytestmark = pytest.mark.filterwarnings("error")

BINARY = Task(name="death")
CLASSES = Task(name="outcome", kind="multiclass", classes=("home", "ward", "dead"))
NUMBER = Task(name="mpap", kind="regression", unit="mmHg")
TASKS = (BINARY, CLASSES, NUMBER)
NAMES = ("linear", "mlp", "knn")


def simulate(task, n=200, units=8, seed=0):
    """Embeddings of unequal lengths whose direction tells the label."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, units)) + 0.5
    score = x[:, 0] - x[:, 1]
    if task.kind == "regression":
        y = 25 + 8 * score + rng.normal(size=n)
    else:
        y = np.digitize(score + rng.normal(size=n), [0] if task.kind == "binary" else [-1, 1]).astype(float)
    return (x * rng.uniform(0.1, 10, (n, 1)) if task.kind != "regression" else x).astype(np.float32), y


def fit(name, task, train, validation, seed=0):
    return probes.fit(name, task, *train, *validation, seed)


def nearest_by_hand(train, x, k):
    """Mean label of the k nearest and of the training mean, one row at a time."""
    found = []
    for row in x.astype(float):
        similarity = [row @ other / (np.linalg.norm(row) * np.linalg.norm(other)) for other in train[0].astype(float)]
        nearest = np.argsort(similarity)[-k:]
        found.append((train[1][nearest].sum() + train[1].mean()) / (k + 1))
    return np.array(found)


@pytest.mark.parametrize("task", [BINARY, NUMBER], ids=lambda task: task.kind)
def test_nearest_neighbours_equal_brute_force(task):
    train, validation, (x, _) = (simulate(task, n=n, seed=seed) for seed, n in enumerate((120, 60, 20)))
    possible = (50, 20, 10, 5, 3)
    found = [nearest_by_hand(train, validation[0], k) for k in possible]
    if task.kind == "binary":
        losses = [log_loss(validation[1], prediction) for prediction in found]
    else:
        losses = [((prediction - validation[1]) ** 2).mean() for prediction in found]
    model = fit("knn", task, train, validation)
    assert model.k == possible[int(np.argmin(losses))]
    np.testing.assert_allclose(model.predict(x), nearest_by_hand(train, x, model.k), rtol=1e-6)


def test_neighbours_of_several_classes_are_counted_class_by_class():
    train, validation, (x, _) = (simulate(CLASSES, seed=seed) for seed in range(3))
    model = fit("knn", CLASSES, train, validation)
    for label in range(3):
        expected = nearest_by_hand((train[0], (train[1] == label).astype(float)), x, model.k)
        np.testing.assert_allclose(model.predict(x)[:, label], expected, rtol=1e-6)


def test_neighbours_are_told_by_direction_alone():
    train, validation, (x, _) = (simulate(BINARY, seed=seed) for seed in range(3))
    expected = fit("knn", BINARY, train, validation).predict(x)
    longer = (4 * train[0], train[1])
    np.testing.assert_allclose(fit("knn", BINARY, longer, validation).predict(x / 2), expected)


def test_the_mlp_is_that_of_its_best_epoch():
    train, validation, (x, _) = (simulate(BINARY, n=n, seed=n) for n in (450, 150, 50))
    mean, std = train[0].mean(0, dtype=float), train[0].std(0, dtype=float)
    a, b, c = ((rows - mean) / std for rows in (train[0], validation[0], x))
    network = MLPClassifier((128,), random_state=np.random.RandomState(5))
    losses, predictions = [], []
    while len(losses) < 21 or min(losses[-20:]) < min(losses[:-20]):
        network.partial_fit(a, train[1], classes=[0, 1])
        losses.append(log_loss(validation[1], network.predict_proba(b)))
        predictions.append(network.predict_proba(c)[:, 1])
    best = int(np.argmin(losses))
    assert 0 < best < len(losses) - 1
    found = fit("mlp", BINARY, train, validation, seed=5).predict(x)
    np.testing.assert_allclose(found, predictions[best], atol=1e-4)
    assert np.abs(predictions[-1] - found).max() > 0.01


def test_only_the_mlp_depends_on_the_seed():
    train, validation, (x, _) = (simulate(BINARY, seed=seed) for seed in range(3))
    for name in NAMES:
        zero, again, one = (fit(name, BINARY, train, validation, seed).predict(x) for seed in (0, 0, 1))
        np.testing.assert_array_equal(zero, again)
        assert (zero != one).any() == (name == "mlp")


def test_the_mlp_learns_what_no_line_can_tell():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(float)
    train, validation, test = ((x[part], y[part]) for part in (slice(300), slice(300, 450), slice(450, 600)))
    auroc = {name: roc_auc_score(test[1], fit(name, BINARY, train, validation).predict(test[0])) for name in NAMES}
    assert auroc["mlp"] > 0.95
    assert auroc["linear"] < 0.65


def test_the_labels_unit_makes_no_difference_to_the_mlp():
    train, validation, (x, y) = (simulate(NUMBER, seed=seed) for seed in range(3))
    found = fit("mlp", NUMBER, train, validation).predict(x)
    assert np.mean((found - y) ** 2) < 0.2 * y.var()
    other = fit("mlp", NUMBER, (train[0], 133.3 * train[1] - 50), (validation[0], 133.3 * validation[1] - 50))
    np.testing.assert_allclose(other.predict(x), 133.3 * found - 50, rtol=1e-2)


def test_the_linear_probe_is_the_linear_baseline():
    train, validation, (x, _) = (simulate(BINARY, seed=seed) for seed in range(3))
    expected = baselines.fit("logistic_regression", BINARY, *train, *validation, 0, [""] * 8).predict(x)
    np.testing.assert_array_equal(fit("linear", BINARY, train, validation).predict(x), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_every_probe_reads_every_kind_of_task(name, task):
    train, validation, (x, y) = (simulate(task, seed=seed) for seed in range(3))
    found = fit(name, task, train, validation).predict(x)
    if task.kind == "multiclass":
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
        assert -np.log(found[np.arange(len(y)), y.astype(int)]).mean() < 0.95 * np.log(3)
    else:
        assert found.shape == y.shape
        assert np.mean((found - y) ** 2) < 0.9 * y.var()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_equal_training_labels_are_predicted_without_a_word(name, task):
    x, y = simulate(task)
    found = fit(name, task, (x[:3], np.ones(3)), (x, y)).predict(x)
    np.testing.assert_array_equal(found, np.tile([0, 1, 0], (len(x), 1)) if task.kind == "multiclass" else 1)


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(NAMES), st.sampled_from(TASKS), st.integers(1, 25), st.sampled_from([0, 1, 20]), st.integers(0, 99)
)
def test_few_labels_give_sound_predictions_without_a_warning(name, task, rows, known, seed):
    x, y = simulate(task, n=rows + 20, seed=seed)
    x[:, 2] = 0  # a unit that is dead
    found = fit(name, task, (x[:rows], y[:rows]), (x[rows : rows + known], y[rows : rows + known])).predict(x)
    assert np.isfinite(found).all()
    if task.kind != "regression":
        assert (found >= 0).all()
        assert (found <= 1).all()


def test_no_rows_have_no_predictions():
    train, validation = simulate(CLASSES), simulate(CLASSES, seed=1)
    assert fit("knn", CLASSES, train, validation).predict(train[0][:0]).shape == (0, 3)
