"""What the evaluation's figures share: the arms' colours, the sizes of text, and SVG."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tfmmcl import drawing
from tfmmcl.drawing import in_style
from tfmmcl.evaluation.results import DISPLAY_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

PAGE_MM = 262.0
"""Width of the report's page: on a screen, text of 9 points is then about as large as the page's own small print."""

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), which the colour-blind tell apart; lines and markers
# differ too, for print without colour.
COLOURS = {
    "rand_init": "#D55E00",
    "rand_init_no_ecg": "#E69F00",
    "contrastive": "#0072B2",
    "contrastive_no_ecg": "#56B4E9",
    "logistic_regression": "#009E73",
    "gradient_boosting": "#CC79A7",
    "best_static": "#555555",
}
LINES = {"rand_init": "-", "contrastive": "-", "rand_init_no_ecg": "--", "contrastive_no_ecg": "--"}
MARKERS = dict(zip(COLOURS, "sDo^PXv"))
REFERENCE = {"color": "0.55", "linewidth": 0.8, "linestyle": (0, (1, 2)), "zorder": 1}
"""The looks of a line of chance or of perfection."""

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    # The same figure is the same file.
    "svg.hashsalt": "tfmmcl",
}


@dataclass(frozen=True)
class Picture:
    """A figure as an SVG file, and the fraction of the page's width that it takes."""

    svg: bytes
    width: float


styled = in_style(_STYLE)
"""Has a function draw with this report's looks, whatever the user's own style."""


def new_figure(width_mm: float, height_mm: float, layout: Literal["constrained", "none"] = "constrained") -> Figure:
    """Returns an empty figure; points drawn as pixels are 200 to the inch."""
    return drawing.new_figure(width_mm, height_mm, 200, layout)


def square(figure: Figure, left_mm: float, top_mm: float, side_mm: float) -> Axes:
    """Returns a square panel, of a figure without layout: with one, squares and what is written around them clash."""
    return drawing.place(figure, left_mm, top_mm, side_mm, side_mm)


def to_picture(figure: Figure) -> Picture:
    """Returns a figure as an SVG file, text as outlines, so that it looks the same everywhere."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return Picture(buffer.getvalue(), figure.get_figwidth() * drawing.MM_PER_INCH / PAGE_MM)


def looks(arm: str) -> dict[str, Any]:
    """Returns the colour and line of an arm; baselines are dotted."""
    return {"color": COLOURS[arm], "linestyle": LINES.get(arm, ":")}


def legend(figure: Figure, arms: Iterable[str], rows: Iterable[Line2D] = ()) -> None:
    """Names arms, and whatever else, above a figure's panels."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker=MARKERS[arm], label=DISPLAY_NAMES[arm], **looks(arm)) for arm in arms]
    handles += rows
    fitting = max(1, int(figure.get_figwidth() / 2))  # two inches hold the longest name
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 4, fitting), handlelength=2.8)


def panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    """Returns `count` panels in rows of `columns`."""
    grid = figure.subplots(-(-count // columns), columns, squeeze=False).ravel()
    for axis in grid[count:]:
        axis.remove()
    return list(grid[:count])
