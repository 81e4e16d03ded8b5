"""The report's tables, as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape

import numpy as np

from tfmmcl.cohorts.splits import Split
from tfmmcl.cohorts.trajectory import Feature, Spec
from tfmmcl.records.profile import EVERYONE, Profile

Group = tuple[str, int]


def characteristics(spec: Spec, profiles: Mapping[Split, Profile]) -> Iterator[str]:
    """Yields Table 1: all trajectories per split, and then for each task those of each label."""
    yield "<h3>All trajectories</h3>"
    header = [f"<th>{split}</th>" for split in profiles]
    columns = [(profile, EVERYONE) for profile in profiles.values()]
    yield from _table("all", [f"<tr><th></th>{''.join(header)}</tr>"], spec, columns)
    for task in spec.tasks:
        if not task.values:
            continue
        yield f"<h3>{escape(task.name)}</h3>"
        splits, labels, columns = "", "", []
        for split, profile in profiles.items():
            groups = [(task.name, label) for label in task.values]
            counts = [profile.trajectories(group) for group in groups]
            labelled = f"n = {sum(counts):,}" if sum(counts) else "no labels"
            positive = f", {counts[1] / sum(counts):.1%} positive" if task.kind == "binary" and sum(counts) else ""
            splits += f'<th colspan="{len(groups)}" class="split">{split}: {labelled}{positive}</th>'
            labels += "".join(f"<th>{escape(name)}</th>" for name in task.classes or ("label 0", "label 1"))
            columns += [(profile, group) for group in groups]
        yield from _table(task.name, [f"<tr><th></th>{splits}</tr>", f"<tr><th></th>{labels}</tr>"], spec, columns)


def missing(spec: Spec, profiles: Mapping[Split, Profile]) -> Iterator[str]:
    """Yields the table of missing values per split and in all, in percent."""
    names = [*profiles, "all"]
    counts = [profile.missing() for profile in profiles.values()]
    trajectories = [profile.trajectories() for profile in profiles.values()]
    counts.append(np.sum(counts, axis=0))
    trajectories.append(sum(trajectories))
    leads = [Feature(name=lead, unit="1") for lead in spec.leads]
    yield '<div class="wide"><table id="missing">\n<thead>'
    yield f"<tr><th></th>{''.join(f'<th>{name}</th>' for name in names)}</tr>\n</thead>\n<tbody>"
    first = 0
    for title, features, per in (
        ("Statics, % of trajectories", spec.statics, 1),
        ("Structured features, % of windows", spec.structured, spec.windows),
        ("Leads, % of windows without any sample", leads, spec.windows),
    ):
        if features:
            yield _subheading(title, len(names))
        for index, feature in enumerate(features, first):
            cells = [_percent(count[index], per * total) for count, total in zip(counts, trajectories)]
            yield _row(feature.name, cells)
        first += len(features)
    yield "</tbody>\n</table></div>"


def _table(name: str, header: list[str], spec: Spec, columns: list[tuple[Profile, Group]]) -> Iterator[str]:
    yield f'<div class="wide"><table id="table-{escape(name)}">\n<thead>{"".join(header)}</thead>\n<tbody>'
    yield _row("trajectories", [f"{profile.trajectories(group):,}" for profile, group in columns])
    moments = [profile.moments(group) for profile, group in columns]
    count, mean, squares = (np.stack([getattr(item, key) for item in moments]) for key in ("count", "mean", "squares"))
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(squares / (count - 1))
    features = [*spec.statics, *spec.structured]
    for index, feature in enumerate(features):
        if index in (0, len(spec.statics)):
            yield _subheading("Structured features" if index else "Statics", len(columns))
        decimals = _decimals(deviation[:, index])
        cells = zip(count[:, index], mean[:, index], deviation[:, index])
        yield _row(feature.named(), [_spread(*cell, decimals) for cell in cells])
    yield "</tbody>\n</table></div>"


def _row(name: str, cells: list[str]) -> str:
    return f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _subheading(title: str, columns: int) -> str:
    return f'<tr><th scope="rowgroup">{title}</th>{"<td></td>" * columns}</tr>'


def _decimals(deviations: np.ndarray) -> int:
    """Returns how many decimals show two digits of the largest deviation; the same for a whole row."""
    largest = max((float(value) for value in deviations if np.isfinite(value) and value > 0), default=1.0)
    return min(max(1 - math.floor(math.log10(largest)), 0), 6)


def _spread(count: float, mean: float, deviation: float, decimals: int) -> str:
    if count == 0:
        return "–"
    text = f"{mean:.{decimals}f}".replace("-", "−")
    return f"{text} ± {deviation:.{decimals}f}" if count > 1 else text


def _percent(count: int, total: int) -> str:
    if not total:
        return "–"
    if 0 < count / total < 0.0005:
        return "&lt; 0.1"
    return f"{100 * count / total:.1f}"
