"""Cheap models of the tabular features, which a network must beat to be worth its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.evaluation.metrics import Array
from tfmmcl.evaluation.predictors import (
    Fitted,
    Predictor,
    Problem,
    constant,
    loss,
    of_classes,
    of_targets,
    one_thread,
    targets,
)
from tfmmcl.evaluation.tabular import static_columns
from tfmmcl.records.statistics import Moments

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

STRENGTHS = (1e4, 1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2)
"""L2 penalties to choose from, beside a sum of losses: `1 / C` of a logistic regression, `alpha` of a ridge."""
DEFAULT_STRENGTH = 1e2
"""The penalty where validation labels cannot choose."""
UNPENALISED = 1e-4
"""So weak that it only keeps a fit to classes that do not overlap from running to infinity."""

ITERATIONS = 150
"""Trees grown at most."""
DEFAULT_ITERATIONS = 20
"""Trees grown where validation labels cannot choose."""


@one_thread
def fit(
    name: Literal["logistic_regression", "gradient_boosting", "best_static"],
    task: Task,
    train_x: NDArray[Any],
    train_y: ArrayLike,
    validation_x: NDArray[Any],
    validation_y: ArrayLike,
    seed: int,
    names: Sequence[str],
) -> Predictor:
    """Fits a baseline. Where all training labels are equal, it predicts that constant.

    Args:
        name: Which baseline: see `linear`, `boosting` and `best_static`.
        task: What the labels are.
        train_x: Features `(N, F)`, to fit to.
        train_y: Labels `(N,)`.
        validation_x: `(V, F)`, only to choose between candidates; V may be 0.
        validation_y: Labels `(V,)`.
        seed: The same seed gives the same predictor.
        names: The columns' names, as `tabular.flatten` makes them; by them the statics are told.

    Raises:
        InputError: If there is no training label, or a label is none that the task has.
    """
    problem = Problem(task, train_x, train_y, validation_x, validation_y, seed)
    if problem.is_constant:
        return constant(problem)
    if name == "best_static":
        return best_static(problem, names)
    return {"logistic_regression": linear, "gradient_boosting": boosting}[name](problem)


def linear(problem: Problem) -> Fitted:
    """Fits a logistic regression, or a ridge regression, whose penalty has the least validation loss.

    Features are standardised by the training rows; what is missing takes the training mean. Nothing is drawn at random.
    """

    def fitted(strength: float) -> Fitted:
        return _fit_linear(problem.task, strength, problem.train_x, problem.train_y)

    if not problem.can_choose:
        return fitted(DEFAULT_STRENGTH)
    return problem.best_predictor([fitted(strength) for strength in STRENGTHS])


def boosting(problem: Problem) -> Fitted:
    """Fits gradient-boosted trees (scikit-learn's histogram ones), as many as have the least validation loss.

    Missing values are told apart from observed ones.
    """
    task = problem.task
    # scikit-learn cannot bin a column that was never observed; one that is constant is never split, nor read later.
    train_x = np.where(np.isnan(problem.train_x).all(axis=0), 0, problem.train_x)

    def grown(iterations: int) -> HistGradientBoostingClassifier | HistGradientBoostingRegressor:
        return _trees(problem, iterations).fit(train_x, problem.train_y)

    if not problem.can_choose:
        return Fitted(task, grown(DEFAULT_ITERATIONS))
    most = grown(ITERATIONS)
    if task.kind == "regression":
        stages = most.staged_predict(problem.validation_x)
    else:
        probabilities = most.staged_predict_proba(problem.validation_x)
        stages = (of_classes(task, most.classes_, stage) for stage in probabilities)
    # The first trees of many are the same as if only those had been grown.
    return Fitted(task, grown(1 + problem.best(stages)))


@dataclass(frozen=True)
class BestStatic:
    """The predictor of `best_static`: the columns that were chosen, by place and name, and what reads them."""

    columns: tuple[int, ...]
    names: tuple[str, ...]
    predictor: Predictor

    def predict(self, x: NDArray[Any]) -> Array:
        """Returns predictions for features `(N, F)`."""
        return self.predictor.predict(x[:, self.columns])


def best_static(problem: Problem, names: Sequence[str]) -> BestStatic:
    """Fits each static alone and takes the one that ranks the training rows best.

    The best has the highest AUROC in training, averaged over classes if there are several; for regression, the least
    squared error. A number is fitted by a logistic or linear regression, and takes the training mean where it is
    missing. The one-hot columns of a category are one static: its prediction is the training rate, or mean, of each
    category (see `CategoryMeans`). Validation rows are not used, nothing is drawn at random, and the first of equally
    good statics is taken.

    Args:
        problem: With all columns that have names.
        names: As `tabular.flatten` makes them.
    """
    task = problem.task
    candidates = []
    for columns in one_hot_groups(problem.train_x, static_columns(names)):
        x = problem.train_x[:, columns]
        if len(columns) > 1:
            predictor = CategoryMeans.fit(task, x, problem.train_y)
        else:
            predictor = _fit_linear(task, UNPENALISED, x, problem.train_y)
        candidates.append(BestStatic(columns, tuple(names[column] for column in columns), predictor))
    scores = [_training_score(task, problem.train_y, item.predict(problem.train_x)) for item in candidates]
    return candidates[int(np.argmax(scores))]


@dataclass(frozen=True)
class CategoryMeans:
    """Predicts the training mean of each category, the mean of all training rows counting as one more row of it.

    Attributes:
        task: What the labels are.
        means: `(G + 1, K)`, of each category; last that of all rows, for a row that is in no category or in several.
    """

    task: Task
    means: Array

    @classmethod
    def fit(cls, task: Task, one_hot: NDArray[Any], labels: Array) -> CategoryMeans:
        """Takes one-hot rows `(N, G)` and labels `(N,)`."""
        values = targets(task, labels)
        overall = values.mean(axis=0, keepdims=True)
        members = np.nan_to_num(one_hot).astype(np.float64)
        means = (members.T @ values + overall) / (members.sum(axis=0)[:, None] + 1)
        return cls(task, np.concatenate([means, overall]))

    def predict(self, x: NDArray[Any]) -> Array:
        """Returns predictions for rows `(N, G)`."""
        category = np.where((x == 1).sum(axis=1) == 1, (x == 1).argmax(axis=1), x.shape[1])
        return of_targets(self.task, self.means[category])


def one_hot_groups(x: NDArray[Any], columns: Sequence[int]) -> list[tuple[int, ...]]:
    """Returns some columns of `(N, F)`, in order, with the one-hot columns of a category grouped.

    A group is a run of neighbours of which every row has exactly one 1, the others being 0; a row may also be NaN in
    all of them. At least two of them are 1 somewhere, and it ends as soon as it is complete.
    """
    groups: list[tuple[int, ...]] = []
    start = 0
    while start < len(columns):
        run = columns[start:]
        size = next((size for size in range(2, len(run) + 1) if _is_one_hot(x[:, run[:size]])), 1)
        groups.append(tuple(run[:size]))
        start += size
    return groups


def _is_one_hot(x: NDArray[Any]) -> bool:
    observed = x[~np.isnan(x).all(axis=1)]
    one_per_row = np.isin(observed, (0, 1)).all() and (observed.sum(axis=1) == 1).all()
    return bool(one_per_row and np.count_nonzero(observed.any(axis=0)) > 1)


def _fit_linear(task: Task, strength: float, x: NDArray[Any], y: Array) -> Fitted:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    if task.kind == "regression":
        model = Ridge(alpha=strength, solver="svd")
    else:
        model = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-6, max_iter=1000)
    # As for the network: the moments are those of what was observed, and those of an empty or constant column harmless.
    moments = Moments.zeros(x.shape[1])
    moments.add(x)
    scaler = FunctionTransformer(_standardise, kw_args={"mean": moments.mean, "std": moments.scale()})
    return Fitted(task, make_pipeline(scaler, model).fit(x, y))


def _standardise(x: NDArray[Any], mean: Array, std: Array) -> Array:
    return np.nan_to_num((x - mean) / std)


def _trees(problem: Problem, iterations: int) -> HistGradientBoostingClassifier | HistGradientBoostingRegressor:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if problem.task.kind == "regression" else HistGradientBoostingClassifier
    return kind(
        learning_rate=0.1,
        max_iter=iterations,
        max_leaf_nodes=15,
        # Few rows could not be split at all with the usual 20.
        min_samples_leaf=int(np.clip(len(problem.train_y) // 20, 1, 20)),
        early_stopping=False,
        random_state=problem.seed,
    )


def _training_score(task: Task, labels: Array, predictions: Array) -> float:
    from sklearn.metrics import roc_auc_score

    if task.kind == "regression":
        return -loss(task, labels, predictions)
    if task.kind == "binary":
        return float(roc_auc_score(labels, predictions))
    present = np.unique(labels).astype(int)
    return float(np.mean([roc_auc_score(labels == label, predictions[:, label]) for label in present]))
