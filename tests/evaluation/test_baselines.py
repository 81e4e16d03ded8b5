import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from threadpoolctl import threadpool_limits

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.errors import InputError
from tfmmcl.evaluation import baselines
from tfmmcl.evaluation.baselines import STRENGTHS, one_hot_groups

pytestmark = pytest.mark.filterwarnings("error")

BINARY = Task(name="death")
CLASSES = Task(name="outcome", kind="multiclass", classes=("home", "ward", "dead"))
NUMBER = Task(name="mpap", kind="regression", unit="mmHg")
TASKS = (BINARY, CLASSES, NUMBER)
NAMES = ("logistic_regression", "gradient_boosting", "best_static")


def simulate(task, n=300, features=6, missing=0.1, seed=0):
    """Rows of different scales, some values missing, and labels that depend on the first two columns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features))
    score = 1.5 * x[:, 0] - x[:, 1]
    if task.kind == "regression":
        y = 25 + 8 * score + rng.normal(size=n)
    elif task.kind == "binary":
        y = (rng.random(n) < expit(score)).astype(float)
    else:
        y = np.digitize(score + rng.normal(size=n), [-1, 1]).astype(float)
    x = x * 10.0 ** np.arange(-2, features - 2) + 100
    x[rng.random(x.shape) < missing] = np.nan
    return x.astype(np.float32), y


def fit(name, task, train, validation, seed=0, names=None):
    names = names or [f"static{i}" for i in range(train[0].shape[1])]
    return baselines.fit(name, task, *train, *validation, seed, names)


def standardise(x, train):
    mean, std = np.nanmean(train, axis=0, dtype=float), np.nanstd(train, axis=0, dtype=float)
    return np.nan_to_num((x - mean) / std)


def test_logistic_regression_is_the_one_of_least_validation_loss():
    train, validation, (x, _) = (simulate(BINARY, seed=seed) for seed in range(3))
    losses, predictions = [], []
    for strength in STRENGTHS:
        model = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=10_000)
        model.fit(standardise(train[0], train[0]), train[1])
        losses.append(log_loss(validation[1], model.predict_proba(standardise(validation[0], train[0]))))
        predictions.append(model.predict_proba(standardise(x, train[0]))[:, 1])
    chosen = int(np.argmin(losses))
    assert 0 < chosen < len(STRENGTHS) - 1
    found = fit("logistic_regression", BINARY, train, validation).predict(x)
    np.testing.assert_allclose(found, predictions[chosen], atol=1e-5)


def test_ridge_solves_the_normal_equations():
    train, validation, (x, _) = (simulate(NUMBER, n=60, seed=seed) for seed in range(3))
    a, mean = standardise(train[0], train[0]), train[1].mean()

    def by_hand(strength, rows):
        weights = np.linalg.solve(
            (a - a.mean(0)).T @ (a - a.mean(0)) + strength * np.eye(a.shape[1]), (a - a.mean(0)).T @ (train[1] - mean)
        )
        return mean + (standardise(rows, train[0]) - a.mean(0)) @ weights

    errors = [((by_hand(strength, validation[0]) - validation[1]) ** 2).mean() for strength in STRENGTHS]
    chosen = STRENGTHS[int(np.argmin(errors))]
    found = fit("logistic_regression", NUMBER, train, validation).predict(x)
    np.testing.assert_allclose(found, by_hand(chosen, x), rtol=1e-6)


@threadpool_limits.wrap(limits=1)
def test_trees_are_as_many_as_have_the_least_validation_loss():
    train, validation, (x, _) = (simulate(BINARY, seed=seed) for seed in range(3))
    model = HistGradientBoostingClassifier(
        learning_rate=0.1, max_iter=150, max_leaf_nodes=15, min_samples_leaf=15, early_stopping=False
    ).fit(*train)
    losses = [log_loss(validation[1], stage) for stage in model.staged_predict_proba(validation[0])]
    chosen = int(np.argmin(losses))
    assert 0 < chosen < 149
    expected = [stage[:, 1] for stage in model.staged_predict_proba(x)][chosen]
    np.testing.assert_allclose(fit("gradient_boosting", BINARY, train, validation).predict(x), expected, rtol=1e-9)


def test_trees_learn_from_what_is_missing():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    y = (rng.random(400) < 0.4).astype(float)
    x[y == 1, 1] = np.nan
    model = fit("gradient_boosting", BINARY, (x[:200], y[:200]), (x[200:300], y[200:300]))
    assert roc_auc_score(y[300:], model.predict(x[300:])) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_every_baseline_beats_a_constant_and_is_the_same_again(name, task):
    train, validation, (x, y) = (simulate(task, seed=seed) for seed in range(3))
    found = fit(name, task, train, validation, seed=1).predict(x)
    np.testing.assert_array_equal(found, fit(name, task, train, validation, seed=1).predict(x))
    if task.kind == "multiclass":
        assert found.shape == (len(y), 3)
        np.testing.assert_allclose(found.sum(axis=1), 1)
        assert log_loss(y, found) < 0.95 * log_loss(y, np.tile(np.bincount(y.astype(int)) / len(y), (len(y), 1)))
    else:
        assert found.shape == y.shape
        assert np.mean((found - y) ** 2) < 0.95 * y.var()


def one_hot(categories, size):
    return np.eye(size, dtype=np.float32)[categories]


def test_a_category_in_several_columns_is_one_static_with_the_rates_of_training():
    rng = np.random.default_rng(0)
    alarms = rng.integers(5, size=400)
    # Neither the first nor the last category alone says as much as all of them do.
    y = (rng.random(400) < np.array([0.1, 0.9, 0.2, 0.8, 0.5])[alarms]).astype(float)
    age = rng.normal(60, 10, 400) + 3 * y
    x = np.column_stack([age, one_hot(alarms, 5), rng.integers(2, size=400), rng.normal(size=400)]).astype(np.float32)
    names = ("age", *"abcde", "male", "heart_rate[w1]")
    model = fit("best_static", BINARY, (x, y), (x[:0], y[:0]), names=names)
    assert model.names == tuple("abcde")
    groups = pd.Series(y).groupby(alarms)
    rates = (groups.sum() + y.mean()) / (groups.size() + 1)
    np.testing.assert_allclose(model.predict(x), rates.loc[alarms])
    # No category, two of them, or an unknown one: the rate of all.
    odd = np.repeat(x[:1], 3, axis=0)
    odd[0, 1:6], odd[1, 1:6], odd[2, 1:6] = 0, [1, 1, 0, 0, 0], np.nan
    np.testing.assert_allclose(model.predict(odd), y.mean())


def test_a_flag_is_predicted_by_its_two_rates():
    """A logistic regression on one flag is saturated: without a penalty it gives the rates themselves."""
    rng = np.random.default_rng(0)
    flag = rng.integers(2, size=500).astype(np.float32)
    y = (rng.random(500) < np.where(flag == 1, 0.2, 0.7)).astype(float)
    x = np.column_stack([rng.normal(size=500), flag, rng.normal(size=500)]).astype(np.float32)
    model = fit("best_static", BINARY, (x, y), (x[:0], y[:0]), names=("age", "male", "weight"))
    assert model.names == ("male",)
    expected = np.where(flag == 1, y[flag == 1].mean(), y[flag == 0].mean())
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-5)


def test_a_static_that_lowers_the_risk_ranks_as_well_as_one_that_raises_it():
    (x, y), (test_x, test_y) = (simulate(BINARY, missing=0, seed=seed) for seed in range(2))
    auroc = [
        roc_auc_score(test_y, fit("best_static", BINARY, (sign * x[:, :1], y), (x[:0, :1], y[:0])).predict(sign * rows))
        for sign, rows in ((1, test_x[:, :1]), (-1, test_x[:, :1]))
    ]
    assert auroc[0] == pytest.approx(auroc[1])
    assert auroc[0] > 0.7


def test_for_regression_it_is_the_line_of_least_squares():
    (x, y) = simulate(NUMBER, missing=0)
    model = fit("best_static", NUMBER, (x, y), (x[:0], y[:0]))
    assert model.columns == (0,)
    expected = np.polyval(np.polyfit(x[:, 0].astype(float), y, 1), x[:, 0])
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-3)


def test_windows_are_no_statics():
    x, y = simulate(BINARY)
    names = ("heart_rate[w1]", "mpap[w2]", "age", "x[w1]", "x[w2]", "x[w3]")
    assert fit("best_static", BINARY, (x, y), (x[:0], y[:0]), names=names).names == ("age",)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.just(0), st.integers(2, 5)), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_one_hot_groups_are_found_between_numbers(sizes, seed, missing):
    """A size of 0 is a number's column."""
    rng = np.random.default_rng(seed)
    columns, expected = [], []
    for size in sizes:
        start = sum(block.shape[1] for block in columns)
        if size:
            # Every category occurs, and so does each position in the column order.
            block = one_hot(rng.permutation(np.arange(20) % size), size)
            expected.append(tuple(range(start, start + size)))
        else:
            block = rng.normal(size=(20, 1)).astype(np.float32)
            expected.append((start,))
        if missing:
            block[rng.random(20) < 0.2] = np.nan
            block[0] = np.nan
        columns.append(block)
    x = np.concatenate(columns, axis=1)
    seen = all((np.nan_to_num(x[:, group]) != 0).any(axis=0).all() for group in expected)
    if seen:
        assert one_hot_groups(x, range(x.shape[1])) == expected


@pytest.mark.parametrize(
    "x",
    [
        [[1, 0], [0, 1], [1, 1]],
        [[1, 0], [0, 1], [0, 0]],
        [[1, 0], [1, 0]],
        [[1, 0], [0, 1], [1, np.nan]],
        [[0.5, 0.5], [0, 1]],
        [[2, -1], [1, 0]],
        [[np.nan, np.nan]],
    ],
)
def test_columns_that_are_no_category_stay_apart(x):
    assert one_hot_groups(np.array(x), [0, 1]) == [(0,), (1,)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
@pytest.mark.parametrize("rows", [1, 4])
def test_equal_training_labels_are_predicted_without_a_word(name, task, rows):
    x, y = simulate(task)
    found = fit(name, task, (x[:rows], np.ones(rows)), (x, y)).predict(x)
    assert found.shape == ((len(x), 3) if task.kind == "multiclass" else (len(x),))
    np.testing.assert_array_equal(found, np.tile([0, 1, 0], (len(x), 1)) if task.kind == "multiclass" else 1)


@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.parametrize("labels", ["none", "few", "equal"])
def test_where_validation_cannot_choose_it_has_no_say(name, labels):
    train, (x, y) = simulate(BINARY), simulate(BINARY, seed=1)
    rows = {"none": np.zeros(len(y), bool), "few": np.arange(len(y)) < 9, "equal": y == 1}[labels]
    found = fit(name, BINARY, train, (x[rows], y[rows])).predict(x)
    if labels == "few":
        # The same with every label turned round.
        np.testing.assert_array_equal(found, fit(name, BINARY, train, (x[rows], 1 - y[rows])).predict(x))
    assert roc_auc_score(y, found) > 0.75


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(NAMES), st.sampled_from(TASKS), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_odd_data_give_sound_predictions_without_a_warning(name, task, rows, seed):
    """Columns that are constant, empty, equal or huge, classes that are absent, and fewer rows than columns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows + 40, 8)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:, 1], x[:, 2], x[:, 3] = 7, np.nan, x[:, 0]
    x[:, 4] *= 1e6
    x[:rows, 5] = np.nan  # observed after training only
    y = rng.normal(size=len(x)) if task.kind == "regression" else rng.choice(task.values, len(x)).astype(float)
    found = fit(name, task, (x[:rows], y[:rows]), (x[rows : rows + 20], y[rows : rows + 20])).predict(x)
    assert np.isfinite(found).all()
    if task.kind != "regression":
        assert (found >= 0).all()
        assert (found <= 1).all()


@pytest.mark.parametrize(
    ("task", "labels", "says"),
    [
        (BINARY, [0, 1, np.nan], "found the label nan; expected 0, 1 only"),
        (BINARY, [0, 1, 2], "found the label 2; expected 0, 1 only"),
        (CLASSES, [0, 1, 3], "found the label 3; expected 0, 1, 2 only"),
        (NUMBER, [0, 1, np.inf], "found the label inf; expected finite numbers only"),
        (BINARY, [0, 1], r"labels of shape \(2,\); expected \(3,\)"),
    ],
)
def test_what_no_baseline_can_learn_from_is_refused(task, labels, says):
    x = np.zeros((3, 1))
    for train, validation in ((labels, [0, 1, 1]), ([0, 1, 1], labels)):
        with pytest.raises(InputError, match=says):
            fit("logistic_regression", task, (x, train), (x, validation))
    with pytest.raises(InputError, match="no training label"):
        fit("logistic_regression", task, (x[:0], []), (x, [0, 1, 1]))
