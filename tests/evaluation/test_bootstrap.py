import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest, norm
from sklearn import metrics

from tfmmcl.errors import InputError
from tfmmcl.evaluation import bootstrap
from tfmmcl.evaluation.bootstrap import METRICS, Interval, difference, interval

pytestmark = pytest.mark.filterwarnings("error")

REFERENCES = {
    "auroc": metrics.roc_auc_score,
    "auprc": metrics.average_precision_score,
    "brier": metrics.brier_score_loss,
    "mae": metrics.mean_absolute_error,
    "r2": metrics.r2_score,
}
DISTANCE = 1.0
TRUE_AUROC = norm.cdf(DISTANCE / np.sqrt(2))


def simulate(patients, each, seed, shared=0.0, arms=1):
    """Binormal scores of patients who are ill or not: AUROC is `TRUE_AUROC`, whatever trajectories share.

    Args:
        patients: How many.
        each: Trajectories per patient.
        seed: Of everything.
        shared: Part of the noise's variance that is the patient's own, between 0 and 1.
        arms: So many scores, each with noise of its own.

    Returns:
        Labels `(n,)`, probabilities `(arms, n)` and patients `(n,)`.
    """
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(patients), each)
    ill = np.arange(patients) % 2
    own, noise = rng.normal(size=(arms, patients)), rng.normal(size=(arms, ids.size))
    scores = DISTANCE * ill[ids] + np.sqrt(shared) * own[:, ids] + np.sqrt(1 - shared) * noise
    return ill[ids], norm.cdf(scores), ids


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(2, 60), st.sampled_from([2, 8, 10**6]))
def test_weighted_metrics_equal_scikit_learns(seed, n, levels):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.append([0.0, 1.0], rng.integers(0, 2, n - 2)))
    predictions = rng.integers(0, levels + 1, n) / levels
    weights = rng.integers(0, 3, (n, 4))
    weights[[labels.argmin(), labels.argmax()]] += 1
    assert METRICS.keys() == REFERENCES.keys()
    for name, function in METRICS.items():
        expected = [REFERENCES[name](labels, predictions, sample_weight=column) for column in weights.T]
        np.testing.assert_allclose(function(labels, predictions, weights), expected, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", ["auroc", "auprc", "r2"])
def test_a_resample_with_one_class_has_no_value(name):
    labels, predictions = np.array([0.0, 0.0, 1.0]), np.array([0.1, 0.3, 0.2])
    found = METRICS[name](labels, predictions, np.array([[1, 1, 0], [1, 0, 0], [1, 0, 2]]))
    assert np.isnan(found).tolist() == [False, True, True]


def test_r2_of_equal_labels_is_nan_whatever_rounding_leaves_of_their_spread():
    labels = np.array([0.1] * 7 + [0.7])
    weights = np.array([[1] * 7 + [0], [3, 0, 2, 2, 1, 1, 1, 0], [0] * 7 + [5]]).T
    assert np.isnan(METRICS["r2"](labels, np.linspace(0, 1, 8), weights)).all()


def test_r2_keeps_its_digits_beside_a_large_mean():
    rng = np.random.default_rng(0)
    labels = 1e7 + rng.normal(size=50)
    predictions = labels + 0.1 * rng.normal(size=50)
    weights = rng.integers(1, 4, (50, 1))
    expected = metrics.r2_score(labels, predictions, sample_weight=weights[:, 0])
    assert METRICS["r2"](labels, predictions, weights)[0] == pytest.approx(expected, rel=1e-7)


def beaten_pairs(labels, predictions):
    """The AUROC by its definition, over all pairs of a positive and a negative."""
    gaps = predictions[labels == 1][:, None] - predictions[labels == 0]
    return np.mean((gaps > 0) + 0.5 * (gaps == 0))


def resample_by_hand(score, labels, predictions, patients, resamples, seed):
    """The definition: draw patients, gather the trajectories of each, compute; one seed after the other."""
    rng = np.random.default_rng(seed)
    names = np.unique(patients)
    rows = {name: np.flatnonzero(patients == name) for name in names}
    values = []
    while len(values) < resamples:
        chosen = np.concatenate([rows[name] for name in rng.choice(names, names.size)])
        if np.unique(labels[chosen]).size == 2:
            values.append(np.median([score(labels[chosen], row[chosen]) for row in predictions]))
    return np.array(values)


def test_interval_is_what_resampling_by_the_definition_gives():
    rng = np.random.default_rng(0)
    labels, predictions, patients = rng.integers(0, 2, 60), rng.random((3, 60)), rng.integers(0, 15, 60)
    names = np.array([f"p{patient}" for patient in patients])
    for name, score in (("auroc", beaten_pairs), ("brier", lambda labels, row: np.mean((labels - row) ** 2))):
        found = interval(name, labels, predictions, names, resamples=8000)
        values = resample_by_hand(score, labels, predictions, patients, 1000, seed=1)
        assert found.estimate == pytest.approx(np.median([score(labels, row) for row in predictions]))
        # Ends of a 95 % interval from 1,000 resamples err by about a tenth of the standard deviation.
        expected = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose([found.low, found.high], expected, atol=0.3 * values.std(), err_msg=name)


def coverage(clusters, simulations=200, level=0.95):
    """How often the interval holds the true AUROC where trajectories of a patient share 80 % of their variance."""
    held = 0
    for seed in range(simulations):
        labels, scores, patients = simulate(60, 5, seed, shared=0.8)
        groups = patients if clusters else np.arange(patients.size)
        found = interval("auroc", labels, scores, groups, resamples=300, level=level, seed=seed)
        held += found.low <= TRUE_AUROC <= found.high
    return held / simulations


def test_intervals_cover_the_truth_as_often_as_they_say():
    assert 0.91 <= coverage(clusters=True) <= 0.98
    assert 0.75 <= coverage(clusters=True, level=0.8) <= 0.85


def test_resampling_trajectories_instead_of_patients_would_not_cover():
    assert coverage(clusters=False) < 0.75


def test_difference_rejects_equal_arms_as_often_as_it_says():
    """Two arms with noises of their own: as good as each other, and different on every patient."""
    p_values = []
    for seed in range(300):
        labels, (first, second), patients = simulate(80, 3, seed, shared=0.5, arms=2)
        found = difference("auroc", labels, first, second, patients, resamples=300, seed=seed)
        p_values.append(found.p_value)
        assert found.low <= found.estimate <= found.high
    rejected = sum(p < 0.05 for p in p_values)
    assert binomtest(rejected, 300, 0.05).pvalue > 0.01, rejected / 300
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_difference_sees_the_better_arm():
    labels, (first, second), patients = simulate(200, 3, seed=0, shared=0.5, arms=2)
    better = np.where(labels == 1, first**0.5, first**2)
    found = difference("auroc", labels, better, second, patients)
    assert found.p_value == pytest.approx(2 / 2001)  # the smallest there can be
    assert 0 < found.low < found.estimate < found.high
    assert found.estimate == pytest.approx(
        metrics.roc_auc_score(labels, better) - metrics.roc_auc_score(labels, second)
    )
    turned = difference("auroc", labels, second, better, patients)
    np.testing.assert_allclose([turned.estimate, turned.low, turned.high], [-found.estimate, -found.high, -found.low])
    assert turned.p_value == found.p_value


def test_p_value_agrees_with_the_interval():
    """Zero lies outside the interval of level 1 - p, made a little narrower, and inside it made a little wider."""
    labels, (first, second), patients = simulate(60, 3, seed=0, shared=0.5, arms=2)
    p = difference("auroc", labels, first, second, patients).p_value
    assert 0.01 < p < 0.5
    narrow, wide = (difference("auroc", labels, first, second, patients, level=1 - p + by) for by in (-0.01, 0.01))
    assert not narrow.low <= 0 <= narrow.high
    assert wide.low <= 0 <= wide.high


def test_pairing_makes_the_difference_sharper():
    labels, (scores,), patients = simulate(100, 3, seed=0, shared=0.5)
    nearly = np.clip(scores + 0.01 * np.random.default_rng(0).normal(size=scores.size), 0, 1)
    paired = difference("auroc", labels, nearly, scores, patients)
    alone = interval("auroc", labels, scores, patients)
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


def test_an_arm_does_not_differ_from_itself():
    labels, scores, patients = simulate(20, 3, seed=0, arms=5)
    found = difference("auprc", labels, scores, scores, patients)
    assert (found.estimate, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_arms_may_have_different_numbers_of_seeds():
    labels, scores, patients = simulate(20, 3, seed=0, arms=5)
    found = difference("auroc", labels, scores, scores[0], patients)
    each = [metrics.roc_auc_score(labels, row) for row in scores]
    assert found.estimate == pytest.approx(np.median(each) - each[0])


def test_the_seed_decides():
    labels, scores, patients = simulate(30, 3, seed=0)
    first, again, other = (interval("auroc", labels, scores, patients, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    pair = [difference("brier", labels, scores, scores**2, patients, seed=seed) for seed in (1, 1, 2)]
    assert pair[0] == pair[1] != pair[2]


def test_many_trajectories_are_resampled_in_blocks(monkeypatch):
    labels, scores, patients = simulate(30, 3, seed=0, arms=2)
    whole = interval("auroc", labels, scores, patients)
    monkeypatch.setattr(bootstrap, "WEIGHTS_AT_ONCE", 1000)
    assert interval("auroc", labels, scores, patients) == whole


def test_resamples_with_one_class_are_drawn_again():
    """One patient of thirty has the event: more than a third of all draws miss the patient."""
    labels = np.repeat(np.arange(30) == 0, 2).astype(int)
    found = interval("auroc", labels, np.linspace(1, 0, 60), np.repeat(np.arange(30), 2))
    assert found == Interval(1, 1, 1)
    scores = np.random.default_rng(0).random(60)
    found = interval("auroc", labels, scores, np.repeat(np.arange(30), 2))
    assert 0 <= found.low < found.estimate < found.high <= 1


def test_draws_that_fail_every_time_end_in_nan(monkeypatch):
    monkeypatch.setattr(bootstrap, "ROUNDS", 1)
    labels = np.arange(30) == 0
    found = interval("auroc", labels, np.linspace(0, 1, 30), np.arange(30))
    assert found.estimate == 0
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize(
    ("labels", "patients", "estimate"), [([1, 1, 1], [0, 1, 2], np.nan), ([], [], np.nan), ([0, 1, 1], [4, 4, 4], 1)]
)
def test_what_cannot_be_resampled_has_no_interval(labels, patients, estimate):
    """One class, nothing at all, and one patient."""
    scores = np.linspace(0, 1, len(labels))
    found = interval("auroc", labels, scores, patients)
    assert found.estimate == pytest.approx(estimate, nan_ok=True)
    pair = difference("auroc", labels, scores, scores, patients)
    assert np.isnan([found.low, found.high, pair.low, pair.high, pair.p_value]).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("auroc", [0, 1, np.nan], [0.1, 0.2, 0.3], [0, 1, 2]), "labels: 1 of 3"),
        (("auroc", [0, 1], [[0.1, 0.2], [0.1, np.nan]], [0, 1]), "predictions: 1 of 2"),
        (("brier", [0, 3], [0.1, 0.2], [0, 1]), "found 3"),
        (("mae", [0, 3], [0.1, 0.2], [0, 1, 2]), r"patients have shape \(3,\); expected \(2,\)"),
        (("auroc", [0, 1], [[0.1, 0.2, 0.3]], [0, 1]), "shape"),
        (("auruc", [0, 1], [0.1, 0.2], [0, 1]), "'auruc' is unknown.*did you mean 'auroc'"),
    ],
)
def test_what_cannot_be_read_is_refused(arguments, says):
    with pytest.raises(InputError, match=says):
        interval(*arguments)
