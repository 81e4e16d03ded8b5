"""A picture of how similar trajectories' views are."""

from __future__ import annotations

import numpy as np

from tfmmcl.drawing import in_style, new_figure, to_png
from tfmmcl.training.watching.drawing import DPI, STYLE


@in_style(STYLE)
def draw_similarity(similarities: np.ndarray) -> bytes:
    """Draws cosine similarities `(N, N)` of first views (rows) with second views (columns) of N trajectories.

    Returns:
        A PNG file.
    """
    count = len(similarities)
    own = np.diag(similarities).mean()
    others = similarities[~np.eye(count, dtype=bool)].mean() if count > 1 else np.nan
    nearest = np.mean(similarities.argmax(axis=1) == np.arange(count))
    figure = new_figure(150, 130, DPI)
    axis = figure.subplots()
    image = axis.imshow(similarities, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axis.set_xlabel("second view of trajectory")
    axis.set_ylabel("first view of trajectory")
    axis.set_title(
        f"own other view {own:.2f}, others' {others:.2f} on average;\nnearest second view is the own: {nearest:.0%} "
        f"(chance {1 / count:.0%})"
    )
    figure.colorbar(image, label="cosine similarity after the projection head")
    return to_png(figure)
