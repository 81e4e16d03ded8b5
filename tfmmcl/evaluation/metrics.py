"""How good predictions are: numbers for a table, curves on fixed grids, and the summary over seeds.

A number that the data leave undefined, such as an AUROC where one class is absent, is NaN, without a warning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.errors import InputError

Array = NDArray[np.float64]

LOWER_IS_BETTER = {"brier", "calibration_error", "log_loss", "mae", "rmse"}
"""Metrics of which a lower value is a better one."""

# Quotients of integers, as the rates of a curve are: where a curve has a corner on the grid, the two are equal.
FALSE_POSITIVE_RATES: Array = np.arange(101) / 100
"""Where `roc_curve` is read, `(101,)`: 0 to 1."""
RECALLS: Array = np.arange(1, 101) / 100
"""Where `precision_recall_curve` is read, `(100,)`: 0.01 to 1; at a recall of 0 precision is not defined."""

# A sigmoid in float32 saturates to exactly 0 or 1; logarithms and logits of probabilities stop here.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class CalibrationCurve:
    """Predicted against observed rates in `B` bins of about equal count, ordered by prediction.

    Attributes:
        predicted: Mean predicted probability, `(B,)`.
        observed: Rate of positive labels, `(B,)`.
        count: Trajectories in the bin, `(B,)`.
        low: Lower end of the Wilson score interval of the observed rate, `(B,)`.
        high: Its upper end, `(B,)`.
    """

    predicted: Array
    observed: Array
    count: NDArray[np.int64]
    low: Array
    high: Array


def check_numbers(labels: ArrayLike, predictions: ArrayLike) -> tuple[Array, Array]:
    """Returns labels `(n,)` and predictions `(n,)` or `(n, K)` as float64.

    Raises:
        InputError: If lengths differ or anything is NaN or infinite. Unlabelled trajectories are to be dropped before.
    """
    labels, predictions = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    if labels.ndim != 1 or predictions.shape[:1] != labels.shape:
        raise InputError(
            f"labels of shape {labels.shape} and predictions of shape {predictions.shape}: "
            "expected one label per trajectory and as many predictions"
        )
    for name, values in (("labels", labels), ("predictions", predictions)):
        if bad := int(np.count_nonzero(~np.isfinite(values))):
            raise InputError(f"{name}: {bad} of {values.size} are NaN or infinite; expected finite numbers only")
    return labels, predictions


def check_binary(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Array, Array]:
    """Returns labels and probabilities, both `(n,)`, as float64.

    Raises:
        InputError: As `check_numbers`, or if a label is neither 0 nor 1 or a probability lies outside [0, 1].
    """
    labels, probabilities = check_numbers(labels, probabilities)
    if probabilities.ndim != 1:
        raise InputError(f"probabilities have shape {probabilities.shape}; expected {labels.shape}")
    if (other := labels[(labels != 0) & (labels != 1)]).size:
        raise InputError(f"labels: found {other[0]:g}; expected 0 and 1 only")
    if (outside := probabilities[(probabilities < 0) | (probabilities > 1)]).size:
        raise InputError(f"probabilities: found {outside[0]:g}; expected 0 to 1")
    return labels, probabilities


def scores(task: Task, labels: ArrayLike, predictions: ArrayLike) -> dict[str, float | None]:
    """Returns the metrics of the task's kind; one that the labels leave undefined is None, as JSON has no NaN."""
    functions = {"binary": binary, "multiclass": multiclass, "regression": regression}
    found = functions[task.kind](labels, predictions)
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def binary(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Returns the metrics of a binary task.

    Args:
        labels: 0 or 1, `(n,)`.
        probabilities: Predicted probability of label 1, `(n,)`.

    Returns:
        `n`, `positives` and `prevalence`; `auroc`; `auprc`, the average precision; `brier`, the mean squared error;
        `calibration_slope`, 1 when perfect and below 1 when predictions are too extreme, the slope of a logistic
        regression of the label on the predicted logit; `calibration_intercept`, 0 when perfect and below 0 when
        predictions are too high on the whole, the intercept with that slope held at 1 (calibration in the large;
        Van Calster et al. 2019, https://doi.org/10.1186/s12916-019-1466-7); `calibration_error`, the expected
        calibration error over ten quantile bins (Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602).

    Raises:
        InputError: As `check_binary`.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, probabilities = check_binary(labels, probabilities)
    both = _has_both(labels)
    intercept, slope = _recalibration(labels, probabilities) if both else (np.nan, np.nan)
    bins = calibration_curve(labels, probabilities)
    return {
        "n": labels.size,
        "positives": int(labels.sum()),
        "prevalence": _mean(labels),
        "auroc": float(roc_auc_score(labels, probabilities)) if both else np.nan,
        "auprc": float(average_precision_score(labels, probabilities)) if both else np.nan,
        "brier": _mean((probabilities - labels) ** 2),
        "calibration_intercept": intercept,
        "calibration_slope": slope,
        "calibration_error": _mean(np.repeat(np.abs(bins.predicted - bins.observed), bins.count)),
    }


def multiclass(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Returns the metrics of a task with `K` classes.

    Args:
        labels: Class indices from 0 to K - 1, `(n,)`.
        probabilities: Predicted probabilities, `(n, K)`; rows add up to 1.

    Returns:
        `n`; `accuracy` of the most probable class; `log_loss` in nats; `auroc`, the mean over classes of the AUROC of
        one class against the rest, NaN unless every class occurs among the labels.

    Raises:
        InputError: As `check_numbers`, or if a label is no class, or a row no distribution.
    """
    from sklearn.metrics import roc_auc_score

    labels, probabilities = check_numbers(labels, probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise InputError(f"probabilities have shape {probabilities.shape}; expected (n, K) with at least two classes")
    # float16 keeps three digits.
    if (probabilities < 0).any() or (np.abs(probabilities.sum(axis=1) - 1) > 1e-2).any():
        raise InputError("probabilities: found a row that is no distribution; expected none below 0 and a sum of 1")
    classes = probabilities.shape[1]
    if (other := labels[~np.isin(labels, np.arange(classes))]).size:
        raise InputError(f"labels: found {other[0]:g}; expected class indices from 0 to {classes - 1}")
    one_hot = labels[:, None] == np.arange(classes)
    return {
        "n": labels.size,
        "accuracy": _mean(probabilities.argmax(axis=1) == labels),
        "log_loss": -_mean(np.log(np.maximum(probabilities[one_hot], SMALLEST_PROBABILITY))),
        "auroc": float(roc_auc_score(one_hot, probabilities, average="macro")) if one_hot.any(0).all() else np.nan,
    }


def regression(labels: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
    """Returns the metrics of a regression task.

    Args:
        labels: `(n,)`.
        predictions: `(n,)`.

    Returns:
        `n`; `mae` and `rmse` in the labels' unit; `r2`, the coefficient of determination, NaN for constant labels;
        `pearson`, the correlation, NaN for constant labels or predictions.

    Raises:
        InputError: As `check_numbers`.
    """
    labels, predictions = check_numbers(labels, predictions)
    if predictions.ndim != 1:
        raise InputError(f"predictions have shape {predictions.shape}; expected {labels.shape}")
    squared_error = (predictions - labels) ** 2
    labels_vary, predictions_vary = np.unique(labels).size > 1, np.unique(predictions).size > 1
    return {
        "n": labels.size,
        "mae": _mean(np.abs(predictions - labels)),
        "rmse": float(np.sqrt(_mean(squared_error))),
        "r2": float(1 - squared_error.mean() / labels.var()) if labels_vary else np.nan,
        "pearson": float(np.corrcoef(labels, predictions)[0, 1]) if labels_vary and predictions_vary else np.nan,
    }


def roc_curve(labels: ArrayLike, probabilities: ArrayLike) -> Array:
    """Returns the true-positive rate at each of `FALSE_POSITIVE_RATES`, `(101,)`; NaN where one class is absent.

    Curves of several seeds are averaged at equal false-positive rates (Fawcett 2006,
    https://doi.org/10.1016/j.patrec.2005.10.010). Where a curve rises vertically, its upper end counts, so the first
    value can be above 0.

    Args:
        labels: 0 or 1, `(n,)`.
        probabilities: Predicted probability of label 1, `(n,)`.
    """
    labels, probabilities = check_binary(labels, probabilities)
    if not _has_both(labels):
        return np.full(FALSE_POSITIVE_RATES.size, np.nan)
    true, false = _cumulate(labels, probabilities)
    return np.interp(FALSE_POSITIVE_RATES, false / false[-1], true / true[-1])


def precision_recall_curve(labels: ArrayLike, probabilities: ArrayLike) -> Array:
    """Returns the precision at each of `RECALLS`, `(100,)`; NaN where one class is absent.

    Between two thresholds false positives, not precision, grow in proportion to true positives (Davis and Goadrich
    2006, https://doi.org/10.1145/1143844.1143874): a straight line would promise too much. Where several thresholds
    reach the same recall, the highest precision counts.

    Args:
        labels: 0 or 1, `(n,)`.
        probabilities: Predicted probability of label 1, `(n,)`.
    """
    labels, probabilities = check_binary(labels, probabilities)
    if not _has_both(labels):
        return np.full(RECALLS.size, np.nan)
    true, false = _cumulate(labels, probabilities)
    recall = true / true[-1]
    # `np.interp` takes the last of equal abscissae; from right to left that is the one with the fewest false positives.
    false_positives = np.interp(-RECALLS, -recall[::-1], false[::-1])
    true_positives = RECALLS * true[-1]
    return true_positives / (true_positives + false_positives)


def calibration_curve(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = 10, level: float = 0.95
) -> CalibrationCurve:
    """Returns predicted against observed rates in bins between quantiles of the predictions.

    Equal predictions share a bin, so there are fewer bins where they are many.

    Args:
        labels: 0 or 1, `(n,)`.
        probabilities: Predicted probability of label 1, `(n,)`.
        bins: At most so many bins. Default 10.
        level: Of the Wilson score intervals (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953).
            Default 0.95.

    Raises:
        InputError: As `check_binary`.
    """
    from scipy.stats import binomtest

    labels, probabilities = check_binary(labels, probabilities)
    # The same expression as scikit-learn's, so that rounding puts a prediction on an edge into the same bin.
    percents = np.linspace(0, 1, bins + 1)[1:-1] * 100
    edges = np.percentile(probabilities, percents) if probabilities.size else percents
    place = np.searchsorted(edges, probabilities)
    counts = np.bincount(place, minlength=bins)
    full = counts > 0
    positives = np.bincount(place, labels, minlength=bins)[full]
    total, counts = np.bincount(place, probabilities, minlength=bins)[full], counts[full]
    intervals = [
        binomtest(int(positive), int(count)).proportion_ci(level, method="wilson")
        for positive, count in zip(positives, counts)
    ]
    low, high = np.array(intervals, np.float64).reshape(-1, 2).T
    return CalibrationCurve(total / counts, positives / counts, counts, low, high)


def median_and_half_iqr(values: ArrayLike) -> tuple[Any, Any]:
    """Returns the median over seeds and half the inter-quartile range, the paper's summary of a table cell.

    Quartiles are interpolated linearly, as NumPy does. A NaN among the values makes both NaN.

    Args:
        values: One number per seed, `(S,)`, or one curve per seed, `(S, G)`.

    Returns:
        Two floats, or two arrays `(G,)`.
    """
    low, median, high = np.quantile(np.asarray(values, np.float64), [0.25, 0.5, 0.75], axis=0)
    return median, (high - low) / 2


def count_by_threshold(
    labels: Array, scores: Array, weights: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns what each of `G` distinct scores as a threshold adds to the true and to the false positives.

    Args:
        labels: 0 or 1, `(n,)`, not empty.
        scores: `(n,)`; equal ones share a threshold.
        weights: How often each counts, `(n,)`, or `(n, R)` for R resamples.

    Returns:
        Two arrays `(G,)` or `(G, R)`, strictest threshold first.
    """
    order = np.argsort(-scores)
    starts = np.append(0, np.flatnonzero(np.diff(scores[order])) + 1)
    ordered = weights[order]
    every = np.add.reduceat(ordered, starts, axis=0)
    ordered[labels[order] == 0] = 0
    true = np.add.reduceat(ordered, starts, axis=0)
    return true, every - true


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else np.nan


def _has_both(labels: Array) -> bool:
    return 0 < np.count_nonzero(labels) < labels.size


def _cumulate(labels: Array, scores: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns true and false positives at each threshold, `(1 + G,)`, strictest first, after a pair of zeros."""
    added = count_by_threshold(labels, scores, np.ones(labels.size, np.int64))
    true, false = np.cumsum(np.pad(added, ((0, 0), (1, 0))), axis=1)
    return true, false


def _recalibration(labels: Array, probabilities: Array) -> tuple[float, float]:
    """Returns calibration intercept (slope held at 1) and slope of labels that hold both classes."""
    from scipy.optimize import brentq
    from scipy.special import expit, logit
    from sklearn.linear_model import LogisticRegression

    logits = logit(np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
    # Logits end at ±16, so that beyond ±100 no mean probability is left between the classes.
    intercept = brentq(lambda shift: expit(logits + shift).mean() - labels.mean(), -100, 100)
    # Without overlap of the classes the likelihood has no maximum.
    negative, positive = logits[labels == 0], logits[labels == 1]
    if negative.max() <= positive.min() or positive.max() <= negative.min():
        return float(intercept), np.nan
    centre, scale = logits.mean(), logits.std()
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8, max_iter=1000)
    model.fit(((logits - centre) / scale)[:, None], labels)
    return float(intercept), float(model.coef_[0, 0] / scale)
