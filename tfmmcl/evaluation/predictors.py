"""What baselines and probes share: the problem, what solves it, and choices made on the validation split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.errors import InputError
from tfmmcl.evaluation.metrics import SMALLEST_PROBABILITY, Array

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

MINIMUM_VALIDATION_LABELS = 10
"""With fewer, the validation split chooses nothing; each method has a default."""


one_thread = threadpool_limits.wrap(limits=1)
"""Has a function's linear algebra and trees use one thread.

These problems are small and several may run at once: on busy cores, threads that wait for each other at every tree take
many times as long as one. Nor do results then depend on the number of cores.
"""


class Predictor(Protocol):
    """What has been fitted."""

    def predict(self, x: NDArray[Any]) -> Array:
        """Returns predictions for rows `(N, F)`.

        Probabilities of label 1 `(N,)` for a binary task, of each class `(N, K)` for a multiclass one, and values in
        the label's unit `(N,)` for regression.
        """
        ...


P = TypeVar("P", bound=Predictor)


@dataclass(frozen=True)
class Problem:
    """A task and the labelled rows of two splits. There is no test split here, so it can have no say.

    Args:
        task: What the labels are.
        train_x: Features or embeddings `(N, F)`, to fit to.
        train_y: Labels `(N,)`.
        validation_x: `(V, F)`, only to choose between candidates; V may be 0.
        validation_y: Labels `(V,)`.
        seed: Of whatever is drawn at random.

    Raises:
        InputError: If there is no training label, there is not one label per row, or a label is none that the task has.
    """

    task: Task
    train_x: NDArray[Any]
    train_y: Array
    validation_x: NDArray[Any]
    validation_y: Array
    seed: int

    def __post_init__(self) -> None:
        if not len(self.train_x):
            raise InputError(f"task '{self.task.name}': found no training label; expected at least one.")
        object.__setattr__(self, "train_y", _checked(self.task, self.train_x, self.train_y))
        object.__setattr__(self, "validation_y", _checked(self.task, self.validation_x, self.validation_y))

    @property
    def is_constant(self) -> bool:
        """Whether all training labels are equal, so that there is nothing to learn."""
        return np.unique(self.train_y).size == 1

    @property
    def can_choose(self) -> bool:
        """Whether validation labels can tell good candidates from bad ones: they must be some, and not all equal.

        With one class only, the best candidate would be the one that always predicts that class.
        """
        return self.validation_y.size >= MINIMUM_VALIDATION_LABELS and np.unique(self.validation_y).size > 1

    def best(self, predictions: Iterable[Array]) -> int:
        """Returns which of several predictions of the validation rows has the least loss, the first if some tie."""
        return int(np.argmin([loss(self.task, self.validation_y, prediction) for prediction in predictions]))

    def best_predictor(self, candidates: Sequence[P]) -> P:
        """Returns the candidate of least validation loss."""
        return candidates[self.best(candidate.predict(self.validation_x) for candidate in candidates)]


@dataclass(frozen=True)
class Fitted:
    """A fitted scikit-learn estimator as a predictor."""

    task: Task
    estimator: BaseEstimator

    @one_thread
    def predict(self, x: NDArray[Any]) -> Array:
        """Returns predictions for rows `(N, F)`."""
        if self.task.kind == "regression":
            return self.estimator.predict(x)
        return of_classes(self.task, self.estimator.classes_, self.estimator.predict_proba(x))


def constant(problem: Problem) -> Fitted:
    """Returns what predicts the rates, or the mean, of the training labels whatever the row."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    dummy = DummyRegressor() if problem.task.kind == "regression" else DummyClassifier(strategy="prior")
    return Fitted(problem.task, dummy.fit(problem.train_x, problem.train_y))


def loss(task: Task, labels: Array, predictions: Array) -> float:
    """Returns the mean log loss in nats, or the mean squared error for regression.

    Args:
        task: What the labels are.
        labels: `(N,)`.
        predictions: As `Predictor.predict` returns them.
    """
    if task.kind == "regression":
        return float(np.mean((predictions - labels) ** 2))
    columns = predictions if task.kind == "multiclass" else np.stack([1 - predictions, predictions], axis=1)
    chosen = columns[np.arange(labels.size), labels.astype(int)]
    return float(-np.mean(np.log(np.maximum(chosen, SMALLEST_PROBABILITY))))


def targets(task: Task, labels: Array) -> Array:
    """Returns labels as columns whose mean is a prediction: one-hot `(N, K)`, K = 2 if binary; `(N, 1)` values."""
    if task.kind == "regression":
        return labels[:, None]
    return (labels[:, None] == np.array(task.values)).astype(np.float64)


def of_targets(task: Task, means: Array) -> Array:
    """Returns means of `targets` as `Predictor.predict` returns predictions."""
    return {"binary": means[:, -1], "multiclass": means, "regression": means[:, 0]}[task.kind]


def of_classes(task: Task, classes: Array, probabilities: Array) -> Array:
    """Returns the predictions of an estimator that knows only some of a task's classes; the others get 0.

    Args:
        task: A binary or multiclass task.
        classes: The labels that the estimator has seen, `(S,)`.
        probabilities: Of each of those, `(N, S)`.
    """
    every = np.zeros((len(probabilities), len(task.values)))
    every[:, np.asarray(classes, int)] = probabilities
    return of_targets(task, every)


def _checked(task: Task, x: NDArray[Any], y: ArrayLike) -> Array:
    labels = np.asarray(y, np.float64)
    if labels.shape != (len(x),):
        raise InputError(
            f"task '{task.name}': found labels of shape {labels.shape}; expected ({len(x)},), one per row."
        )
    allowed = np.isfinite(labels) if task.kind == "regression" else np.isin(labels, task.values)
    if not allowed.all():
        expected = ", ".join(map(str, task.values)) or "finite numbers"
        raise InputError(f"task '{task.name}': found the label {labels[~allowed][0]:g}; expected {expected} only.")
    return labels
