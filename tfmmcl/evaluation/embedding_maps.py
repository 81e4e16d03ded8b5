"""Maps of a frozen encoder's embeddings by t-SNE, coloured by what the encoder was never told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.evaluation.drawing import COLOURS, PAGE_MM, Picture, new_figure, square, styled, to_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 2000
"""Trajectories in a map at most; drawn at random, always the same."""
PATIENTS = len(COLOURS)
"""Patients in colour, those with most trajectories."""
_FEWEST = 10  # trajectories below which a map says nothing
_COLUMNS = 3
_COLUMN_MM, _ROW_MM = PAGE_MM / _COLUMNS, 104.0
_PALETTE = tuple(COLOURS.values())
_OTHERS = "#D5DADD"


class Embeddings:
    """At most `POINTS` trajectories' places on a map.

    Args:
        path: A file with `embedding` `(n, D)`, `patient` `(n,)`, and `task/NAME` `(n,)`, NaN without a label.

    Attributes:
        places: `(m, 2)`.
        patient: `(m,)`.
        labels: Task → labels `(m,)`.
        total: Trajectories in the file, n.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            embedding, patient = arrays["embedding"].astype(np.float64), arrays["patient"]
            labels = {key.removeprefix("task/"): arrays[key] for key in arrays if key.startswith("task/")}
        self.total = len(embedding)
        finite = np.flatnonzero(np.isfinite(embedding).all(axis=1))
        drawn = np.sort(np.random.default_rng(0).permutation(finite)[:POINTS])
        self.places = _map(embedding[drawn])
        self.patient = patient[drawn]
        self.labels = {task: label[drawn] for task, label in labels.items()}

    @property
    def repeated(self) -> bool:
        """Whether some patient has more than one trajectory, so that patients can be told apart at all."""
        return np.unique(self.patient).size < self.patient.size


@styled
def draw_map(embeddings: Embeddings, tasks: Sequence[Task]) -> Picture | None:
    """Draws a map once for each task, and once by patient where patients have several trajectories.

    Args:
        embeddings: The map.
        tasks: What to colour it by; those without labels are left out.

    Returns:
        None where there is nothing to colour by, or there are too few trajectories.
    """
    tasks = [task for task in tasks if np.isfinite(embeddings.labels.get(task.name, np.nan)).any()]
    count = len(tasks) + embeddings.repeated
    if not count or len(embeddings.places) < _FEWEST:
        return None
    columns = min(count, _COLUMNS)
    figure = new_figure(_COLUMN_MM * columns, _ROW_MM * -(-count // columns), layout="none")
    corners = [(_COLUMN_MM * (place % columns) + 3, _ROW_MM * (place // columns) + 7) for place in range(count)]
    axes = [square(figure, *corner, _COLUMN_MM - 6) for corner in corners]
    for axis, task in zip(axes, tasks):
        _draw_task(axis, embeddings.places, embeddings.labels[task.name], task)
    if embeddings.repeated:
        _draw_patients(axes[-1], embeddings)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color="0.8")
    return to_picture(figure)


def _map(embedding: np.ndarray) -> np.ndarray:
    """Returns places `(m, 2)` of embeddings `(m, D)`: t-SNE from the first two principal components, of one seed."""
    from sklearn.manifold import TSNE

    if len(embedding) < _FEWEST:
        return np.zeros((len(embedding), 2))
    perplexity = min(30.0, (len(embedding) - 1) / 3)
    method = TSNE(perplexity=perplexity, init="pca" if embedding.shape[1] > 1 else "random", random_state=0)
    return method.fit_transform(embedding)


def _draw_task(axis: Axes, places: np.ndarray, label: np.ndarray, task: Task) -> None:
    unit = f" ({task.unit})" if task.unit != "1" else ""
    axis.set_title(f"{task.name}{unit}")
    known = np.isfinite(label)
    _scatter(axis, places[~known], "0.9", f"no label ({(~known).sum():,})")
    if task.kind == "regression":
        points = axis.scatter(*places[known].T, c=label[known], s=5, cmap="viridis", linewidth=0, rasterized=True)
        axis.figure.colorbar(points, cax=axis.inset_axes((0.05, -0.06, 0.9, 0.03)), orientation="horizontal")
        return
    names = task.classes or ("negative", "positive")
    # The rarer class of two stands out, and is drawn last.
    colours = ("#9FB4C4", "#D55E00") if task.kind == "binary" else _PALETTE
    values = range(len(names))
    if task.kind == "binary":
        values = sorted(values, key=lambda value: -(label == value).sum())
    for colour, value in enumerate(values):
        chosen = label == value
        _scatter(axis, places[chosen], colours[colour % len(colours)], f"{names[value]} ({chosen.sum():,})")
    _name(axis)


def _draw_patients(axis: Axes, embeddings: Embeddings) -> None:
    patients, counts = np.unique(embeddings.patient, return_counts=True)
    # Of patients with equally many, the first by id.
    most = np.argsort(-counts, kind="stable")[:PATIENTS]
    axis.set_title(f"by patient: the {len(most)} with most trajectories")
    others = ~np.isin(embeddings.patient, patients[most])
    _scatter(axis, embeddings.places[others], _OTHERS, f"{len(patients) - len(most):,} others ({others.sum():,})")
    for place, index in enumerate(most):
        chosen = embeddings.patient == patients[index]
        # Ids stay out of a report.
        _scatter(axis, embeddings.places[chosen], _PALETTE[place], f"no. {place + 1} ({chosen.sum():,})", size=10)
    _name(axis)


def _scatter(axis: Axes, places: np.ndarray, colour: str, label: str, size: float = 5) -> None:
    if len(places):
        axis.scatter(*places.T, s=size, color=colour, linewidth=0, label=label, rasterized=True)


def _name(axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=3,
        markerscale=2,
        handletextpad=0.1,
        columnspacing=0.9,
    )
