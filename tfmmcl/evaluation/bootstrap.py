"""Confidence intervals and paired comparisons by resampling patients with replacement, with all their trajectories.

Trajectories of one patient resemble each other, so resampling trajectories would give intervals that are too narrow
(the cluster bootstrap; Davison and Hinkley 1997, Bootstrap Methods and their Application, Section 3.8). With several
seeds the statistic is the median over seeds of the metric; the seeds stay as they are, so an interval speaks of other
patients, not of other seeds.

A resample is a multiplicity per patient, which weights the patient's trajectories: predictions are sorted once for
many resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfmmcl.errors import InputError, nearest
from tfmmcl.evaluation.metrics import Array, check_binary, check_numbers

ROUNDS = 20
"""How often resamples in which the metric is undefined are drawn again before the interval is given up."""
WEIGHTS_AT_ONCE = 250_000
"""Weights held in memory at once: resamples times trajectories."""


@dataclass(frozen=True)
class Interval:
    """A metric with its confidence interval; `low` and `high` are NaN where there is none."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A difference of metrics, first minus second, with its confidence interval and two-sided p-value."""

    estimate: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Replicates:
    """A metric over resamples of patients.

    Attributes:
        estimate: Of all patients.
        drawn: Of each resample, `(resamples,)`; NaN where there is no interval.
    """

    estimate: float
    drawn: Array

    def interval(self, level: float = 0.95) -> Interval:
        """Returns the percentile interval."""
        return Interval(self.estimate, *_percentiles(self.drawn, level))

    def minus(self, other: Replicates, level: float = 0.95) -> Difference:
        """Returns the difference from what another arm has on the same resamples of the same patients."""
        differences = self.drawn - other.drawn
        tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
        p_value = np.nan if np.isnan(differences).any() else min(1.0, float(2 * (tail + 1) / (len(differences) + 1)))
        return Difference(self.estimate - other.estimate, *_percentiles(differences, level), p_value)


def interval(
    metric: str,
    labels: ArrayLike,
    predictions: ArrayLike,
    patients: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Returns a metric with its percentile interval.

    Resamples in which the metric is undefined, such as an AUROC with one class, are drawn again. The interval is NaN
    where the estimate is, and for fewer than two patients.

    Args:
        metric: One of `METRICS`.
        labels: `(n,)`; 0 or 1 for the binary metrics.
        predictions: `(n,)`, or `(S, n)` for S seeds.
        patients: Whose trajectory it is, `(n,)`; ids of any kind.
        resamples: Default 2000.
        level: Of confidence. Default 0.95.
        seed: The same seed draws the same patients. Default 0.

    Raises:
        InputError: If the metric is unknown, lengths differ, or labels or predictions are not what the metric takes.
    """
    return replicate(metric, labels, predictions, patients, resamples=resamples, seed=seed).interval(level)


def difference(
    metric: str,
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    patients: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Returns how much two arms differ, first minus second; both see the same resampled patients.

    The p-value turns the percentile interval round (Hall 1992, The Bootstrap and Edgeworth Expansion, Section 3.12):
    twice the smaller share of resampled differences on either side of 0, `2 min(#{d ≤ 0} + 1, #{d ≥ 0} + 1) / (R + 1)`
    and at most 1. Counting the estimate itself as one more resample keeps it above 0 (Davison and Hinkley 1997,
    Bootstrap Methods and their Application, Chapter 4).

    Args:
        metric: One of `METRICS`.
        labels: `(n,)`; 0 or 1 for the binary metrics.
        first: Predictions of one arm, `(n,)`, or `(S, n)` for S seeds.
        second: Predictions of the other arm, `(n,)` or `(S, n)`; the arms may differ in S.
        patients: Whose trajectory it is, `(n,)`; ids of any kind.
        resamples: Default 2000.
        level: Of confidence. Default 0.95.
        seed: The same seed draws the same patients. Default 0.

    Raises:
        InputError: As `interval`.
    """
    one, other = (replicate(metric, labels, arm, patients, resamples=resamples, seed=seed) for arm in (first, second))
    return one.minus(other, level)


def auroc(labels: Array, predictions: Array, weights: NDArray[np.int64]) -> Array:
    """Returns the weighted area under the ROC curve, ties counted half, `(R,)`; NaN where one class has no weight.

    Args:
        labels: 0 or 1, `(n,)`.
        predictions: `(n,)`.
        weights: `(n, R)`, a column per resample.
    """
    true, every, rows, total = _around_positives(labels, predictions, weights)
    positives = true.sum(axis=0)
    # A positive beats the negatives below it and half of those it ties with; doubled, all are integers.
    reached = every[rows]
    tied = reached - np.where(rows[:, np.newaxis] > 0, every[rows - 1], 0) - true
    below = total - positives - reached + np.cumsum(true, axis=0)
    doubled = np.einsum("gr,gr->r", true, 2 * below + tied)
    return _divide(doubled, 2 * positives * (total - positives))


def average_precision(labels: Array, predictions: Array, weights: NDArray[np.int64]) -> Array:
    """Returns the weighted average precision, `(R,)`; NaN where one class has no weight. Arguments as `auroc`."""
    true, every, rows, total = _around_positives(labels, predictions, weights)
    # Where nothing is predicted positive yet, nothing is gained either, so the 1 is harmless.
    area = np.einsum("gr,gr->r", true, np.cumsum(true, axis=0) / np.maximum(every[rows], 1))
    positives = true.sum(axis=0)
    return np.where(total > positives, _divide(area, positives), np.nan)


def _around_positives(
    labels: Array, predictions: Array, weights: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns what ranking metrics take: they are sums over positives, the rarer class as a rule.

    Returns:
        Positives at each threshold that has any `(P, R)`; all that reach each threshold, strictest first, `(G, R)`;
        where among those the first are `(P,)`; and all weight `(R,)`.
    """
    order = np.argsort(-predictions)
    starts = np.append(0, np.flatnonzero(np.diff(predictions[order])) + 1)
    last = np.append(starts[1:], len(order)) - 1
    reach = np.cumsum(weights[order], axis=0)[last]
    positive = labels[order] == 1
    place = np.searchsorted(starts, np.flatnonzero(positive), side="right") - 1
    rows, begins = np.unique(place, return_index=True)
    chosen = weights[order[positive]]
    true = np.add.reduceat(chosen, begins, axis=0) if rows.size else chosen
    return true, reach, rows, reach[-1]


def mean_squared_error(labels: Array, predictions: Array, weights: NDArray[np.int64]) -> Array:
    """Returns the weighted mean squared error, of probabilities the Brier score, `(R,)`. Arguments as `auroc`."""
    return _divide((predictions - labels) ** 2 @ weights, weights.sum(axis=0))


def mean_absolute_error(labels: Array, predictions: Array, weights: NDArray[np.int64]) -> Array:
    """Returns the weighted mean absolute error, `(R,)`. Arguments as `auroc`, with any labels."""
    return _divide(np.abs(predictions - labels) @ weights, weights.sum(axis=0))


def r2(labels: Array, predictions: Array, weights: NDArray[np.int64]) -> Array:
    """Returns the weighted coefficient of determination, `(R,)`; NaN where the labels with weight are all equal.

    Arguments as `auroc`, with any labels.
    """
    # Measured from near the middle, so that a large mean costs no digits.
    centred = labels - labels.mean()
    spread = centred**2 @ weights - _divide((centred @ weights) ** 2, weights.sum(axis=0))
    varies = [np.unique(labels[column > 0]).size > 1 for column in weights.T]
    return 1 - _divide((predictions - labels) ** 2 @ weights, np.where(varies, spread, 0))


BINARY_METRICS: dict[str, Callable[..., Array]] = {
    "auroc": auroc,
    "auprc": average_precision,
    "brier": mean_squared_error,
}
METRICS: dict[str, Callable[..., Array]] = {**BINARY_METRICS, "mae": mean_absolute_error, "r2": r2}
"""Name → function of labels, predictions and weights."""


def replicate(
    metric: str,
    labels: ArrayLike,
    predictions: ArrayLike,
    patients: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Replicates:
    """Returns a metric over resamples of patients; arms that are given the same seed, labels and patients share them.

    Args:
        metric: One of `METRICS`.
        labels: `(n,)`.
        predictions: `(n,)`, or `(S, n)` for S seeds.
        patients: Whose trajectory it is, `(n,)`.
        resamples: Default 2000.
        seed: Default 0.

    Raises:
        InputError: As `interval`.
    """
    if metric not in METRICS:
        raise InputError(
            f"metric '{metric}' is unknown; expected one of {', '.join(METRICS)}{nearest(metric, METRICS)}"
        )
    check = check_binary if metric in BINARY_METRICS else check_numbers
    rows = np.stack([check(labels, row)[1] for row in np.atleast_2d(predictions)])
    labels = np.asarray(labels, np.float64)
    if np.shape(patients) != labels.shape:
        raise InputError(f"patients have shape {np.shape(patients)}; expected {labels.shape}, one per label")
    names, owner = np.unique(patients, return_inverse=True)

    def statistic(multiplicities: NDArray[np.integer]) -> Array:
        weights = multiplicities[owner]
        return np.median([METRICS[metric](labels, row, weights) for row in rows], axis=0)

    drawn = np.full(resamples, np.nan)
    if names.size == 0:
        return Replicates(np.nan, drawn)
    estimate = float(statistic(np.ones((names.size, 1), np.int64))[0])
    if names.size == 1 or np.isnan(estimate):
        return Replicates(estimate, drawn)
    generator = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        missing = np.flatnonzero(np.isnan(drawn))
        if missing.size == 0:
            break
        for block in np.array_split(missing, 1 + missing.size * labels.size // WEIGHTS_AT_ONCE):
            chosen = generator.multinomial(names.size, np.full(names.size, 1 / names.size), size=block.size)
            drawn[block] = statistic(np.ascontiguousarray(chosen.T))
    return Replicates(estimate, drawn)


def _percentiles(drawn: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _divide(numerator: NDArray, denominator: NDArray) -> Array:
    """Returns the quotient, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=denominator != 0)
