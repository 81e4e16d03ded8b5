"""Looks for what makes a prediction look better than it is: a label among the inputs, a trajectory in two splits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np

from tfmmcl.cohorts.splits import Split
from tfmmcl.cohorts.trajectory import Spec, Task, Trajectory

FEWEST = 10
"""Labelled trajectories on either side, below which an input that tells them apart may well be chance."""
CHANCE = 1e-6
"""Probability that any input of a data set does so if none has to do with the label, above which it is not reported."""
CORRELATION = 1 - 1e-6
"""Of an input with a number to be predicted, above which it is that number in another unit."""


class Inputs:
    """Sees trajectories one by one, and says which inputs give a label away by themselves.

    An input is one static, or one structured feature in one window. It gives a class away if it is lower, or higher,
    in all trajectories of that class than in all others; or if it is there in all of them and missing in all others,
    or the reverse. It gives a number away if the two are perfectly correlated.

    Args:
        spec: What the trajectories have.
    """

    def __init__(self, spec: Spec) -> None:
        self.names = [f"static '{feature.name}'" for feature in spec.statics] + [
            f"'{feature.name}' of window {window}" for window in range(spec.windows) for feature in spec.structured
        ]
        columns = len(self.names)
        self._ranges = {
            task.name: {value: _Range(columns) for value in task.values} for task in spec.tasks if task.values
        }
        self._moments = {task.name: _Moments(columns) for task in spec.tasks if not task.values}
        self._tasks = spec.tasks

    def add(self, trajectory: Trajectory) -> None:
        """Takes a trajectory into account."""
        row = np.concatenate([trajectory.statics, trajectory.structured.ravel()]).astype(np.float64)
        for task in self._tasks:
            label = trajectory.labels[task.name]
            if task.values and label in self._ranges[task.name]:
                self._ranges[task.name][label].add(row)
            elif not task.values and math.isfinite(label):
                self._moments[task.name].add(row, label)

    def problems(self) -> Iterator[str]:
        """Yields a sentence for each input that gives a label away."""
        for task in self._tasks:
            if not task.values:
                for column in np.flatnonzero(self._moments[task.name].perfect()):
                    yield f"{self.names[column]} gives task '{task.name}' away: they are perfectly correlated."
                continue
            for value, name in _classes(task):
                inside = self._ranges[task.name][value]
                outside = [found for other, found in self._ranges[task.name].items() if other != value]
                yield from (f"{sentence} '{task.name}' is {name}." for sentence in self._apart(inside, outside))

    def _apart(self, inside: _Range, outside: list[_Range]) -> Iterator[str]:
        rest = _Range(len(self.names))
        for found in outside:
            rest.merge(found)
        for column, name in enumerate(self.names):
            one, other = int(inside.present[column]), int(rest.present[column])
            apart = inside.high[column] < rest.low[column] or inside.low[column] > rest.high[column]
            if apart and self._significant(one, other):
                yield f"{name} tells by its value alone, in all {one + other:,} trajectories that have both, whether"
            apart = (one, other) in ((inside.total, 0), (0, rest.total))
            if apart and self._significant(inside.total, rest.total):
                total = inside.total + rest.total
                yield f"{name} tells by being missing or not, in all {total:,} trajectories, whether"

    def _significant(self, one: int, other: int) -> bool:
        # Of all orders of the labels, two tell the sides apart.
        return min(one, other) >= FEWEST and 2 * len(self.names) < CHANCE * math.comb(one + other, one)


class Contents:
    """Sees trajectories one by one, and says which has the same signals and features as one of another split."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[Split, str]] = {}

    def problem(self, trajectory: Trajectory, split: Split) -> str | None:
        """Takes a trajectory into account; returns a sentence if it was there before, in another split.

        One without signals says nothing: a few features may well agree by chance.
        """
        if not np.isfinite(trajectory.signals).any():
            return None
        digest = hashlib.blake2b(digest_size=16)
        for array in (trajectory.signals, trajectory.structured, trajectory.statics):
            digest.update(np.ascontiguousarray(array).data)
        other, name = self._seen.setdefault(digest.digest(), (split, trajectory.name))
        if other == split:
            return None
        return f"trajectory '{trajectory.name}' of {split} has the same content as '{name}' of {other}."


class _Range:
    """Each column's least and greatest value, and how many there are."""

    def __init__(self, columns: int) -> None:
        self.low, self.high = np.full(columns, np.inf), np.full(columns, -np.inf)
        self.present, self.total = np.zeros(columns, np.int64), 0

    def add(self, row: np.ndarray) -> None:
        # Unlike minimum and maximum, these pass over NaN.
        self.low, self.high = np.fmin(self.low, row), np.fmax(self.high, row)
        self.present += np.isfinite(row)
        self.total += 1

    def merge(self, other: _Range) -> None:
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.present += other.present
        self.total += other.total


class _Moments:
    """Each column's second moments with a label, where both are there; about the first of each, against round-off."""

    def __init__(self, columns: int) -> None:
        self._first = np.full((2, columns), np.nan)
        self._sums = np.zeros((6, columns))

    def add(self, row: np.ndarray, label: float) -> None:
        both = np.where(np.isfinite(row), np.stack([row, np.full_like(row, label)]), np.nan)
        self._first = np.where(np.isfinite(self._first), self._first, both)
        x, y = both - self._first
        self._sums += np.nan_to_num(np.stack([x - x + 1, x, y, x * x, y * y, x * y]))

    def perfect(self) -> np.ndarray:
        """Returns whether each column's correlation with the label is 1 or -1."""
        n, x, y, xx, yy, xy = self._sums
        covariance, variances = n * xy - x * y, (n * xx - x * x) * (n * yy - y * y)
        return (n >= FEWEST) & (variances > 0) & (covariance**2 >= CORRELATION**2 * variances)


def _classes(task: Task) -> list[tuple[int, str]]:
    """Returns the classes that may be given away, with their names; of two, one says it all."""
    if task.kind == "binary":
        return [(1, "1")]
    return [(value, f"'{name}'") for value, name in zip(task.values, task.classes)]
