"""What an evaluation found, as `results.json` holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tfmmcl.cohorts.trajectory import Task

Mode = Literal["finetune", "linear", "mlp", "knn", "baseline"]

EMBEDDINGS = "embeddings.npz"
"""Every trajectory's embedding by a pre-trained encoder, in the folder of its run."""

DISPLAY_NAMES = {
    "rand_init": "RandInit",
    "rand_init_no_ecg": "RandInit (No ECG)",
    "contrastive": "Contrastive",
    "contrastive_no_ecg": "Contrastive (No ECG)",
    "logistic_regression": "Logistic regression",
    "gradient_boosting": "Gradient boosting",
    "best_static": "Best single static",
}
"""Arm → its name in the paper, or what a reader calls it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Labelled(_Record):
    """The labelled training data of a cell; `positives` is None where the task is not binary."""

    patients: int
    trajectories: int
    positives: int | None = None


class Cell(_Record):
    """One arm, task, mode, label fraction and seed.

    Attributes:
        arm: A key of `DISPLAY_NAMES`.
        task: The task's name.
        mode: How the arm was evaluated.
        fraction: Part of the labelled training patients that were used.
        seed: Of weights, order and subset.
        train: What it learnt from.
        validation: Metric → value on the validation split, None where it is not defined.
        test: Metric → value on the test split.
        seconds: Wall time.
        predictions: The file with its predictions, below the report's folder: `label`, `prediction`, `patient` and
            `trajectory` of the test split, and the same of validation with the prefix `validation_`.
    """

    arm: str
    task: str
    mode: Mode
    fraction: float
    seed: int
    train: Labelled
    validation: dict[str, float | None]
    test: dict[str, float | None]
    seconds: float
    predictions: str


class Summary(_Record):
    """A metric on the test split over seeds: median, half the inter-quartile range, and a bootstrap interval."""

    arm: str
    task: str
    mode: Mode
    fraction: float
    metric: str
    median: float | None
    half_iqr: float | None
    low: float | None
    high: float | None
    level: float
    seeds: int
    n: int
    patients: int
    positives: int | None = None


class Comparison(_Record):
    """The paired difference `first - second` of a metric, with its interval and two-sided p-value."""

    task: str
    mode: Mode
    second_mode: Mode
    fraction: float
    metric: str
    first: str
    second: str
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    patients: int
    seeds: int


class Pretraining(_Record):
    """A pre-training run that arms were made of."""

    arm: str
    run: str
    history: list[dict[str, float]]
    chance: dict[str, float]
    wall_seconds: float


class EvaluatedTask(_Record):
    """A task and the metric that the paper's table would give for it."""

    task: Task
    headline: str


class Results(_Record):
    """The whole of `results.json`.

    Attributes:
        data: Name, description, fingerprint and counts per split of the data set, as in its manifest.
        tasks: What was predicted.
        settings: Every setting, resolved.
        machine: Device, versions, date and wall time in seconds.
        cells: Every result, one by one.
        summary: Over seeds.
        comparisons: Between arms.
        pretraining: The runs behind the pre-trained arms.
    """

    data: dict[str, Any]
    tasks: list[EvaluatedTask]
    settings: dict[str, Any]
    machine: dict[str, Any]
    cells: list[Cell]
    summary: list[Summary]
    comparisons: list[Comparison]
    pretraining: list[Pretraining]

    def save(self, path: Path) -> None:
        """Writes the results as JSON."""
        path.write_text(json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads what `save` wrote."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
