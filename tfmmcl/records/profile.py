"""What a cohort report shows of one split, gathered in bounded memory while shards are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tfmmcl.cohorts.trajectory import Spec, Trajectory
from tfmmcl.records.sample import Sample
from tfmmcl.records.statistics import Moments

ROWS = 2_000
"""Trajectories of a split whose numbers are kept for histograms and the map of missing values."""

PICTURED = 6
"""Trajectories drawn."""

EVERYONE = ("", 0)
"""The group of all trajectories; the other groups are (task, label)."""


class Rows(NamedTuple):
    """A uniform sample of N trajectories without their signals.

    Attributes:
        statics: `(N, L)`.
        structured: `(N, T, M)`.
        present: `(N, T, C)`, whether a window has any sample of a lead.
    """

    statics: np.ndarray
    structured: np.ndarray
    present: np.ndarray


class Profile:
    """Gathers one split's profile, one trajectory at a time; profiles of several shards merge.

    Args:
        spec: Names and shapes.
        seed: Of the samples; each shard has its own.
    """

    def __init__(self, spec: Spec, seed: int = 0) -> None:
        features, windows = len(spec.statics) + len(spec.structured), spec.windows
        self.groups = [EVERYONE, *((task.name, label) for task in spec.tasks for label in task.values)]
        self._trajectories = np.zeros(len(self.groups), np.int64)
        self._moments = [Moments.zeros(features) for _ in self.groups]
        self._missing = np.zeros(features + len(spec.leads), np.int64)
        self._rows = Sample(
            ROWS,
            np.empty((0, len(spec.statics)), np.float32),
            np.empty((0, windows, len(spec.structured)), np.float32),
            np.empty((0, windows, len(spec.leads)), bool),
        )
        self._pictured = Sample(PICTURED, np.empty(0, np.int64), np.empty(0, np.int64))
        # Not the stream of the statistics' sample.
        self._random = np.random.default_rng([seed, 1])

    def add(self, trajectory: Trajectory, shard: int, offset: int) -> None:
        """Adds a trajectory, which lies in this shard at this byte."""
        structured = trajectory.structured.astype(np.float64)
        observed = np.isfinite(structured)
        windows = observed.sum(axis=0)
        mean = np.where(observed, structured, 0).sum(axis=0) / np.where(windows, windows, np.nan)
        features = np.concatenate([trajectory.statics, mean])[None]
        for index, (task, label) in enumerate(self.groups):
            if (task, label) == EVERYONE or trajectory.labels.get(task) == label:
                self._trajectories[index] += 1
                self._moments[index].add(features)
        present = np.isfinite(trajectory.signals).any(axis=1)
        self._missing += np.concatenate(
            [~np.isfinite(trajectory.statics), (~observed).sum(axis=0), (~present).sum(axis=0)]
        )
        rank = self._random.random(1)
        self._rows.add(rank, trajectory.statics[None], trajectory.structured[None], present[None])
        self._pictured.add(rank, np.array([shard]), np.array([offset]))

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all that was added, for `merge`."""
        ranks, *rows = self._rows.rows()
        return {
            "trajectories": self._trajectories,
            "moments": np.stack([item.array() for item in self._moments]),
            "missing": self._missing,
            "ranks": ranks,
            **Rows(*rows)._asdict(),
            "pictured": np.stack(self.pictured()),
        }

    def merge(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds all that another profile has seen, given its `arrays`."""
        self._trajectories += arrays["trajectories"]
        for item, array in zip(self._moments, arrays["moments"]):
            item.merge(Moments(*array))
        self._missing += arrays["missing"]
        self._rows.add(arrays["ranks"], *(arrays[name] for name in Rows._fields))
        ranks, shards, offsets = arrays["pictured"]
        self._pictured.add(ranks, shards.astype(np.int64), offsets.astype(np.int64))

    def trajectories(self, group: tuple[str, int] = EVERYONE) -> int:
        """Returns the number of trajectories in a group."""
        return int(self._trajectories[self.groups.index(group)])

    def moments(self, group: tuple[str, int]) -> Moments:
        """Returns a group's moments of the statics and of the structured features' means over windows."""
        return self._moments[self.groups.index(group)]

    def missing(self) -> np.ndarray:
        """Returns how often each value is missing: statics, then structured features and leads by window."""
        return self._missing

    def rows(self) -> Rows:
        """Returns a sample of at most `ROWS` trajectories."""
        return Rows(*self._rows.rows()[1:])

    def pictured(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns ranks, shards and offsets of a sample of at most `PICTURED` trajectories."""
        return self._pictured.rows()
