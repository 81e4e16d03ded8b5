"""What every cohort produces: trajectories, and the spec that gives their names, units and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tfmmcl.errors import InputError

if TYPE_CHECKING:
    from tfmmcl.cohorts.splits import Split

MAXIMUM_SAMPLES = 10_000_000
"""Samples in a window beyond which a spec is a mistake: an hour at 2,500 Hz is 9 million."""


class Feature(BaseModel):
    """A tabular feature's name and physical unit (`"1"` where it has none)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit: str

    def named(self, quote: str = "") -> str:
        """Returns the name, between quotes, with the unit in brackets, if there is one."""
        name = f"{quote}{self.name}{quote}"
        return name if self.unit == "1" else f"{name} ({self.unit})"


class Task(BaseModel):
    """A label that some trajectories have.

    Attributes:
        name: Its name.
        kind: `binary`: 0 or 1. `multiclass`: the position of a class, from 0 on. `regression`: any finite number.
        classes: The classes' names, for `multiclass`.
        unit: The number's unit, for `regression`.
        description: What the label means.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["binary", "multiclass", "regression"] = "binary"
    classes: tuple[str, ...] = ()
    unit: str = "1"
    description: str = ""

    @model_validator(mode="after")
    def _has_classes(self) -> Task:
        if (self.kind == "multiclass") != (len(self.classes) > 1):
            raise ValueError(f"task '{self.name}' is {self.kind} with {len(self.classes)} classes")
        return self

    @property
    def values(self) -> tuple[int, ...]:
        """The labels there are; none are listed for `regression`."""
        return {"binary": (0, 1), "multiclass": tuple(range(len(self.classes))), "regression": ()}[self.kind]

    def allows(self, label: float) -> bool:
        """Returns whether a trajectory may have this label."""
        return np.isnan(label) or (np.isfinite(label) if self.kind == "regression" else label in self.values)


class Spec(BaseModel):
    """Names, units and shapes shared by all trajectories of a data set.

    Attributes:
        windows: Windows in a trajectory, T.
        window_seconds: Length of each window's signal, in seconds.
        sampling_rate_hz: Samples per second of every lead, in Hz.
        leads: Lead names, C of them; empty for a cohort without signals.
        signal_scale_mv: Millivolts per least significant bit of the stored int16, one per lead.
        structured: The M features summarised in each window.
        statics: The L features known once per trajectory.
        tasks: The labels trajectories may have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: int = Field(ge=1)
    window_seconds: float = Field(gt=0, allow_inf_nan=False)
    sampling_rate_hz: float = Field(gt=0, allow_inf_nan=False)
    leads: tuple[str, ...]
    signal_scale_mv: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    structured: tuple[Feature, ...] = Field(min_length=1)
    statics: tuple[Feature, ...] = Field(min_length=1)
    tasks: tuple[Task, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        if len(self.signal_scale_mv) != len(self.leads):
            raise ValueError(f"signal_scale_mv has {len(self.signal_scale_mv)} values for {len(self.leads)} leads")
        if self.leads and not 1 <= self.samples <= MAXIMUM_SAMPLES:
            raise ValueError(f"a window has {self.samples} samples, expected 1 to {MAXIMUM_SAMPLES}")
        for what in ("structured", "statics", "tasks"):
            names = [item.name for item in getattr(self, what)]
            if len(set(names)) != len(names):
                raise ValueError(f"{what} names a feature twice: {', '.join(names)}")
        if len(set(self.leads)) != len(self.leads):
            raise ValueError(f"leads names a lead twice: {', '.join(self.leads)}")
        return self

    @property
    def samples(self) -> int:
        """Samples in each window's signal, Z."""
        return round(self.window_seconds * self.sampling_rate_hz)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each of a trajectory's arrays."""
        return {
            "signals": (self.windows, self.samples, len(self.leads)),
            "structured": (self.windows, len(self.structured)),
            "statics": (len(self.statics),),
        }


@dataclass(frozen=True)
class Trajectory:
    """One patient's trajectory in physical units.

    Attributes:
        patient: Whose it is; all trajectories of one patient go to one split.
        name: Unique within the cohort.
        signals: `(T, Z, C)` float32 in millivolts, NaN where a sample is missing (all NaN: that lead is
            missing in that window). `(T, Z, 0)` in a cohort without signals.
        structured: `(T, M)` float32 in the spec's units, NaN where missing.
        statics: `(L,)` float32 in the spec's units, NaN where missing.
        labels: Task name to label; a task that is absent or NaN has no label here.
    """

    patient: str
    name: str
    signals: np.ndarray
    structured: np.ndarray
    statics: np.ndarray
    labels: dict[str, float] = field(default_factory=dict)

    def check(self, spec: Spec) -> None:
        """Raises `InputError` unless the ids, every array's shape and every label's name fit the spec."""
        if not self.patient or not self.name:
            raise InputError(f"trajectory '{self.name}' of patient '{self.patient}': an id is empty.")
        for key, shape in spec.shapes.items():
            found = getattr(self, key).shape
            if found != shape:
                raise InputError(f"trajectory {self.name}: {key} has shape {found}, expected {shape}.")
        unknown = set(self.labels) - {task.name for task in spec.tasks}
        if unknown:
            raise InputError(
                f"trajectory {self.name}: label '{min(unknown)}' is not one of the cohort's tasks "
                f"({', '.join(task.name for task in spec.tasks)})."
            )


Level = Literal["patients", "stays", "records", "anchors"]


@dataclass(frozen=True)
class Excluded:
    """Something that became no trajectory, and why.

    Attributes:
        level: What it is one of.
        reason: One of a handful of sentences, without ids or dates: it is counted, and written to the manifest.
        detail: Which one it is and what was found. It may name files and ids, and so is only shown on the terminal.
    """

    level: Level
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Seen:
    """How many stays, records or anchors of a patient were looked at, those excluded later among them."""

    level: Level
    count: int


class Cohort(Protocol):
    """A source of trajectories. Instances are pickled to preparation workers, so they hold settings, not data."""

    spec: Spec

    def stage(self, folder: Path) -> None:
        """Readies the sources for reading by patient; called before any other method but `resume_token`.

        It is called a second time, with the folder emptied, where the sources turn out not to be those of the
        preparation that is being continued.

        Args:
            folder: A folder for whatever that needs, which workers see too and which is removed in the end. What an
                earlier, interrupted preparation of the same sources left there may be used.
        """
        ...

    def patients(self) -> list[str]:
        """Returns every patient's id, in a fixed order."""
        ...

    def given_splits(self) -> Mapping[str, Split] | None:
        """Returns patient → split where a table decides, None where hashing does."""
        ...

    def trajectories(self, patient: str) -> Iterator[Trajectory | Excluded | Seen]:
        """Yields the patient's trajectories, and what was left out, in a fixed order."""
        ...

    def sources(self) -> dict[str, str]:
        """Returns source → SHA-256, for the manifest; no name that holds an id; empty for generated data."""
        ...

    def resume_token(self) -> str:
        """Returns a text that differs where continuing an interrupted preparation would mix what does not belong.

        It stands for what neither the settings nor `sources` show, such as the key that ids are hashed with; asked
        for before `stage`, and never written to the manifest. The order of patients in the shards depends on it too.
        """
        ...

    def notes(self) -> list[str]:
        """Returns sentences on what was found in the sources, such as implausible values, for the manifest."""
        ...
