"""What frozen embeddings `(N, D)` know of a task, by three readers of rising freedom."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.evaluation.baselines import linear
from tfmmcl.evaluation.metrics import Array
from tfmmcl.evaluation.predictors import Fitted, Predictor, Problem, constant, loss, of_targets, one_thread, targets

if TYPE_CHECKING:
    from sklearn.neighbors import NearestNeighbors
    from sklearn.neural_network import MLPClassifier, MLPRegressor

NEIGHBOURS = (200, 100, 50, 20, 10, 5, 3)
"""Numbers of neighbours to choose from, up to half of the training rows: all of them would tell nothing."""
DEFAULT_NEIGHBOURS = 10
"""The number where validation labels cannot choose."""

HIDDEN_UNITS = 128
MAXIMUM_EPOCHS = 500
PATIENCE = 20
"""Epochs without a lower validation loss after which the MLP stops."""
DEFAULT_EPOCHS = 30
"""Epochs where validation labels cannot choose."""


@one_thread
def fit(
    name: Literal["linear", "mlp", "knn"],
    task: Task,
    train_x: NDArray[Any],
    train_y: ArrayLike,
    validation_x: NDArray[Any],
    validation_y: ArrayLike,
    seed: int,
) -> Predictor:
    """Fits a probe. Where all training labels are equal, it predicts that constant.

    Args:
        name: Which probe: see `baselines.linear`, `mlp` and `nearest_neighbours`.
        task: What the labels are.
        train_x: Embeddings `(N, D)`, to fit to.
        train_y: Labels `(N,)`.
        validation_x: `(V, D)`, only to choose between candidates; V may be 0.
        validation_y: Labels `(V,)`.
        seed: The same seed gives the same predictor.

    Raises:
        InputError: If there is no training label, or a label is none that the task has.
    """
    problem = Problem(task, train_x, train_y, validation_x, validation_y, seed)
    if problem.is_constant:
        return constant(problem)
    return {"linear": linear, "mlp": mlp, "knn": nearest_neighbours}[name](problem)


@dataclass(frozen=True)
class Neighbours:
    """The mean of the k nearest training labels, the mean of all training labels counting as one more neighbour.

    That keeps the probabilities off 0 and 1, which k neighbours cannot vouch for.
    """

    task: Task
    index: NearestNeighbors
    targets: Array
    k: int

    @one_thread
    def predict(self, x: NDArray[Any]) -> Array:
        """Returns predictions for embeddings `(N, D)`."""
        if not len(x):
            return of_targets(self.task, np.zeros((0, self.targets.shape[1])))
        return self.of_nearest(self.targets[self.index.kneighbors(x, self.k, return_distance=False)])

    def of_nearest(self, nearest: Array) -> Array:
        """Returns predictions for the targets of at least k neighbours, nearest first, `(N, ≥ k, K)`."""
        summed = nearest[:, : self.k].sum(axis=1) + self.targets.mean(axis=0)
        return of_targets(self.task, summed / (self.k + 1))


def nearest_neighbours(problem: Problem) -> Neighbours:
    """Fits k-nearest neighbours by cosine similarity, with the k of least validation loss; nothing is drawn at random.

    The similarity is that of the embeddings as they are, not centred or scaled.
    """
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(metric="cosine", algorithm="brute").fit(problem.train_x)
    columns = targets(problem.task, problem.train_y)
    possible = [k for k in NEIGHBOURS if 2 * k <= len(columns)] or [1]
    if not problem.can_choose:
        return Neighbours(problem.task, index, columns, min(DEFAULT_NEIGHBOURS, possible[0]))
    candidates = [Neighbours(problem.task, index, columns, k) for k in possible]
    # Looked for once: the nearest few are the first of the nearest many.
    nearest = columns[index.kneighbors(problem.validation_x, possible[0], return_distance=False)]
    return candidates[problem.best(candidate.of_nearest(nearest) for candidate in candidates)]


def mlp(problem: Problem) -> Fitted:
    """Fits a network with one hidden layer of 128 units by Adam, from the epoch of least validation loss.

    Embeddings are standardised by the training rows.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    task = problem.task
    scaler = StandardScaler().fit(problem.train_x)
    network = _network(task, problem.seed)
    predictor = Fitted(task, make_pipeline(scaler, network))
    # A regression's labels are standardised, so that their unit makes no difference to training.
    centre, scale = (problem.train_y.mean(), problem.train_y.std()) if task.kind == "regression" else (0.0, 1.0)
    classes = {} if task.kind == "regression" else {"classes": np.array(task.values, np.float64)}
    x, y = scaler.transform(problem.train_x), (problem.train_y - centre) / scale
    goal = (problem.validation_y - centre) / scale

    def train_an_epoch() -> None:
        network.partial_fit(x, y, **classes)

    if problem.can_choose:
        _stop_early(network, train_an_epoch, lambda: loss(task, goal, predictor.predict(problem.validation_x)))
    else:
        for _ in range(DEFAULT_EPOCHS):
            train_an_epoch()
    network.coefs_[-1] = network.coefs_[-1] * scale
    network.intercepts_[-1] = network.intercepts_[-1] * scale + centre
    return predictor


def _network(task: Task, seed: int) -> MLPClassifier | MLPRegressor:
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.utils import check_random_state

    kind = MLPRegressor if task.kind == "regression" else MLPClassifier
    # A generator, not its seed: each epoch would begin with that again, and repeat one order.
    return kind(hidden_layer_sizes=HIDDEN_UNITS, random_state=check_random_state(seed))


def _stop_early(
    network: MLPClassifier | MLPRegressor, train_an_epoch: Callable[[], None], validation_loss: Callable[[], float]
) -> None:
    """Trains until the validation loss has not fallen for `PATIENCE` epochs, and restores its best epoch."""
    least, waited, kept = np.inf, 0, None
    for _ in range(MAXIMUM_EPOCHS):
        train_an_epoch()
        waited += 1
        if (now := validation_loss()) < least:
            least, waited, kept = now, 0, copy.deepcopy((network.coefs_, network.intercepts_))
        if waited == PATIENCE:
            break
    network.coefs_, network.intercepts_ = kept
