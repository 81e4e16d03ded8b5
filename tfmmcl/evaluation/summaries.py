"""From single results to what is reported: medians over seeds, intervals over patients, differences between arms."""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.evaluation import bootstrap
from tfmmcl.evaluation.metrics import LOWER_IS_BETTER, median_and_half_iqr
from tfmmcl.evaluation.results import DISPLAY_NAMES, Cell, Comparison, EvaluatedTask, Summary

METRICS = {
    "binary": ("auroc", "auprc", "brier", "calibration_intercept", "calibration_slope", "calibration_error"),
    "multiclass": ("auroc", "accuracy", "log_loss"),
    "regression": ("mae", "rmse", "r2", "pearson"),
}
"""Kind of task → the metrics that are reported, of those that each cell has."""

COMPARED = (
    ("contrastive", "rand_init"),
    ("contrastive_no_ecg", "rand_init_no_ecg"),
    ("contrastive", "contrastive_no_ecg"),
    ("rand_init", "rand_init_no_ecg"),
)
"""Pairs of arms whose difference is reported in every mode; in the main mode, every pair's is."""

Group = tuple[str, str, str, float]  # arm, task, mode, fraction


class Predictions:
    """The test split's predictions of a group's seeds, read from the cells' files.

    Attributes:
        labels: `(n,)`.
        patients: `(n,)`.
        predictions: `(S, n)`, or `(S, n, K)` for a multiclass task.
    """

    def __init__(self, cells: Sequence[Cell], folder: Path) -> None:
        rows = []
        for cell in cells:
            with np.load(folder / cell.predictions, allow_pickle=False) as arrays:
                order = np.argsort(arrays["trajectory"])
                self.labels, self.patients = arrays["label"][order], arrays["patient"][order]
                rows.append(arrays["prediction"][order])
        self.predictions = np.stack(rows)

    @functools.cache  # noqa: B019  # a report's groups live as long as the report is made
    def replicates(self, metric: str, resamples: int) -> bootstrap.Replicates:
        """Returns a metric over resamples of the patients: the same ones for every group of a task."""
        return bootstrap.replicate(metric, self.labels, self.predictions, self.patients, resamples=resamples)


def summarise(
    cells: Sequence[Cell], tasks: Sequence[EvaluatedTask], folder: Path, resamples: int, level: float
) -> tuple[list[Summary], list[Comparison]]:
    """Summarises every group of cells that differ in their seed alone, and compares arms.

    Args:
        cells: All results.
        tasks: What was predicted.
        folder: The report's folder, with the cells' predictions.
        resamples: Bootstrap resamples.
        level: Of the intervals.
    """
    kinds = {item.task.name: item.task for item in tasks}
    groups: dict[Group, list[Cell]] = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: cell.seed):
        groups[cell.arm, cell.task, cell.mode, cell.fraction].append(cell)
    read = {group: Predictions(members, folder) for group, members in groups.items()}
    headlines = {item.task.name: item.headline for item in tasks}
    pairs = list(_pairs(groups, headlines))
    with tqdm(total=len(groups) + len(pairs), desc="bootstrapping", unit=" groups", disable=None) as bar:
        summaries, comparisons = [], []
        for group, members in groups.items():
            summaries += _rows(group, members, read[group], kinds, resamples, level)
            bar.update()
        for first, second in pairs:
            for metric in _comparable(kinds[first[1]]):
                comparisons.append(_compare(first, second, metric, read, resamples, level))
            bar.update()
    return summaries, comparisons


def _rows(
    group: Group, cells: Sequence[Cell], read: Predictions, kinds: dict[str, Task], resamples: int, level: float
) -> Iterator[Summary]:
    arm, task, mode, fraction = group
    for metric in METRICS[kinds[task].kind]:
        values = [cell.test.get(metric) for cell in cells]
        known = np.array([value for value in values if value is not None], float)
        median, half = median_and_half_iqr(known) if known.size == len(values) else (math.nan, math.nan)
        low = high = math.nan
        if metric in _comparable(kinds[task]):
            found = read.replicates(metric, resamples).interval(level)
            low, high = found.low, found.high
        positives = int((read.labels == 1).sum()) if kinds[task].kind == "binary" else None
        yield Summary(
            arm=arm, task=task, mode=mode, fraction=fraction, metric=metric,
            median=_finite(median), half_iqr=_finite(half), low=_finite(low), high=_finite(high), level=level,
            seeds=len(cells), n=len(read.labels), patients=len(set(read.patients)), positives=positives,
        )  # fmt: skip


def _pairs(groups: dict[Group, list[Cell]], headlines: dict[str, str]) -> Iterator[tuple[Group, Group]]:
    """Yields the groups to compare: all pairs of arms and the best baseline in the main mode, else `COMPARED`."""
    modes = {mode for _, _, mode, _ in groups if mode != "baseline"}
    main = "finetune" if "finetune" in modes else min(modes, default="baseline")
    best = _best_baselines(groups, headlines)
    for (arm, task, mode, fraction), (other, *rest) in itertools.permutations(groups, 2):
        if rest != [task, mode, fraction] or mode == "baseline":
            continue
        ordered = list(DISPLAY_NAMES).index(arm) > list(DISPLAY_NAMES).index(other)
        if (arm, other) in COMPARED or (mode == main and ordered and (other, arm) not in COMPARED):
            yield (arm, task, mode, fraction), (other, task, mode, fraction)
    for arm, task, mode, fraction in groups:
        if mode == main and (task, fraction) in best:
            yield (arm, task, mode, fraction), best[task, fraction]


def _best_baselines(groups: dict[Group, list[Cell]], headlines: dict[str, str]) -> dict[tuple[str, float], Group]:
    """Returns the baseline to compare with for each task and fraction; the validation split says which."""
    scores: dict[tuple[str, float], dict[Group, float]] = defaultdict(dict)
    for group, cells in groups.items():
        _, task, mode, fraction = group
        values = [cell.validation.get(headlines[task]) for cell in cells]
        if mode == "baseline" and None not in values:
            sign = -1 if headlines[task] in LOWER_IS_BETTER else 1
            scores[task, fraction][group] = sign * float(np.median(values))
    return {key: max(found, key=found.__getitem__) for key, found in scores.items()}


def _compare(
    first: Group, second: Group, metric: str, read: dict[Group, Predictions], resamples: int, level: float
) -> Comparison:
    one, two = read[first], read[second]
    found = one.replicates(metric, resamples).minus(two.replicates(metric, resamples), level)
    return Comparison(
        task=first[1], mode=first[2], second_mode=second[2], fraction=first[3], metric=metric,
        first=first[0], second=second[0], difference=_finite(found.estimate),
        low=_finite(found.low), high=_finite(found.high), p_value=_finite(found.p_value),
        n=len(one.labels), patients=len(set(one.patients)), seeds=len(one.predictions),
    )  # fmt: skip


def _comparable(task: Task) -> tuple[str, ...]:
    """Returns the metrics that have bootstrap intervals."""
    return {"binary": ("auroc", "auprc", "brier"), "multiclass": (), "regression": ("mae", "r2")}[task.kind]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
