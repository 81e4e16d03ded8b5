"""A split's tabular features as one row per trajectory, for models that know nothing of time or signals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tfmmcl.cohorts.splits import Split
from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.verify import read_trajectories


@dataclass(frozen=True)
class Tabular:
    """The flattened features of N trajectories, in stored order.

    Attributes:
        trajectories: Their ids, `(N,)`.
        patients: Whose they are, `(N,)`.
        features: `(N, F)` float32 in the spec's units, NaN where missing: statics, then each window's features.
        names: The columns' names, such as `age` and, for the third window, `heart_rate_mean[w3]`.
    """

    trajectories: NDArray[np.str_]
    patients: NDArray[np.str_]
    features: NDArray[np.float32]
    names: tuple[str, ...]


def flatten(data: DataSet, split: Split, *, fill: bool = True) -> Tabular:
    """Reads a split's statics and structured features; signals are not decoded.

    Args:
        data: The data set.
        split: Which split.
        fill: Whether a feature that is missing in a window takes its last earlier value in that trajectory, as it does
            for the network. Default True.

    Raises:
        InputError: If the split has no trajectories or a record is damaged.
    """
    trajectories = list(read_trajectories(without_signals(data), split))
    structured = np.stack([trajectory.structured for trajectory in trajectories])
    if fill:
        structured = forward_fill(structured)
    statics = np.stack([trajectory.statics for trajectory in trajectories])
    return Tabular(
        trajectories=np.array([trajectory.name for trajectory in trajectories]),
        patients=np.array([trajectory.patient for trajectory in trajectories]),
        features=np.concatenate([statics, structured.reshape(len(structured), -1)], axis=1),
        names=column_names(data.spec),
    )


def without_signals(data: DataSet) -> DataSet:
    """Returns the same data set as one without leads, whose signals nobody decodes."""
    spec = data.spec.model_copy(update={"leads": (), "signal_scale_mv": ()})
    return DataSet(data.path, data.manifest.model_copy(update={"spec": spec}))


def forward_fill(structured: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replaces each NaN of `(N, T, M)` by the feature's last earlier value; NaN stays where there is none."""
    windows = np.arange(structured.shape[1])[:, None]
    latest = np.maximum.accumulate(np.where(np.isnan(structured), 0, windows), axis=1)
    return np.take_along_axis(structured, latest, axis=1)


def column_names(spec: Spec) -> tuple[str, ...]:
    """Returns the names of the columns that `flatten` makes."""
    statics = tuple(feature.name for feature in spec.statics)
    return statics + tuple(
        f"{feature.name}[w{window}]" for window in range(1, spec.windows + 1) for feature in spec.structured
    )


def static_columns(names: Sequence[str]) -> list[int]:
    """Returns the places of the statics among column names."""
    return [place for place, name in enumerate(names) if not re.search(r"\[w\d+\]$", name)]
