"""The report's pictures: histograms, missing values, and trajectories with their signals on ECG paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tfmmcl.cohorts.splits import Split
from tfmmcl.cohorts.trajectory import Feature, Spec, Trajectory
from tfmmcl.drawing import in_style, new_figure, place, to_png
from tfmmcl.records.profile import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 203.2  # eight pixels to the millimetre, so that the paper's lines fall on pixels
COLOURS = {"train": "#1f4e79", "validation": "#e08e0b", "test": "#7a7a7a"}
MINOR, MAJOR = "#f9e0de", "#f4c7c3"
_WIDTH = 262.0  # mm, of every picture: 10 s of paper and its margins
_SMALL = {"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7}

PAPER_SECONDS = 10.0
MM_PER_SECOND, MM_PER_MV = 25.0, 10.0  # as ECGs are printed
_STRIP = (20, 40)  # mm, least and greatest height of a lead's strip
_COLUMNS = 5  # small pictures beside each other
_FEW = 5  # different values, up to which a feature's are counted one by one
_MAP_COLUMNS = 300  # trajectories in the map of missing values


@in_style(_SMALL)
def draw_histograms(spec: Spec, rows: Mapping[Split, Rows]) -> bytes:
    """Draws each feature's density per split; structured features over all windows.

    Args:
        spec: Names and units.
        rows: Split → sample of its trajectories.

    Returns:
        A PNG file.
    """
    features = [*spec.statics, *spec.structured]
    lines = -(-len(features) // _COLUMNS)
    figure = _figure(26.0 * lines + 12)
    grid = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for axis in grid[len(features) :]:
        axis.remove()
    for index, (axis, feature) in enumerate(zip(grid, features)):
        values = {split: _observed(sample, index) for split, sample in rows.items()}
        _title(axis, feature)
        axis.set_yticks([])
        axis.spines[["left", "top", "right"]].set_visible(False)
        everything = np.concatenate(list(values.values()))
        if not everything.size:
            axis.set_xticks([])
            axis.text(0.5, 0.5, "never observed", transform=axis.transAxes, ha="center", va="center", color="0.4")
            continue
        observed = {split: some for split, some in values.items() if some.size}
        if len(np.unique(everything)) <= _FEW:
            _draw_fractions(axis, observed)
            continue
        edges = _bins(everything, min(len(some) for some in observed.values()))
        for split, some in observed.items():
            density = np.histogram(np.clip(some, edges[0], edges[-1]), edges, density=True)[0]
            axis.stairs(density, edges, color=COLOURS[split], linewidth=1.1)
    _legend(figure, {split: COLOURS[split] for split in rows})
    return to_png(figure)


@in_style(_SMALL)
def draw_missing(spec: Spec, rows: Mapping[Split, Rows]) -> bytes:
    """Draws which values are missing: by window over a sample of all splits, and by trajectory.

    Args:
        spec: Names.
        rows: Split → sample of its trajectories.

    Returns:
        A PNG file.
    """
    from matplotlib.colors import PowerNorm

    statics = np.concatenate([~np.isfinite(sample.statics) for sample in rows.values()])
    windows = np.concatenate(
        [np.concatenate([~np.isfinite(sample.structured), ~sample.present], axis=2) for sample in rows.values()]
    )
    # Evenly from each split's sample, which is in no particular order.
    shown = np.unique(np.linspace(0, len(statics) - 1, min(_MAP_COLUMNS, len(statics))).round().astype(int))
    by_trajectory = np.concatenate([statics[shown], windows[shown].mean(axis=1)], axis=1).T
    by_trajectory = by_trajectory[:, np.lexsort(by_trajectory[::-1])]
    by_window = np.concatenate([np.repeat(statics.mean(axis=0)[:, None], spec.windows, axis=1), windows.mean(axis=0).T])
    names = [item.name for item in (*spec.statics, *spec.structured)] + [f"lead {lead}" for lead in spec.leads]
    figure = _figure(4.2 * len(names) + 26)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.6], sharey=True)
    left.set_title("by window")
    right.set_title(f"by trajectory: {len(shown)} at random, sorted by what is missing")
    for axis, values, label in ((left, by_window, "window"), (right, by_trajectory, "trajectory")):
        image = axis.imshow(values, cmap="Greys", norm=PowerNorm(0.5, 0, 1), aspect="auto", interpolation="nearest")
        axis.set_xlabel(label)
        for end in (len(spec.statics), len(spec.statics) + len(spec.structured)):
            axis.axhline(end - 0.5, color="#c0392b", linewidth=0.7)
    left.set_yticks(range(len(names)), names)
    ticks = np.unique(np.linspace(0, spec.windows - 1, min(spec.windows, 10)).round().astype(int))
    left.set_xticks(ticks, ticks + 1)
    right.set_xticks([])
    figure.colorbar(image, ax=[left, right], label="missing, fraction", pad=0.01, aspect=30)
    return to_png(figure)


@in_style(_SMALL)
def draw_trajectory(spec: Spec, trajectory: Trajectory) -> bytes:
    """Draws a trajectory: 10 s of its last window with a signal on ECG paper, its structured features and its statics.

    The paper has 1-mm and 5-mm lines, at 25 mm/s and 10 mm/mV.

    Args:
        spec: Names and units.
        trajectory: The trajectory, in physical units.

    Returns:
        A PNG file.
    """
    window, start, strips = _stretch(spec, trajectory)
    lines = -(-len(spec.structured) // _COLUMNS)
    band, text = 23.0 * lines, 5.0 * -(-len(spec.statics) // _COLUMNS) + 4
    paper = float(sum(strips))
    height = paper + (9 if strips else 0) + band + text
    figure = _figure(height, layout="none")
    if strips:
        axis = place(figure, 7, 5, 250, paper)
        _draw_paper(axis, spec, trajectory.signals[window, start:], strips)
        seconds = start / spec.sampling_rate_hz
        caption = f"window {window + 1} of {spec.windows}, from {seconds:.1f} s; 25 mm/s, 10 mm/mV"
        figure.text(257 / _WIDTH, 1 - 3.8 / height, caption, ha="right", fontsize=8)
    cell = 250 / _COLUMNS
    for index, feature in enumerate(spec.structured):
        left, top = 7 + cell * (index % _COLUMNS), band + text - 23 * (index // _COLUMNS)
        axis = place(figure, left + 8, height - top + 5, cell - 10, 13)
        _draw_feature(axis, spec, trajectory.structured[:, index], feature)
    for index, (feature, value) in enumerate(zip(spec.statics, trajectory.statics)):
        shown = f"{value:.4g} {'' if feature.unit == '1' else feature.unit}" if np.isfinite(value) else "missing"
        left, top = 7 + cell * (index % _COLUMNS), text - 4 - 5 * (index // _COLUMNS)
        colour = "black" if np.isfinite(value) else "0.55"
        line = f"{feature.name}: {shown}"
        figure.text(left / _WIDTH, top / height, line, fontsize=_fitting(line), color=colour)
    return to_png(figure)


def _stretch(spec: Spec, trajectory: Trajectory) -> tuple[int, int, list[int]]:
    """Returns the last window with a signal, the sample where its fullest 10 s begin, and each lead's height in mm."""
    if not spec.leads:
        return 0, 0, []
    present = np.isfinite(trajectory.signals)
    windows = np.flatnonzero(present.any(axis=(1, 2)))
    window = int(windows[-1]) if windows.size else spec.windows - 1
    length = min(spec.samples, round(PAPER_SECONDS * spec.sampling_rate_hz))
    seen = np.concatenate([[0], np.cumsum(present[window].sum(axis=1))])
    start = int(np.argmax(seen[length:] - seen[:-length]))
    ends = [_ends(signal) for signal in trajectory.signals[window, start : start + length].T]
    return window, start, [int(np.clip(5 * np.ceil((MM_PER_MV * (high - low) + 4) / 5), *_STRIP)) for low, high in ends]


def _ends(signal: np.ndarray) -> tuple[float, float]:
    """Returns the signal's least and greatest value in mV; where it reaches too far for paper, both are its median."""
    values = signal[np.isfinite(signal)]
    if not values.size:
        return 0.0, 0.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if MM_PER_MV * (high - low) <= _STRIP[1] else (float(np.median(values)),) * 2


def _draw_paper(axis: Axes, spec: Spec, signals: np.ndarray, strips: list[int]) -> None:
    """Draws leads `(samples, C)` below each other; the axes' units are millimetres of paper."""
    height, width = sum(strips), MM_PER_SECOND * PAPER_SECONDS
    axis.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    for step, colour, line in ((1, MINOR, 0.3), (5, MAJOR, 0.7)):
        axis.vlines(np.arange(0, width + 1, step), 0, height, color=colour, linewidth=line)
        axis.hlines(np.arange(0, height + 1, step), 0, width, color=colour, linewidth=line)
    axis.spines[:].set(color=MAJOR)
    signals = signals[: round(PAPER_SECONDS * spec.sampling_rate_hz)]
    millimetres = np.arange(len(signals)) * MM_PER_SECOND / spec.sampling_rate_hz
    top = height
    for lead, signal, strip in zip(spec.leads, signals.T, strips):
        middle = top - strip / 2
        if np.isfinite(signal).any():
            trace = middle + (signal - np.mean(_ends(signal))) * MM_PER_MV
            (line,) = axis.plot(millimetres, trace, color="black", linewidth=0.7)
            box = axis.axhspan(top - strip, top, alpha=0)
            line.set_clip_path(box)
        else:
            axis.text(width / 2, middle, "missing", ha="center", va="center", color="0.4")
        axis.text(1.5, top - 1, lead, va="top", fontweight="bold", bbox={"color": "white", "alpha": 0.7, "pad": 1})
        top -= strip


def _draw_feature(axis: Axes, spec: Spec, values: np.ndarray, feature: Feature) -> None:
    windows = np.arange(1, spec.windows + 1)
    axis.plot(windows, values, color="black", linewidth=0.8, marker="o", markersize=2)
    _title(axis, feature, pad=2)
    axis.set_xlim(0.5, spec.windows + 0.5)
    axis.margins(y=0.15)
    axis.set_xticks([1, spec.windows] if spec.windows > 1 else [1])
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(length=2, pad=1.5)
    if np.isfinite(values).any():
        axis.locator_params(axis="y", nbins=3)
    else:
        axis.set_yticks([])
        axis.text(0.5, 0.5, "missing", transform=axis.transAxes, ha="center", va="center", color="0.4")


def _observed(sample: Rows, index: int) -> np.ndarray:
    """Returns a feature's observed values, in the order of statics and structured features."""
    statics = sample.statics.shape[1]
    values = sample.statics[:, index] if index < statics else sample.structured[..., index - statics].ravel()
    return values[np.isfinite(values)].astype(np.float64)


def _draw_fractions(axis: Axes, observed: Mapping[Split, np.ndarray]) -> None:
    """Draws how often each of a feature's few values occurs in each split, as bars side by side."""
    unique = np.unique(np.concatenate(list(observed.values())))
    width = 0.8 / len(observed)
    for index, (split, values) in enumerate(observed.items()):
        fractions = [(values == value).mean() for value in unique]
        axis.bar(np.arange(len(unique)) - 0.4 + width * (index + 0.5), fractions, width, color=COLOURS[split])
    axis.set_xticks(range(len(unique)), [f"{value:.6g}" for value in unique])
    axis.set_xlim(-0.8, len(unique) - 0.2)


def _bins(values: np.ndarray, smallest: int) -> np.ndarray:
    """Returns the edges of bins, by the Rice rule for the smallest split, as wide as values have digits or wider."""
    # A single outlier would squeeze all else into one bin.
    low, high = np.percentile(values, [0.5, 99.5])
    unique = np.unique(values[(values >= low) & (values <= high)])
    step = np.diff(unique).min() if len(unique) > 1 else 1.0
    wanted = (high - low) / max(8, 2 * smallest ** (1 / 3))
    width = max(1, np.ceil(wanted / step)) * step
    return low - step / 2 + width * np.arange(np.ceil((high - low + step) / width) + 1)


def _title(axis: Axes, feature: Feature, **keywords: Any) -> None:
    text = feature.named()
    axis.set_title(text, fontsize=_fitting(text), **keywords)


def _fitting(text: str) -> float:
    """Returns the size of font with which a text takes no more room than a small picture has."""
    return 8.0 * min(1.0, 30 / len(text))


def _legend(figure: Figure, colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)


def _figure(height_mm: float, layout: Literal["constrained", "none"] = "constrained") -> Figure:
    return new_figure(_WIDTH, height_mm, DPI, layout)
