"""A fine-tuning run's predictions as metrics with intervals, for its `result.json`."""

from __future__ import annotations

import math
from typing import Any

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.evaluation.bootstrap import BINARY_METRICS, METRICS, interval
from tfmmcl.evaluation.metrics import scores
from tfmmcl.training.run_directory import FinetuneDirectory

RESAMPLES, LEVEL = 2000, 0.95


def score(run: FinetuneDirectory, task: Task) -> dict[str, Any]:
    """Returns what `result.json` is to hold of how good a run's predictions are.

    Args:
        run: A run with predictions.
        task: What it predicts.

    Returns:
        `scores`: split → metric → value. `intervals`: `level`, `resamples` and split → metric → low and high end, by
        resampling patients, for the metrics that `bootstrap` has; nothing for a task of several classes.
    """
    rows = run.load_predictions()
    found: dict[str, Any] = {"scores": {}, "intervals": {"level": LEVEL, "resamples": RESAMPLES}}
    metrics = {"binary": BINARY_METRICS, "regression": METRICS.keys() - BINARY_METRICS}.get(task.kind, ())
    for split in dict.fromkeys(rows["split"].tolist()):
        labels, predictions, patients = (
            rows[name][rows["split"] == split] for name in ("label", "prediction", "patient")
        )
        found["scores"][split] = scores(task, labels, predictions)
        ends = {
            metric: (each.low, each.high)
            for metric in sorted(metrics)
            for each in [interval(metric, labels, predictions, patients, resamples=RESAMPLES, level=LEVEL)]
        }
        found["intervals"][split] = {metric: list(pair) for metric, pair in ends.items() if math.isfinite(sum(pair))}
    return found if metrics else {"scores": found["scores"]}
