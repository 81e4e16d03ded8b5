"""Statistics of the training split: moments for standardisation, and the statics' empirical marginals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from tfmmcl.cohorts.trajectory import Spec, Trajectory
from tfmmcl.errors import InputError
from tfmmcl.files import RemotePath
from tfmmcl.records.sample import Sample

MARGINAL_SIZE = 65_536
"""Values kept per static feature; beyond it a uniform sample, so that memory stays bounded."""


@dataclass(frozen=True)
class Statistics:
    """What `statistics.npz` holds, all in physical units.

    Attributes:
        structured_mean: `(M,)`; 0 where a feature was never observed.
        structured_std: `(M,)`; 1 where a feature never varied.
        statics_mean: `(L,)`.
        statics_std: `(L,)`.
        signals_mean: `(C,)` in mV.
        signals_std: `(C,)` in mV.
        marginal: `(L, K)` observed values of each static feature, NaN-padded at the end.
        marginal_count: `(L,)` observed values in each row of `marginal`.
    """

    structured_mean: np.ndarray
    structured_std: np.ndarray
    statics_mean: np.ndarray
    statics_std: np.ndarray
    signals_mean: np.ndarray
    signals_std: np.ndarray
    marginal: np.ndarray
    marginal_count: np.ndarray

    def save(self, path: Path) -> None:
        """Writes the arrays, without pickle."""
        np.savez(path, **{item.name: getattr(self, item.name) for item in fields(self)})

    @classmethod
    def load(cls, path: Path | RemotePath, spec: Spec) -> Statistics:
        """Reads `path`; raises `InputError` if it is missing, damaged or does not fit the spec."""
        sizes = {"structured": len(spec.structured), "statics": len(spec.statics), "signals": len(spec.leads)}
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                statistics = cls(**{item.name: arrays[item.name] for item in fields(cls)})
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; expected the training split's statistics.") from None
        except Exception as error:  # a damaged archive raises any of a dozen kinds
            raise InputError(f"{path}: cannot be read ({error}).") from None
        for name, size in sizes.items():
            for moment in ("mean", "std"):
                values = getattr(statistics, f"{name}_{moment}")
                if values.shape != (size,) or not np.isfinite(values).all():
                    raise InputError(f"{path}: '{name}_{moment}' has shape {values.shape}, expected ({size},), finite.")
                if moment == "std" and (values <= 0).any():
                    raise InputError(f"{path}: '{name}_std' has a value that is not positive.")
        if statistics.marginal.shape[:1] != (sizes["statics"],) or statistics.marginal_count.shape != (
            sizes["statics"],
        ):
            raise InputError(f"{path}: 'marginal' does not have {sizes['statics']} rows.")
        return statistics


@dataclass
class Moments:
    """Running mean and sum of squared deviations per column, merged by Chan et al. 1983."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def zeros(cls, columns: int) -> Moments:
        """Returns the moments of nothing."""
        return cls(*(np.zeros(columns) for _ in range(3)))

    def add(self, values: np.ndarray) -> None:
        """Adds the observed values of `(N, columns)`."""
        observed = np.isfinite(values)
        count = observed.sum(axis=0)
        mean = np.where(observed, values, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
        squares = np.where(observed, values - mean, 0.0)
        self.merge(Moments(count.astype(float), mean, np.einsum("nc,nc->c", squares, squares)))

    def merge(self, other: Moments) -> None:
        """Adds all that `other` has seen."""
        total = np.maximum(self.count + other.count, 1)
        delta = other.mean - self.mean
        self.squares = self.squares + other.squares + delta**2 * self.count * other.count / total
        self.mean = self.mean + delta * other.count / total
        self.count = self.count + other.count

    def array(self) -> np.ndarray:
        """Returns `(3, columns)`, from which `Moments(*array)` makes them again."""
        return np.stack([self.count, self.mean, self.squares])

    def scale(self) -> np.ndarray:
        """Returns the standard deviation per column, and 1 where it is zero or unknown, to divide by."""
        std = np.sqrt(self.squares / np.maximum(self.count, 1))
        # A constant column is left at its scale; rounding may leave it a hair above zero.
        return np.where(std > 1e-6 * np.maximum(np.abs(self.mean), 1e-6), std, 1.0)


class Accumulator:
    """Gathers `Statistics` one trajectory at a time; accumulators of several shards merge.

    Args:
        spec: Names and shapes.
        seed: Of the sample that the statics' marginals are; each shard has its own.
    """

    def __init__(self, spec: Spec, seed: int = 0) -> None:
        self._moments = {
            "structured": Moments.zeros(len(spec.structured)),
            "statics": Moments.zeros(len(spec.statics)),
            "signals": Moments.zeros(len(spec.leads)),
        }
        self._marginal = Sample(MARGINAL_SIZE, np.empty((0, len(spec.statics)), np.float32))
        self._random = np.random.default_rng(seed)

    def add(self, trajectory: Trajectory) -> None:
        """Adds one training trajectory."""
        self._moments["structured"].add(trajectory.structured)
        self._moments["statics"].add(trajectory.statics[None])
        windows, samples, leads = trajectory.signals.shape
        self._moments["signals"].add(trajectory.signals.reshape(windows * samples, leads))
        self._marginal.add(self._random.random(1), trajectory.statics[None])

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all that was added, for `merge`."""
        ranks, values = self._marginal.rows()
        return {"ranks": ranks, "values": values} | {name: item.array() for name, item in self._moments.items()}

    def merge(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds all that another accumulator has seen, given its `arrays`."""
        for name, item in self._moments.items():
            item.merge(Moments(*arrays[name]))
        self._marginal.add(arrays["ranks"], arrays["values"])

    def finish(self) -> Statistics:
        """Returns the statistics of everything added."""
        _, values = self._marginal.rows()
        columns = [column[np.isfinite(column)] for column in values.T]
        count = np.array([len(column) for column in columns], np.int64)
        marginal = np.full((len(columns), max(1, count.max(initial=0))), np.nan, np.float32)
        for row, column in zip(marginal, columns):
            row[: len(column)] = np.sort(column)
        return Statistics(
            **{f"{name}_mean": item.mean.astype(np.float32) for name, item in self._moments.items()},
            **{f"{name}_std": item.scale().astype(np.float32) for name, item in self._moments.items()},
            marginal=marginal,
            marginal_count=count,
        )
