"""The evaluation's figures of numbers: label efficiency, ROC, precision-recall, calibration and pre-training curves.

A function returns None where there is nothing to draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfmmcl.evaluation.drawing import (
    COLOURS,
    MARKERS,
    PAGE_MM,
    REFERENCE,
    Picture,
    legend,
    looks,
    new_figure,
    panels,
    square,
    styled,
    to_picture,
)
from tfmmcl.evaluation.findings import METRICS, Findings, percent
from tfmmcl.evaluation.metrics import (
    FALSE_POSITIVE_RATES,
    RECALLS,
    CalibrationCurve,
    calibration_curve,
    precision_recall_curve,
    roc_curve,
)
from tfmmcl.evaluation.results import DISPLAY_NAMES, EvaluatedTask, Pretraining

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CALIBRATION_COLUMNS = 4
_HISTOGRAM_BINS = 25


@styled
def draw_efficiency(findings: Findings, mode: str) -> Picture | None:
    """Draws each task's headline metric over the fraction of labelled training patients, with intervals.

    Args:
        findings: The results.
        mode: The networks' mode.
    """
    tasks = [task for task in findings.results.tasks if len(_fractions(findings, task, mode)) > 1]
    if not tasks:
        return None
    columns = min(len(tasks), 2)
    lines = -(-len(tasks) // columns)
    figure = new_figure(PAGE_MM if columns > 1 else 0.6 * PAGE_MM, 92 * lines + 12)
    shown = []
    for axis, task in zip(panels(figure, len(tasks), columns), tasks):
        shown += _draw_efficiency(axis, findings, task, mode)
    legend(figure, [arm for arm in findings.arms if arm in shown])
    return to_picture(figure)


@styled
def draw_curves(findings: Findings, task: EvaluatedTask) -> Picture | None:
    """Draws the ROC and the precision-recall curve of a binary task: median and inter-quartile range over seeds.

    Args:
        findings: The results.
        task: A binary task.
    """
    name = task.task.name
    curves = {
        arm: (findings.by_seed(arm, name, roc_curve), findings.by_seed(arm, name, precision_recall_curve))
        for arm in findings.arms
    }
    curves = {arm: pair for arm, pair in curves.items() if pair[0].size}
    if not curves:
        return None
    figure = new_figure(PAGE_MM, 86, layout="none")
    roc, recall = (square(figure, left, 7, 66) for left in (14, 147))
    for arm, (rates, precisions) in curves.items():
        _draw_band(roc, np.append(0, FALSE_POSITIVE_RATES), np.pad(rates, ((0, 0), (1, 0))), arm)
        _draw_band(recall, RECALLS, precisions, arm)
    roc.plot([0, 1], [0, 1], **REFERENCE)
    roc.set(title="ROC", xlabel="False-positive rate", ylabel="True-positive rate")
    first = next(iter(findings.summaries(name, "auroc").values()), None)
    if first is not None and first.positives is not None:
        recall.axhline(first.positives / first.n, **REFERENCE)
    recall.set(title="Precision and recall", xlabel="Recall", ylabel="Precision")
    for axis, metric in ((roc, "auroc"), (recall, "auprc")):
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        handles, labels = axis.get_legend_handles_labels()
        named = [_with_value(findings, arm, name, metric) for arm in labels]
        axis.legend(
            handles,
            named,
            title=f"{METRICS[metric]}, median",
            alignment="left",
            loc="upper left",
            bbox_to_anchor=(1.0, 1.02),
            fontsize=8,
            handlelength=1.6,
        )
    return to_picture(figure)


@styled
def draw_calibration(findings: Findings, task: EvaluatedTask) -> Picture | None:
    """Draws observed against predicted rates per arm with Wilson intervals, and a histogram of the predictions.

    Predictions are those of the seed with the median Brier score: a mean over seeds would be another model.

    Args:
        findings: The results.
        task: A binary task.
    """
    drawn: dict[str, tuple[np.ndarray, CalibrationCurve]] = {}
    for arm in findings.arms:
        cells = [cell for cell in findings.cells(arm, task.task.name) if cell.test.get("brier") is not None]
        cells.sort(key=lambda cell: (cell.test["brier"], cell.seed))
        read = findings.predictions(cells[(len(cells) - 1) // 2]) if cells else None
        if read is not None:
            drawn[arm] = read[1], calibration_curve(*read, level=findings.level)
    if not drawn:
        return None
    limit = min(1.0, 1.05 * max(max(curve.high.max(), curve.predicted.max()) for _, curve in drawn.values()))
    columns = min(len(drawn), _CALIBRATION_COLUMNS)
    lines = -(-len(drawn) // columns)
    figure = new_figure(PAGE_MM * columns / _CALIBRATION_COLUMNS, 92 * lines)
    grid = figure.subplots(2 * lines, columns, squeeze=False, height_ratios=[3.2, 1] * lines, sharex=True)
    for place in range(lines * columns):
        row, column = divmod(place, columns)
        pair = grid[2 * row, column], grid[2 * row + 1, column]
        if place < len(drawn):
            arm = list(drawn)[place]
            _draw_calibration(*pair, arm, *drawn[arm], limit)
            for axis, label in zip(pair, ("Observed rate", "Trajectories")):
                axis.set_ylabel(label if column == 0 else "")
        else:
            for axis in pair:
                axis.remove()
    return to_picture(figure)


@styled
def draw_pretraining(runs: list[Pretraining]) -> Picture | None:
    """Draws the loss and the contrastive accuracy of pre-training by epoch, with their chance levels.

    Args:
        runs: The runs; those without any history are left out.
    """
    runs = [run for run in runs if run.history]
    if not runs:
        return None
    names = {"loss": "Contrastive loss", "contrastive_accuracy": "Contrastive accuracy"}
    names = {key: name for key, name in names.items() if any(f"val_{key}" in run.history[-1] for run in runs)}
    figure = new_figure(PAGE_MM * max(len(names), 1) / 2, 78)
    for axis, (key, name) in zip(panels(figure, len(names), len(names)), names.items()):
        for run in runs:
            for column, line in ((key, ":"), (f"val_{key}", "-")):
                points = [(row["epoch"], row[column]) for row in run.history if column in row]
                axis.plot(*zip(*points) if points else ([], []), color=COLOURS[run.arm], linestyle=line)
        for level in {run.chance[key] for run in runs if key in run.chance}:
            axis.axhline(level, **REFERENCE)
        axis.set(xlabel="Epoch", ylabel=name)
        axis.locator_params(axis="x", integer=True)
    _name_runs(figure, runs)
    return to_picture(figure)


def _name_runs(figure: Any, runs: list[Pretraining]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=COLOURS[run.arm], label=DISPLAY_NAMES[run.arm]) for run in runs]
    handles += [Line2D([], [], color="0.3", linestyle=line, label=name) for name, line in _SPLIT_LINES.items()]
    handles.append(Line2D([], [], label="chance", **REFERENCE))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), handlelength=2.8)


_SPLIT_LINES = {"validation": "-", "training": ":"}


def _fractions(findings: Findings, task: EvaluatedTask, mode: str) -> list[float]:
    """Returns the fractions at which a network has a value."""
    found = {
        item.fraction
        for item in findings.results.summary
        if (item.task, item.metric, item.mode) == (task.task.name, task.headline, mode) and item.median is not None
    }
    return sorted(found)


def _draw_efficiency(axis: Axes, findings: Findings, task: EvaluatedTask, mode: str) -> list[str]:
    """Draws a panel, and returns the arms in it."""
    name, fractions, shown = task.task.name, _fractions(findings, task, mode), []
    for place, arm in enumerate(findings.arms):
        found = [findings.summary(arm, name, task.headline, mode, fraction) for fraction in fractions]
        points = [item for item in found if item is not None and item.median is not None]
        if not points:
            continue
        shown.append(arm)
        # Side by side, so that intervals do not hide each other.
        x = np.array([item.fraction for item in points]) * 10 ** (0.018 * (place - (len(findings.arms) - 1) / 2))
        low, high = (np.array([getattr(item, end) for item in points], np.float64) for end in ("low", "high"))
        axis.vlines(x, low, high, color=COLOURS[arm], linewidth=0.9, alpha=0.8)
        axis.plot(x, [item.median for item in points], marker=MARKERS[arm], **looks(arm))
    unit = f", {task.task.unit}" if task.task.unit != "1" and task.headline in ("mae", "rmse") else ""
    axis.set(xscale="log", title=name, ylabel=f"{METRICS.get(task.headline, task.headline)}{unit}")
    axis.grid(axis="y", color="0.92", linewidth=0.8)
    axis.set_axisbelow(True)
    chance = _chance(findings, task)
    if chance is not None:
        axis.axhline(chance, **REFERENCE)
    labels = [_trained_on(findings, name, mode, fraction) for fraction in fractions]
    axis.set_xticks(fractions, labels)
    axis.set_xticks([], minor=True)
    axis.set_xlim(fractions[0] / 1.25, fractions[-1] * 1.25)
    lines = "labelled\npatients\npositives" if labels[0].count("\n") > 1 else "labelled\npatients"
    axis.annotate(lines, (0, 0), (-4, -5), xycoords="axes fraction", textcoords="offset points", ha="right", va="top")
    return shown


def _trained_on(findings: Findings, task: str, mode: str, fraction: float) -> str:
    lines = [percent(fraction)]
    if (learnt := findings.trained_on(task, mode, fraction)) is not None:
        lines += [f"{count:,.0f}" for count in learnt if count is not None]
    return "\n".join(lines)


def _chance(findings: Findings, task: EvaluatedTask) -> float | None:
    """Returns the headline metric of predictions that know nothing, where there is one for all data."""
    first = next(iter(findings.summaries(task.task.name, task.headline).values()), None)
    prevalence = first.positives / first.n if first is not None and first.positives is not None else None
    return {"auroc": 0.5, "auprc": prevalence, "r2": 0.0, "pearson": 0.0}.get(task.headline)


def _draw_band(axis: Axes, x: np.ndarray, curves: np.ndarray, arm: str) -> None:
    """Draws the median over seeds of curves `(S, G)`, and their inter-quartile range; labelled with the arm's key."""
    low, median, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
    axis.fill_between(x, low, high, color=COLOURS[arm], alpha=0.15, linewidth=0)
    axis.plot(x, median, label=arm, **looks(arm))


def _with_value(findings: Findings, arm: str, task: str, metric: str) -> str:
    item = findings.summary(arm, task, metric)
    value = f" {item.median:.3f}" if item is not None and item.median is not None else ""
    return DISPLAY_NAMES[arm] + value


def _draw_calibration(
    axis: Axes, below: Axes, arm: str, predictions: np.ndarray, curve: CalibrationCurve, limit: float
) -> None:
    axis.plot([0, limit], [0, limit], **REFERENCE)
    axis.vlines(curve.predicted, curve.low, curve.high, color=COLOURS[arm], linewidth=0.9)
    axis.plot(curve.predicted, curve.observed, marker=MARKERS[arm], linewidth=0.8, color=COLOURS[arm])
    axis.set(title=DISPLAY_NAMES[arm], xlim=(0, limit), ylim=(0, limit))
    axis.tick_params(labelbottom=False)
    below.hist(np.minimum(predictions, limit), np.linspace(0, limit, _HISTOGRAM_BINS + 1), color=COLOURS[arm])
    below.set_xlabel("Predicted probability")
    below.tick_params(labelbottom=True)
    below.locator_params(axis="y", nbins=2)
