"""What the pictures share: figures in millimetres, one look, PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCH = 25.4  # millimetres
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
    # A name from a data set may hold a dollar sign.
    "text.parse_math": False,
}


def styled(draw: Callable[..., bytes]) -> Callable[..., bytes]:
    """Has a function draw with these looks, whatever the user's own style."""

    @wraps(draw)
    def drawn(*arguments: Any, **options: Any) -> bytes:
        import matplotlib

        with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}):
            return draw(*arguments, **options)

    return drawn


def new_figure(width_mm: float, height_mm: float, layout: str | None = "constrained") -> Figure:
    """Returns an empty figure."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_mm / _INCH, height_mm / _INCH), dpi=110, layout=layout)


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Returns axes of a figure without layout, given their place from its upper left corner, in millimetres."""
    whole_width, whole_height = (inches * _INCH for inches in figure.get_size_inches())
    bottom = whole_height - top - height
    return figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))


def to_png(figure: Figure) -> bytes:
    """Returns a figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
