"""An evaluation's results, ordered and looked up as its report's tables and figures need them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tfmmcl.evaluation.metrics import LOWER_IS_BETTER
from tfmmcl.evaluation.results import DISPLAY_NAMES, Cell, Comparison, EvaluatedTask, Results, Summary

NETWORKS = ("rand_init", "rand_init_no_ecg", "contrastive", "contrastive_no_ecg")
BASELINES = tuple(arm for arm in DISPLAY_NAMES if arm not in NETWORKS)

MODES = {"finetune": "fine-tuning", "linear": "linear probe", "mlp": "MLP probe", "knn": "k nearest neighbours"}
"""A network's mode → what a reader calls it, in the order of the report."""

METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "calibration_intercept": "Calibration intercept",
    "calibration_slope": "Calibration slope",
    "calibration_error": "Calibration error",
    "accuracy": "Accuracy",
    "log_loss": "Log loss",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "pearson": "Pearson r",
}
"""Metric → its name, in the order of the report."""


class Findings:
    """The results of an evaluation.

    Args:
        results: What `results.json` holds.
        folder: The report's folder, where the files with predictions and embeddings are.

    Attributes:
        results: What `results.json` holds.
        folder: The report's folder.
        networks: The networks that were evaluated, in the paper's order.
        baselines: The baselines that were.
        modes: The networks' modes that were run.
        mode: The mode of the main table: fine-tuning, or the first that was run.
        fractions: Parts of the labelled training patients that were used, ascending.
        fraction: The largest of them.
        level: Of confidence of the intervals.
    """

    def __init__(self, results: Results, folder: Path) -> None:
        self.results, self.folder = results, folder
        arms = {item.arm for item in results.summary}
        self.networks = [arm for arm in NETWORKS if arm in arms]
        self.baselines = [arm for arm in BASELINES if arm in arms]
        run = {item.mode for item in results.summary}
        self.modes = [mode for mode in MODES if mode in run]
        self.mode = next(iter(self.modes), "finetune")
        self.fractions = sorted({item.fraction for item in results.summary})
        self.fraction = self.fractions[-1] if self.fractions else 1.0
        self.level = results.summary[0].level if results.summary else 0.95

    @property
    def arms(self) -> list[str]:
        """Networks and then baselines."""
        return [*self.networks, *self.baselines]

    @property
    def way(self) -> str:
        """What a reader calls the main mode."""
        return MODES[self.mode] if self.modes else "baselines"

    def about(self, task: EvaluatedTask) -> str:
        """Returns a task's name and on how much its numbers rest."""
        return f"{task.task.name}: {sizes(self.summaries(task.task.name, task.headline).values())}"

    @cached_property
    def _summary(self) -> dict[tuple[Any, ...], Summary]:
        return {(item.arm, item.task, item.mode, item.fraction, item.metric): item for item in self.results.summary}

    def summary(
        self, arm: str, task: str, metric: str, mode: str | None = None, fraction: float | None = None
    ) -> Summary | None:
        """Returns a metric over seeds; of the main mode and the largest fraction unless said otherwise."""
        return self._summary.get((arm, task, mode_of(arm, mode or self.mode), fraction or self.fraction, metric))

    def summaries(self, task: str, metric: str, **of: Any) -> dict[str, Summary]:
        """Returns arm → `summary`, of the arms that have one."""
        found = {arm: self.summary(arm, task, metric, **of) for arm in self.arms}
        return {arm: item for arm, item in found.items() if item is not None}

    def metrics(self, task: str) -> list[str]:
        """Returns the metrics that the main mode has for a task."""
        return [metric for metric in METRICS if self.summaries(task, metric)]

    def cells(self, arm: str, task: str) -> list[Cell]:
        """Returns an arm's results by seed, of the main mode and the largest fraction."""
        mode = mode_of(arm, self.mode)
        return [
            cell
            for cell in self.results.cells
            if (cell.arm, cell.task, cell.mode, cell.fraction) == (arm, task, mode, self.fraction)
        ]

    def predictions(self, cell: Cell) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns labels and predictions of the labelled part of the test split; None where their file is gone."""
        path = self.folder / cell.predictions
        if not path.is_file():
            return None
        with np.load(path) as arrays:
            label, prediction = arrays["label"], arrays["prediction"]
        labelled = np.isfinite(label)
        return label[labelled], prediction[labelled]

    def by_seed(self, arm: str, task: str, curve: Callable[..., np.ndarray]) -> np.ndarray:
        """Returns each seed's curve, `(S, G)`, of those that are defined; `(0,)` if none is."""
        read = [self.predictions(cell) for cell in self.cells(arm, task)]
        curves = [curve(*pair) for pair in read if pair is not None]
        return np.array([some for some in curves if np.isfinite(some).all()])

    def trained_on(self, task: str, mode: str, fraction: float) -> tuple[float, float | None] | None:
        """Returns how many patients and positives a fraction's training data hold, medians over seeds and arms."""
        learnt = [
            cell.train
            for cell in self.results.cells
            if (cell.task, cell.fraction) == (task, fraction) and cell.mode in (mode, "baseline")
        ]
        if not learnt:
            return None
        positives = [some.positives for some in learnt if some.positives is not None]
        return float(np.median([some.patients for some in learnt])), float(np.median(positives)) if positives else None

    def compared(self, task: str, metric: str, fraction: float | None = None) -> list[Comparison]:
        """Returns the differences between arms in the main mode; of the largest fraction unless said otherwise."""
        return [
            item
            for item in self.results.comparisons
            if (item.task, item.metric, item.fraction) == (task, metric, fraction or self.fraction)
            and (item.mode, item.second_mode) == (mode_of(item.first, self.mode), mode_of(item.second, self.mode))
        ]

    def best(self, task: EvaluatedTask) -> str | None:
        """Returns the arm that is best in the headline metric, if its lead over the runner-up is beyond doubt.

        It is where the interval of their paired difference lies on one side of 0.
        """
        sign = -1 if task.headline in LOWER_IS_BETTER else 1
        medians = {arm: item.median for arm, item in self.summaries(task.task.name, task.headline).items()}
        ranked = sorted((arm for arm in medians if medians[arm] is not None), key=lambda arm: -sign * medians[arm])
        for item in self.compared(task.task.name, task.headline):
            if len(ranked) > 1 and {item.first, item.second} == set(ranked[:2]) and item.low is not None:
                ahead = sign if item.first == ranked[0] else -sign
                return ranked[0] if min(ahead * item.low, ahead * item.high) > 0 else None
        return None


def mode_of(arm: str, mode: str) -> str:
    """Returns the mode in which an arm stands beside networks in `mode`: a baseline has only its own."""
    return "baseline" if arm in BASELINES else mode


def percent(fraction: float) -> str:
    """Returns a fraction in percent, such as `2.5 %`."""
    return f"{100 * fraction:.3g} %"


def sizes(items: Iterable[Summary]) -> str:
    """Returns on how much numbers rest, such as `n = 356 (22 patients), 11 positive (3.1 %); 5 seeds`."""
    items = list(items)
    text = f"n = {_range(item.n for item in items)} ({_range(item.patients for item in items)} patients)"
    positives = [item for item in items if item.positives is not None and item.n]
    if positives:
        share = percent(positives[0].positives / positives[0].n)
        text += f", {_range(item.positives for item in positives)} positive ({share})"
    return f"{text}; {seeds_of(items)}"


def seeds_of(items: Iterable[Summary | Comparison]) -> str:
    """Returns how many seeds numbers are summarised over, such as `5 seeds` or `1–5 seeds`."""
    text = _range(item.seeds for item in items)
    return f"{text} seed" if text == "1" else f"{text} seeds"


def _range(counts: Iterable[int]) -> str:
    unique = sorted(set(counts)) or [0]
    return "–".join(f"{count:,}" for count in dict.fromkeys((unique[0], unique[-1])))
