"""Labels by rule: a value at the anchor, an event within a horizon, a table's column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfmmcl.cohorts.durations import microseconds
from tfmmcl.cohorts.events.timeline import ALWAYS, Timeline
from tfmmcl.cohorts.recorded.lookup import read_lookup
from tfmmcl.cohorts.recorded.settings import AboveRule, ColumnRule, TaskRule, WithinRule

UNLABELLED = float("nan")


def label(rule: TaskRule, timeline: Timeline, anchor: int, column: Mapping[str, float]) -> float:
    """Returns the label of the trajectory that ends at `anchor`: 1, 0, or NaN for none.

    Args:
        rule: The task's rule.
        timeline: The subject's events, those after the anchor too: labels may look ahead, inputs never do.
        anchor: In microseconds.
        column: Subject → label, from `read_column`, for a `ColumnRule`.
    """
    if isinstance(rule, AboveRule):
        return _above(rule, timeline, anchor)
    if isinstance(rule, WithinRule):
        return _within(rule, timeline, anchor)
    return column.get(timeline.subject, UNLABELLED)


def read_column(root: Path, rule: ColumnRule) -> dict[str, float]:
    """Returns subject → 1 or 0 for the rows of the table that say either.

    Raises:
        InputError: If a file cannot be read, a column is missing, or a subject has two different labels.
    """
    return read_lookup(root, rule, rule.subject, rule.column, rule.label)


def _above(rule: AboveRule, timeline: Timeline, anchor: int) -> float:
    series = timeline.get(rule.variable)
    at = np.searchsorted(series.times, anchor)
    if at == len(series.times) or series.times[at] != anchor or np.isnan(series.values[at]):
        return UNLABELLED
    return float(series.values[at] > rule.threshold)


def _within(rule: WithinRule, timeline: Timeline, anchor: int) -> float:
    horizon = anchor + microseconds(rule.horizon)
    times = timeline.get(rule.event).times
    times = times[times != ALWAYS]
    if np.any(times < anchor):
        return UNLABELLED
    if np.any(times <= horizon):
        return 1.0
    followed = any(np.any(timeline.get(name).times >= horizon) for name in (rule.event, *rule.follow_up))
    return 0.0 if followed else UNLABELLED
