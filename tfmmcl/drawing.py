"""What all pictures share: figures and panels measured in millimetres, one look each, PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MM_PER_INCH = 25.4
PictureT = TypeVar("PictureT")


def in_style(style: Mapping[str, Any]) -> Callable[[Callable[..., PictureT]], Callable[..., PictureT]]:
    """Returns a decorator that has a function draw with certain looks, whatever the user's own style.

    Args:
        style: What differs from matplotlib's defaults.
    """

    def decorate(draw: Callable[..., PictureT]) -> Callable[..., PictureT]:
        @wraps(draw)
        def drawn(*arguments: Any, **options: Any) -> PictureT:
            import matplotlib

            # A name from a data set may hold dollar signs, which are no formula.
            with matplotlib.rc_context({**matplotlib.rcParamsDefault, "text.parse_math": False, **style}):
                return draw(*arguments, **options)

        return drawn

    return decorate


def new_figure(
    width_mm: float, height_mm: float, dpi: float, layout: Literal["constrained", "none"] = "constrained"
) -> Figure:
    """Returns an empty figure; `dpi` is the pixels to an inch, where it has any."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_mm / MM_PER_INCH, height_mm / MM_PER_INCH), dpi=dpi, layout=layout)


def place(figure: Figure, left_mm: float, top_mm: float, width_mm: float, height_mm: float) -> Axes:
    """Returns a panel of a figure without layout, given its place from the figure's upper left corner."""
    width, height = (inches * MM_PER_INCH for inches in figure.get_size_inches())
    bottom = height - top_mm - height_mm
    return figure.add_axes((left_mm / width, bottom / height, width_mm / width, height_mm / height))


def to_png(figure: Figure) -> bytes:
    """Returns a figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
