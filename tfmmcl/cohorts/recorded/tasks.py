"""Labels by rule: a value at the anchor, an event within a horizon, a table's column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfmmcl.cohorts.durations import microseconds
from tfmmcl.cohorts.events.settings import Variable
from tfmmcl.cohorts.events.timeline import ALWAYS, Timeline
from tfmmcl.cohorts.recorded.lookup import read_lookup
from tfmmcl.cohorts.recorded.settings import AboveRule, ColumnRule, TaskRule, ValueRule, WithinRule
from tfmmcl.cohorts.trajectory import Task

UNLABELLED = float("nan")


def label(rule: TaskRule, timeline: Timeline, anchor: int, column: Mapping[str, float]) -> float:
    """Returns the label of the trajectory that ends at `anchor`, NaN for none.

    Args:
        rule: The task's rule.
        timeline: The subject's events, those after the anchor too: labels may look ahead, inputs never do.
        anchor: In microseconds.
        column: Subject → label, from `read_column`, for a `ColumnRule`.
    """
    if isinstance(rule, AboveRule):
        value = _value_at(rule.variable, timeline, anchor)
        return UNLABELLED if np.isnan(value) else float(value > rule.threshold)
    if isinstance(rule, ValueRule):
        return _value_at(rule.variable, timeline, anchor)
    if isinstance(rule, WithinRule):
        return _within(rule, timeline, anchor)
    return column.get(timeline.subject, UNLABELLED)


def read_column(root: Path, rule: ColumnRule) -> dict[str, float]:
    """Returns subject → label for the rows of the table that give one.

    Raises:
        InputError: If a file cannot be read, a column is missing, or a subject has two different labels.
    """
    return read_lookup(root, rule, rule.subject, rule.column, rule.label)


def _value_at(variable: str, timeline: Timeline, anchor: int) -> float:
    series = timeline.get(variable)
    at = np.searchsorted(series.times, anchor)
    here = at < len(series.times) and series.times[at] == anchor
    return float(series.values[at]) if here else UNLABELLED


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


def task_of(name: str, rule: TaskRule, variables: Mapping[str, Variable]) -> Task:
    """Returns the task that a rule's labels belong to."""
    if isinstance(rule, ValueRule):
        return Task(name=name, kind="regression", unit=variables[rule.variable].unit, description=rule.description)
    if isinstance(rule, ColumnRule) and rule.number_unit:
        return Task(name=name, kind="regression", unit=rule.number_unit, description=rule.description)
    if isinstance(rule, ColumnRule) and rule.classes:
        return Task(name=name, kind="multiclass", classes=rule.classes, description=rule.description)
    return Task(name=name, description=rule.description)
