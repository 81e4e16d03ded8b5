"""What frozen embeddings `(N, D)` are worth, in figures that take milliseconds, without TensorFlow.

`evaluation.probes` chooses its strength on the validation split and is the one to report; these do not choose, so that
the validation split's figures stay honest while a run is watched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tfmmcl.cohorts.trajectory import Task

NEIGHBOURS = 10
STRENGTH = 0.1
"""Inverse of the logistic regression's penalty: a strong one, as there may be more dimensions than trajectories."""

Array = NDArray[np.float64]

_one_thread = threadpool_limits.wrap(limits=1)
# These problems are small: more threads, beside TensorFlow's, wait for each other. Nor do results then depend on their
# number.


@_one_thread
def effective_rank(embeddings: Array) -> float:
    """Returns exp of the entropy of the singular values of `(N, D)`, each divided by their sum; 1 for zeros.

    Roy and Vetterli 2007, The effective rank, EUSIPCO. Embeddings are not centred, so that those which have collapsed
    to one point have rank 1.
    """
    values = np.linalg.svd(np.asarray(embeddings, np.float64), compute_uv=False)
    parts = values[values > 0] / values.sum()
    return float(np.exp(-np.sum(parts * np.log(parts))))


@_one_thread
def probe(task: Task, train_x: Array, train_y: Array, validation_x: Array, validation_y: Array) -> dict[str, float]:
    """Fits a linear probe and nearest neighbours to one split's embeddings, and scores them on the other's.

    Args:
        task: What the labels are.
        train_x: Embeddings `(N, D)`.
        train_y: Labels `(N,)`.
        validation_x: Embeddings `(V, D)`.
        validation_y: Labels `(V,)`.

    Returns:
        `linear_probe_auroc` and `knn_auroc`, of several classes their mean over one against the rest; of a number
        `linear_probe_r2` and `knn_r2`. Nothing where either split's labels are all alike.
    """
    if min(len(np.unique(train_y)), len(np.unique(validation_y))) < 2:
        return {}
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    nearest = {"n_neighbors": min(NEIGHBOURS, len(train_y)), "metric": "cosine", "algorithm": "brute"}
    if task.kind == "regression":
        readers = {"linear_probe": Ridge(1 / STRENGTH), "knn": KNeighborsRegressor(**nearest)}
    else:
        readers = {"linear_probe": LogisticRegression(C=STRENGTH, max_iter=500), "knn": KNeighborsClassifier(**nearest)}
    readers["linear_probe"] = make_pipeline(StandardScaler(), readers["linear_probe"])
    found = {}
    for name, reader in readers.items():
        reader.fit(train_x, train_y)
        if task.kind == "regression":
            found[f"{name}_r2"] = float(reader.score(validation_x, validation_y))
        else:
            found[f"{name}_auroc"] = _auroc(validation_y, reader.predict_proba(validation_x), reader.classes_)
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _auroc(labels: Array, probabilities: Array, classes: Array) -> float:
    """Returns the mean AUROC of each class that occurs against the rest; of two classes, that of the second."""
    from sklearn.metrics import roc_auc_score

    columns = [(label, column) for label, column in zip(classes, probabilities.T) if label in labels]
    return float(np.mean([roc_auc_score(labels == label, column) for label, column in columns] or [np.nan]))
