"""A picture of a trajectory beside its augmented views: the signals as on ECG paper, the features as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tfmmcl.cohorts.trajectory import Feature, Spec
from tfmmcl.drawing import in_style, new_figure, place, to_png
from tfmmcl.records.statistics import Statistics
from tfmmcl.training.watching.drawing import DPI, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

View = dict[str, np.ndarray]

# Millimetres.
PER_SECOND, PER_MILLIVOLT = 25.0, 10.0
"""The scale of a printed ECG: small squares of 0.04 s and 0.1 mV, large ones of 0.2 s and 0.5 mV."""
_WIDEST, _WIDEST_BESIDE = 260.0, 125.0
_STRIP_HEIGHTS = (15.0, 50.0)
_LEFT, _GAP, _TITLE, _ROW, _BETWEEN, _AXIS = 36.0, 5.0, 7.0, 4.6, 2.0, 9.0
_SMALL, _LARGE, _ABSENT = "#fbe3e0", "#f0b9b3", "0.86"
_TEXT_IN = 7.0
"""A cell as wide as this has its value written in it."""


@dataclass(frozen=True)
class _Strip:
    """One lead's panel: its range in mV, and its height on the picture in mm."""

    low: float
    high: float
    height: float
    to_scale: bool


@in_style(STYLE)
def draw_views(spec: Spec, statistics: Statistics, views: Sequence[tuple[str, View]], title: str) -> bytes:
    """Draws views of one trajectory: the last window's leads in mV over seconds, then all features.

    Short segments stand side by side, longer ones below one another. What is masked or missing is grey: there the
    encoder reads the mean. Colours are standard deviations from the training mean, figures are in physical units.

    Args:
        spec: Names and units.
        statistics: Bring standardised values back to physical units.
        views: Titles and views, each with `structured` `(T, M)` and `statics` `(L,)` standardised and, with ECG,
            `signals` `(T, Z, C)`.
        title: Above everything.

    Returns:
        A PNG file.
    """
    signals = [
        np.where(
            view["signals"][-1] == 0, np.nan, view["signals"][-1] * statistics.signals_std + statistics.signals_mean
        )
        for _, view in views
        if "signals" in view
    ]
    seconds = len(signals[0]) / spec.sampling_rate_hz if signals else 4.0
    beside = seconds * PER_SECOND <= _WIDEST_BESIDE
    width = min(seconds * PER_SECOND, _WIDEST)
    scale = width / (seconds * PER_SECOND)
    leads = spec.leads if signals else ()
    strips = [_strip(np.stack([signal[:, lead] for signal in signals]), scale) for lead in range(len(leads))]
    features = len(spec.structured) + len(spec.statics)
    strips_height = sum(strip.height + _BETWEEN for strip in strips) + _AXIS * bool(strips)
    height = _TITLE + strips_height + features * _ROW + 2 * _AXIS
    block = (width + _LEFT + _GAP, height)
    columns, rows = (len(views), 1) if beside else (1, len(views))
    figure = new_figure(columns * block[0] + 18, rows * block[1] + 10, DPI, "none")
    figure.suptitle(title, y=1 - 1.5 / (rows * block[1] + 10), va="top", fontsize=10)
    image = None
    for index, (name, view) in enumerate(views):
        left = (index if beside else 0) * block[0] + _LEFT
        top = 9 + (0 if beside else index) * block[1] + _TITLE
        for lead, strip in enumerate(strips):
            axis = place(figure, left, top, width, strip.height)
            _draw_lead(axis, signals[index][:, lead], spec, strip, scale)
            axis.set_ylabel(f"{leads[lead]} (mV)")
            if lead == 0:
                axis.set_title(name)
            if lead < len(strips) - 1:
                axis.tick_params(labelbottom=False)
            else:
                axis.set_xlabel("seconds" + ("" if scale < 1 or not strip.to_scale else " (25 mm/s, 10 mm/mV)"))
            top += strip.height + _BETWEEN
        top += _AXIS * bool(strips)
        axis = place(figure, left, top, width, len(spec.structured) * _ROW)
        spread = (statistics.structured_mean, statistics.structured_std)
        _draw_table(axis, spec.structured, view["structured"].T, *spread, width / spec.windows)
        axis.set_xticks(range(spec.windows), range(1, spec.windows + 1))
        axis.set_xlabel("window")
        if not strips:
            axis.set_title(name)
        top += len(spec.structured) * _ROW + _AXIS
        axis = place(figure, left, top, width, len(spec.statics) * _ROW)
        spread = (statistics.statics_mean, statistics.statics_std)
        image = _draw_table(axis, spec.statics, view["statics"][:, None], *spread, width)
        axis.set_xticks([])
    _draw_colours(figure, image, columns * block[0] + 2, 9 + _TITLE + strips_height, features * _ROW + _AXIS)
    return to_png(figure)


def _strip(millivolts: np.ndarray, scale: float) -> _Strip:
    """Returns the panel that a lead's signals `(V, Z)` fit in, in whole large squares; at least 1.5 mV."""
    found = millivolts[np.isfinite(millivolts)]
    low, high = np.quantile(found, (0.001, 0.999)) if len(found) else (-0.5, 0.5)
    low, high = np.floor(low / 0.5) * 0.5, np.ceil(high / 0.5) * 0.5
    high = max(high, low + 1.5)
    wanted = (high - low) * PER_MILLIVOLT * scale
    height = float(np.clip(wanted, *_STRIP_HEIGHTS))
    return _Strip(float(low), float(high), height, height == wanted)


def _draw_lead(axis: Axes, millivolts: np.ndarray, spec: Spec, strip: _Strip, scale: float) -> None:
    time = np.arange(len(millivolts)) / spec.sampling_rate_hz
    end = len(millivolts) / spec.sampling_rate_hz
    axis.set_xlim(0, end)
    axis.set_ylim(strip.low, strip.high)
    # Squares, unless they would be too small or too many to be seen.
    if strip.high - strip.low <= 12:
        small = [(0.04, 0.1, _SMALL, 0.35)] if scale > 0.6 and strip.to_scale else []
        for step, level, colour, thickness in (*small, (0.2, 0.5, _LARGE, 0.6)):
            if end / step <= 300:
                axis.vlines(np.arange(0, end, step), strip.low, strip.high, colour, linewidth=thickness, zorder=0)
            axis.hlines(np.arange(strip.low, strip.high, level), 0, end, colour, linewidth=thickness, zorder=0)
    absent = np.isnan(millivolts)
    axis.fill_between(
        time, 0, 1, where=absent, transform=axis.get_xaxis_transform(), color=_ABSENT, linewidth=0, zorder=1
    )
    axis.plot(time, millivolts, color="black", linewidth=0.7, zorder=2)
    axis.tick_params(length=2)


def _draw_table(
    axis: Axes, features: Sequence[Feature], values: np.ndarray, mean: np.ndarray, std: np.ndarray, cell: float
) -> AxesImage:
    """Draws standardised values `(F, N)` as a heat map whose cells are `cell` mm wide."""
    axis.set_facecolor(_ABSENT)
    shown = np.ma.masked_equal(values, 0)
    image = axis.imshow(shown, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
    axis.set_yticks(range(len(features)), [feature.named() for feature in features])
    axis.tick_params(length=0)
    for row, column in zip(*values.nonzero()):
        if cell >= _TEXT_IN:
            text = f"{values[row, column] * std[row] + mean[row]:.3g}"
            colour = "white" if abs(values[row, column]) > 2 else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
    return image


def _draw_colours(figure: Figure, image: AxesImage, left: float, top: float, height: float) -> None:
    bar = figure.colorbar(image, cax=place(figure, left, top, 3, height))
    bar.set_label("standard deviations from the training mean; grey: cut out, or missing", fontsize=7)
    bar.ax.tick_params(labelsize=7)
