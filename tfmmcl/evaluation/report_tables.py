"""The evaluation report's tables, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from tfmmcl.evaluation.findings import METRICS, MODES, Findings, percent, sizes
from tfmmcl.evaluation.results import DISPLAY_NAMES, Comparison, EvaluatedTask, Summary

STYLE = """
.ci { color: #555; font-size: .9em; }
th, td { vertical-align: top; }
thead th small { font-weight: 400; font-size: 1em; color: #555; }
tbody + tbody tr:first-child > * { border-top: 1px solid #333; }
"""


def data_splits(findings: Findings) -> Iterator[str]:
    """Yields the table of patients, trajectories and labels per split."""
    tasks = [task.task for task in findings.results.tasks]
    head = ["", "patients", "trajectories", *(f"{escape(task.name)}: labelled" for task in tasks)]
    rows = []
    for split, count in findings.results.data.get("splits", {}).items():
        labels = [count.get("labels", {}).get(task.name, {}) for task in tasks]
        cells = [f"{count['patients']:,}", f"{count['trajectories']:,}"]
        cells += [_labelled(label, task.kind == "binary") for label, task in zip(labels, tasks)]
        rows.append(_row(split, cells))
    if rows:
        yield from _table("data", head, [rows])


def main_table(findings: Findings) -> Iterator[str]:
    """Yields Table 2 in the paper's layout: arms by the tasks' headline metrics, the best in bold if beyond doubt."""
    tasks = findings.results.tasks
    head = [f"{escape(task.task.name)}<br>{_metric(task.headline, task)}{_small(findings, task)}" for task in tasks]
    best = [findings.best(task) for task in tasks]

    def cells(arm: str) -> list[str]:
        items = [findings.summary(arm, task.task.name, task.headline) for task in tasks]
        return [_spread(item, arm == top) for item, top in zip(items, best)]

    parts = findings.networks, findings.baselines
    groups = [[_row(DISPLAY_NAMES[arm], cells(arm)) for arm in arms] for arms in parts]
    yield from _table("table-2", ["", *head], groups)


def all_metrics(findings: Findings, task: EvaluatedTask) -> Iterator[str]:
    """Yields a task's every metric by arm."""
    metrics = findings.metrics(task.task.name)
    head = ["", *(_metric(metric, task) for metric in metrics)]
    groups = [
        [
            _row(DISPLAY_NAMES[arm], [_spread(findings.summary(arm, task.task.name, metric)) for metric in metrics])
            for arm in arms
        ]
        for arms in (findings.networks, findings.baselines)
    ]
    yield from _table(f"metrics-{task.task.name}", head, groups)


def comparisons(findings: Findings, task: EvaluatedTask) -> Iterator[str]:
    """Yields a task's differences between arms, with intervals and p-values, a pair of columns per metric."""
    metrics = [metric for metric in METRICS if findings.compared(task.task.name, metric)]
    found = {metric: _by_pair(findings.compared(task.task.name, metric)) for metric in metrics}
    pairs = list(dict.fromkeys(pair for some in found.values() for pair in some))
    if not pairs:
        return
    head = ["", *(cell for metric in metrics for cell in (f"Δ {_metric(metric, task)}", "p"))]
    rows = [
        _row(
            _named(pair),
            [cell for some in found.values() for cell in (_difference(some.get(pair)), _p_value(some.get(pair)))],
        )
        for pair in pairs
    ]
    yield from _table(f"differences-{task.task.name}", head, [rows])


def comparisons_by_fraction(findings: Findings, task: EvaluatedTask) -> Iterator[str]:
    """Yields a task's differences in the headline metric between arms at each fraction of labelled patients."""
    compared = {part: findings.compared(task.task.name, task.headline, part) for part in findings.fractions}
    found = {part: _by_pair(some) for part, some in compared.items() if some}
    if len(found) < 2:
        return
    pairs = list(dict.fromkeys(pair for some in found.values() for pair in some))

    def cell(item: Comparison | None) -> str:
        return f'{_difference(item)}<br><span class="ci">p: {_p_value(item)}</span>' if item is not None else "–"

    rows = [_row(_named(pair), [cell(some.get(pair)) for some in found.values()]) for pair in pairs]
    head = [f"Δ {_metric(task.headline, task)}", *(percent(part) for part in found)]
    yield from _table(f"differences-by-fraction-{task.task.name}", head, [rows])


def modes(findings: Findings, task: EvaluatedTask) -> Iterator[str]:
    """Yields a task's headline metric by arm and mode."""
    rows = []
    for arm in findings.networks:
        items = [findings.summary(arm, task.task.name, task.headline, mode) for mode in findings.modes]
        rows.append(_row(DISPLAY_NAMES[arm], [_spread(item) for item in items]))
    head = [_metric(task.headline, task), *(MODES[mode] for mode in findings.modes)]
    yield from _table(f"modes-{task.task.name}", head, [rows])


def number(value: float | None, sign: bool = False) -> str:
    """Returns a value with three decimals, and its sign if wanted; – where it is not defined."""
    if value is None:
        return "–"
    # Adding 0 makes a rounded −0 a plain one.
    return format(round(value, 3) + 0.0, "+.3f" if sign else ".3f").replace("-", "−")


def _spread(item: Summary | None, bold: bool = False) -> str:
    """Returns median ± half inter-quartile range, and the interval beneath."""
    if item is None or item.median is None:
        return "–"
    text = number(item.median)
    if item.seeds > 1:
        text += f" ± {number(item.half_iqr)}"
    return f"{f'<b>{text}</b>' if bold else text}{_interval(item)}"


def _interval(item: Summary | Comparison, sign: bool = False) -> str:
    if item.low is None or item.high is None:
        return ""
    low, high = (number(end, sign) for end in (item.low, item.high))
    return f'<br><span class="ci">({low} to {high})</span>'


def _difference(item: Comparison | None) -> str:
    if item is None or item.difference is None:
        return "–"
    return f"{number(item.difference, sign=True)}{_interval(item, sign=True)}"


def _p_value(item: Comparison | None) -> str:
    if item is None or item.p_value is None:
        return "–"
    return "&lt; 0.001" if item.p_value < 0.001 else f"{item.p_value:.3f}"


def _named(pair: tuple[str, str]) -> str:
    return " − ".join(DISPLAY_NAMES[arm] for arm in pair)


def _by_pair(items: Iterable[Comparison]) -> dict[tuple[str, str], Comparison]:
    return {(item.first, item.second): item for item in items}


def _metric(metric: str, task: EvaluatedTask) -> str:
    """Returns a metric's name, with its unit where it has one."""
    unit = f", {task.task.unit}" if metric in ("mae", "rmse") and task.task.unit != "1" else ""
    return escape(METRICS.get(metric, metric) + unit)


def _small(findings: Findings, task: EvaluatedTask) -> str:
    parts = sizes(findings.summaries(task.task.name, task.headline).values()).split("; ")
    return "".join(f"<br><small>{part}</small>" for part in parts)


def _labelled(label: dict[str, int], binary: bool) -> str:
    count = label.get("labelled", 0)
    if not binary or not count:
        return f"{count:,}"
    return f"{count:,}, {label['positive']:,} positive ({percent(label['positive'] / count)})"


def _row(name: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _table(name: str, head: Iterable[str], groups: Iterable[list[str]]) -> Iterator[str]:
    """Yields a table of groups of rows with a rule between them; cells of the head are HTML."""
    yield f'<div class="wide"><table id="{escape(name)}">\n<thead><tr>'
    yield "".join(f"<th>{cell}</th>" for cell in head) + "</tr></thead>"
    for rows in groups:
        if rows:
            yield "\n".join(["<tbody>", *rows, "</tbody>"])
    yield "</table></div>"
