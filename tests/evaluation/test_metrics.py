import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm, pearsonr
from sklearn import calibration, metrics

from tfmmcl.errors import InputError
from tfmmcl.evaluation.metrics import (
    FALSE_POSITIVE_RATES,
    RECALLS,
    binary,
    calibration_curve,
    median_and_half_iqr,
    multiclass,
    precision_recall_curve,
    regression,
    roc_curve,
)

pytestmark = pytest.mark.filterwarnings("error")


@st.composite
def predictions_with_ties(draw):
    """Labels of both classes, and probabilities in steps of 1/16, so that many tie."""
    n = draw(st.integers(2, 60))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda labels: len(set(labels)) == 2))
    sixteenths = draw(st.lists(st.integers(0, 16), min_size=n, max_size=n))
    return np.array(labels), np.array(sixteenths) / 16


def simulate(n=4000, seed=0):
    """Well-calibrated probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, n)
    return (rng.random(n) < expit(logits)).astype(float), expit(logits)


@settings(deadline=None, max_examples=60)
@given(predictions_with_ties())
def test_binary_metrics_equal_scikit_learns(data):
    labels, probabilities = data
    found = binary(labels, probabilities)
    assert found["n"] == len(labels)
    assert found["positives"] == sum(labels)
    assert found["prevalence"] == pytest.approx(sum(labels) / len(labels))
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities))
    assert found["auprc"] == pytest.approx(metrics.average_precision_score(labels, probabilities))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(labels, probabilities))


@pytest.mark.parametrize("label", [0, 1])
def test_with_one_class_only_what_is_defined_is_a_number(label):
    found = binary([label] * 4, [0.1, 0.4, 0.4, 0.9])
    undefined = {"auroc", "auprc", "calibration_intercept", "calibration_slope"}
    assert {name for name, value in found.items() if np.isnan(value)} == undefined
    assert found["prevalence"] == label
    assert np.isnan(roc_curve([label] * 2, [0.1, 0.2])).all()
    assert np.isnan(precision_recall_curve([label] * 2, [0.1, 0.2])).all()


def test_no_trajectories_give_nan():
    for found in (binary([], []), multiclass([], np.zeros((0, 3))), regression([], [])):
        counts = {found.pop("n"), found.pop("positives", 0)}
        assert counts == {0}
        assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize(
    ("labels", "probabilities", "says"),
    [
        ([0, np.nan, 1], [0.1, 0.2, 0.3], "labels: 1 of 3"),
        ([0, 1, 1], [0.1, np.inf, np.nan], "predictions: 2 of 3"),
        ([0, 1], [0.1, 0.2, 0.3], "shape"),
        ([0, 2], [0.1, 0.2], "found 2; expected 0 and 1"),
        ([0, 1], [0.1, 1.2], r"found 1\.2; expected 0 to 1"),
    ],
)
def test_what_no_binary_metric_can_read_is_refused(labels, probabilities, says):
    for function in (binary, roc_curve, precision_recall_curve, calibration_curve):
        with pytest.raises(InputError, match=says):
            function(labels, probabilities)


def test_recalibration_solves_its_score_equations():
    """A maximum-likelihood logistic fit has residuals that add up to 0, weighted by every covariate too."""
    labels, probabilities = simulate(500)
    x = 2 * logit(probabilities) + 1
    found = binary(labels, expit(x))
    assert (labels - expit(x + found["calibration_intercept"])).sum() == pytest.approx(0, abs=1e-6)
    # The free intercept beside the slope follows from the first equation; the second must then hold.
    residual = labels - expit(_free_intercept(labels, found["calibration_slope"] * x) + found["calibration_slope"] * x)
    assert residual @ x == pytest.approx(0, abs=1e-3)


def _free_intercept(labels, offset):
    low, high = -50.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(offset + middle).sum() < labels.sum() else (low, middle)
    return middle


@pytest.mark.parametrize(("stretch", "shift"), [(1, 0), (2, 0), (0.5, 0), (1, 1)])
def test_recalibration_finds_how_predictions_were_spoilt(stretch, shift):
    labels, probabilities = simulate(40_000)
    found = binary(labels, expit(stretch * logit(probabilities) + shift))
    assert found["calibration_slope"] == pytest.approx(1 / stretch, rel=0.04)
    if stretch == 1:
        assert found["calibration_intercept"] == pytest.approx(-shift, abs=0.05)


@pytest.mark.parametrize(
    "probabilities", [[0.1, 0.2, 0.8, 0.9], [0.9, 0.8, 0.2, 0.1], [0.3] * 4, [0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1]]
)
def test_slope_is_nan_where_no_finite_one_fits(probabilities):
    found = binary([0, 0, 1, 1], probabilities)
    assert np.isnan(found["calibration_slope"])
    assert np.isfinite(found["calibration_intercept"])


def test_saturated_probabilities_have_a_calibration_too():
    found = binary([0, 1, 0, 1, 1], np.array([0, 0, 1, 1, 1], np.float32))
    assert np.isfinite(list(found.values())).all()


@settings(deadline=None, max_examples=60)
@given(predictions_with_ties(), st.integers(1, 12))
def test_calibration_curve_equals_scikit_learns(data, bins):
    labels, probabilities = data
    curve = calibration_curve(labels, probabilities, bins=bins)
    observed, predicted = calibration.calibration_curve(labels, probabilities, n_bins=bins, strategy="quantile")
    np.testing.assert_allclose(curve.observed, observed)
    np.testing.assert_allclose(curve.predicted, predicted)
    assert curve.count.sum() == len(labels)


def test_calibration_error_equals_one_counted_with_pandas():
    labels, probabilities = simulate(1003)
    frame = pd.DataFrame({"label": labels, "p": probabilities**2, "bin": pd.qcut(probabilities**2, 10)})
    bins = frame.groupby("bin", observed=True)
    means = bins.mean()
    expected = (bins.size() * (means.p - means.label).abs()).sum() / 1003
    assert binary(labels, probabilities**2)["calibration_error"] == pytest.approx(expected)
    assert expected > 0.05


def test_wilson_interval_solves_its_equation():
    """Its ends are the rates p from which the observed rate is exactly z standard errors of p away."""
    labels, probabilities = simulate(300)
    curve = calibration_curve(labels, probabilities, bins=5, level=0.9)
    for end in (curve.low, curve.high):
        z = np.abs(curve.observed - end) / np.sqrt(end * (1 - end) / curve.count)
        np.testing.assert_allclose(z, norm.ppf(0.95))
    assert (curve.low < curve.observed).all()
    assert (curve.observed < curve.high).all()


@settings(deadline=None, max_examples=60)
@given(predictions_with_ties())
def test_roc_curve_follows_scikit_learns(data):
    labels, probabilities = data
    found = roc_curve(labels, probabilities)
    x, y, _ = metrics.roc_curve(labels, probabilities, drop_intermediate=False)
    for rate, value in zip(FALSE_POSITIVE_RATES, found):
        right = np.searchsorted(x, rate, side="right")
        if x[right - 1] == rate:
            assert value == pytest.approx(y[right - 1])  # the last corner at this rate, the upper end of a rise
        else:
            share = (rate - x[right - 1]) / (x[right] - x[right - 1])
            assert value == pytest.approx(y[right - 1] + share * (y[right] - y[right - 1]))


def test_roc_curve_takes_the_upper_end_of_every_rise_on_the_grid():
    """A negative and a positive in turn: the curve steps at each hundredth, from just below the diagonal onto it."""
    labels, probabilities = np.tile([0, 1], 100), np.linspace(1, 0, 200)
    np.testing.assert_allclose(roc_curve(labels, probabilities), np.arange(101) / 100)


def test_roc_curve_encloses_the_area():
    labels, probabilities = simulate()
    area = np.trapezoid(roc_curve(labels, probabilities), FALSE_POSITIVE_RATES)
    assert area == pytest.approx(metrics.roc_auc_score(labels, probabilities), abs=0.002)


def test_precision_recall_curve_gives_the_example_of_davis_and_goadrich():
    """Their Table 1: 20 positives; one threshold finds 5 with 5 false positives, the next 10 with 30."""
    groups = [(5, 5, 0.9), (5, 25, 0.5), (10, 70, 0.1)]
    labels = np.concatenate([[1] * positives + [0] * negatives for positives, negatives, _ in groups])
    probabilities = np.concatenate([[p] * (positives + negatives) for positives, negatives, p in groups])
    found = dict(zip(RECALLS.tolist(), precision_recall_curve(labels, probabilities)))
    expected = {0.25: 0.5, 0.3: 0.375, 0.35: 0.318, 0.4: 0.286, 0.45: 0.265, 0.5: 0.25}
    assert {recall: round(found[recall], 3) for recall in expected} == expected


@settings(deadline=None, max_examples=60)
@given(predictions_with_ties())
def test_precision_recall_curve_passes_through_the_best_point_of_each_recall(data):
    labels, probabilities = data
    found = dict(zip(RECALLS.tolist(), precision_recall_curve(labels, probabilities)))
    precision, recall, _ = metrics.precision_recall_curve(labels, probabilities)
    for value in set(recall) & set(found):
        assert found[value] == pytest.approx(precision[recall == value].max())


def test_precision_recall_curve_has_about_the_average_precision_as_its_area():
    labels, probabilities = simulate()
    expected = metrics.average_precision_score(labels, probabilities)
    assert precision_recall_curve(labels, probabilities).mean() == pytest.approx(expected, abs=0.005)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([np.float32, np.float64]))
def test_multiclass_metrics_equal_scikit_learns(seed, classes, dtype):
    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(classes), rng.integers(0, classes, 20))
    probabilities = rng.dirichlet(np.ones(classes), labels.size).astype(dtype)
    found = multiclass(labels, probabilities)
    exact = probabilities.astype(float) / probabilities.astype(float).sum(axis=1, keepdims=True)
    assert found["n"] == labels.size
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, probabilities.argmax(axis=1)))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, exact), rel=1e-4)
    each = [metrics.roc_auc_score(labels == k, probabilities[:, k]) for k in range(classes)]
    assert found["auroc"] == pytest.approx(np.mean(each))


def test_a_class_that_never_occurs_leaves_the_macro_average_undefined():
    found = multiclass([0, 1, 1], [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.0, 0.0, 1.0]])
    assert np.isnan(found["auroc"])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["log_loss"] > 4  # a probability of 0 costs much, but not infinity


@pytest.mark.parametrize(
    ("labels", "probabilities", "says"),
    [
        ([0, 3], [[0.5, 0.5], [0.5, 0.5]], "found 3; expected class indices from 0 to 1"),
        ([0, 1], [[0.5, 0.5], [0.9, 0.5]], "no distribution"),
        ([0, 1], [0.5, 0.9], "two classes"),
        ([0, np.nan], [[0.5, 0.5], [0.5, 0.5]], "labels: 1 of 2"),
    ],
)
def test_what_no_multiclass_metric_can_read_is_refused(labels, probabilities, says):
    with pytest.raises(InputError, match=says):
        multiclass(labels, probabilities)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(3, 50), st.floats(-1e6, 1e6))
def test_regression_metrics_equal_scikit_learns(seed, n, offset):
    rng = np.random.default_rng(seed)
    labels = offset + rng.normal(size=n)
    predictions = labels + rng.normal(size=n)
    found = regression(labels, predictions)
    assert found["n"] == n
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(labels, predictions))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(labels, predictions))
    assert found["r2"] == pytest.approx(metrics.r2_score(labels, predictions))
    assert found["pearson"] == pytest.approx(pearsonr(labels, predictions).statistic)


def test_what_constant_labels_or_predictions_leave_undefined_is_nan():
    constant_labels, constant_predictions = regression([0.1] * 3, [1, 2, 3]), regression([1, 2, 3], [0.1] * 3)
    assert np.isnan([constant_labels["r2"], constant_labels["pearson"], constant_predictions["pearson"]]).all()
    assert constant_predictions["r2"] == pytest.approx(metrics.r2_score([1, 2, 3], [0.1] * 3))
    with pytest.raises(InputError, match="labels: 1 of 2"):
        regression([0, np.nan], [0, 1])


def test_half_iqr_by_hand():
    # Sorted 1 2 4 7 11: the quartiles of five values are the second and the fourth.
    assert median_and_half_iqr([7, 1, 11, 2, 4]) == (4, 2.5)
    # Sorted 1 2 4 7: quartiles a quarter and three quarters of the way between neighbours, 1.75 and 4.75.
    assert median_and_half_iqr([4, 1, 7, 2]) == (3, 1.5)
    assert median_and_half_iqr([0.8]) == (0.8, 0)
    assert np.isnan(median_and_half_iqr([0.8, np.nan])).all()


def test_summary_of_curves_is_taken_at_each_point():
    curves = np.random.default_rng(0).normal(size=(5, 7))
    middle, half = median_and_half_iqr(curves)
    for point in range(7):
        assert (middle[point], half[point]) == median_and_half_iqr(curves[:, point])


def test_metrics_give_no_warning_on_integers_or_lists():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert binary([0, 1, True], [0, 1, 0.5])["auroc"] == 1
