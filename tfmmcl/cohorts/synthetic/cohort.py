"""The synthetic cohort: the demo's data and a test bed whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from tfmmcl.cohorts.settings import CohortSettings
from tfmmcl.cohorts.synthetic import ecg, physiology
from tfmmcl.cohorts.synthetic.ecg import Anatomy, AnatomySettings, EcgEffects, NoiseSettings
from tfmmcl.cohorts.synthetic.leads import check_leads
from tfmmcl.cohorts.synthetic.physiology import (
    LatentSettings,
    MissingSettings,
    MortalitySettings,
    MpapSettings,
    TabularEffects,
    Vitals,
)
from tfmmcl.cohorts.synthetic.rhythm import Rhythm
from tfmmcl.cohorts.trajectory import Spec, Task, Trajectory
from tfmmcl.errors import InputError

_TASKS = (
    Task(
        name="elevated_mpap", description="Elevated mean pulmonary arterial pressure; follows right-ventricular strain"
    ),
    Task(name="mortality_24h", description="Death within 24 hours; follows decompensation"),
)
_TABULAR, _ANATOMY, _RHYTHM, _ELECTRODES = range(4)  # streams of random numbers
_PREFIX = "synthetic-"


class SyntheticSettings(CohortSettings):
    """Settings of a synthetic cohort; the defaults are the paper's shape and prevalences (Raghu et al. 2022, Table 1).

    Attributes:
        source: Always `synthetic`.
        seed: Another seed makes another population.
        patients: Number of patients.
        trajectories_per_patient: Mean of a geometric distribution that starts at 1 (the paper has 51,921 of 10,990).
        windows: 30-minute windows in a trajectory, T.
        window_seconds: ECG recorded in each window.
        sampling_rate_hz: Samples per second of every lead.
        leads: Any of I, II, III, aVR, aVL, aVF, V1-V6; none for a cohort without signals.
        signal_scale_mv: Millivolts per stored unit, for every lead.
        elevated_mpap: The label that follows strain; a subset of patients has had a catheter.
        mortality_24h: The label that follows decompensation. Trajectories are taken as exchangeable draws, so a
            positive one need not be the patient's last.
        latents: How strain and decompensation vary between and within patients.
        tabular_effects: What they do to vitals, laboratory values and pressures.
        ecg_effects: What they do to the ECG's shape.
        anatomy: How patients' ECGs differ for other reasons.
        noise: Noise and lead-off gaps.
        missing: Missing tabular values.
    """

    source: Literal["synthetic"] = "synthetic"
    seed: int = Field(default=0, ge=0, lt=2**32)
    patients: int = Field(default=64, ge=1, le=999_999)
    trajectories_per_patient: float = Field(default=4.7, ge=1, le=1000)
    windows: int = Field(default=10, ge=1, le=1000)
    window_seconds: float = Field(default=30.0, ge=0.1, le=1800)
    sampling_rate_hz: float = Field(default=240.0, ge=10, le=10_000)
    leads: tuple[str, ...] = ("I", "II", "III", "V1")
    signal_scale_mv: float = Field(default=0.001, gt=0, le=1)
    elevated_mpap: MpapSettings = MpapSettings()
    mortality_24h: MortalitySettings = MortalitySettings()
    latents: LatentSettings = LatentSettings()
    tabular_effects: TabularEffects = TabularEffects()
    ecg_effects: EcgEffects = EcgEffects()
    anatomy: AnatomySettings = AnatomySettings()
    noise: NoiseSettings = NoiseSettings()
    missing: MissingSettings = MissingSettings()

    @field_validator("leads")
    @classmethod
    def _known_leads(cls, leads: tuple[str, ...]) -> tuple[str, ...]:
        check_leads(leads)
        if len(set(leads)) != len(leads):
            raise ValueError("a lead is named twice")
        return leads


@dataclass(frozen=True)
class Truth:
    """What a patient's J trajectories were made from; for tests and oracles, never part of a trajectory.

    Attributes:
        strain: `(J, T)` right-ventricular strain, standard normal.
        decompensation: `(J, T)` decompensation, standard normal.
        heart_rate: `(J, T)` mean rate in bpm of the beats in each window's ECG.
        beats: R peaks in seconds from the window's start, for each trajectory and window.
        anatomy: The nuisance factors.
    """

    strain: np.ndarray
    decompensation: np.ndarray
    heart_rate: np.ndarray
    beats: list[list[np.ndarray]]
    anatomy: Anatomy


@dataclass(frozen=True)
class _Patient:
    index: int
    latents: np.ndarray
    vitals: Vitals
    statics: np.ndarray
    labels: dict[str, np.ndarray]
    anatomy: Anatomy


class SyntheticCohort:
    """Patients made from a seed, one at a time and independently, so any worker makes the same bytes.

    Tabular data, anatomy, rhythm and each electrode draw from streams of their own: another set of leads, or other
    noise, leaves labels, numbers and beats as they were.

    Makes about 1,600 windows/s on one core at the paper's shape (4 leads of 7,200 samples) and 4,500 at the demo's
    (2 leads of 800), as measured.

    Args:
        settings: What to make.

    Example:
        ```python
        cohort = SyntheticCohort(SyntheticSettings(name="demo", patients=2, leads=("II", "V1")))
        for patient in cohort.patients():
            for trajectory in cohort.trajectories(patient):
                print(trajectory.name, trajectory.signals.shape, trajectory.labels)
        ```
    """

    def __init__(self, settings: SyntheticSettings) -> None:
        self.settings = settings
        self.spec = Spec(
            windows=settings.windows,
            window_seconds=settings.window_seconds,
            sampling_rate_hz=settings.sampling_rate_hz,
            leads=settings.leads,
            signal_scale_mv=(settings.signal_scale_mv,) * len(settings.leads),
            structured=physiology.STRUCTURED,
            statics=physiology.STATICS,
            tasks=_TASKS,
        )

    def stage(self, folder: Path) -> None:
        """Does nothing: there are no sources."""

    def patients(self) -> list[str]:
        """Returns every patient's id, in a fixed order."""
        return [_name(index) for index in range(self.settings.patients)]

    def given_splits(self) -> None:
        """Returns None: splits are by hashing."""
        return None

    def trajectories(self, patient: str) -> Iterator[Trajectory]:
        """Yields the patient's trajectories in a fixed order.

        Args:
            patient: One of `patients()`.

        Raises:
            InputError: If there is no such patient.
        """
        made = self._patient(patient)
        s = self.settings
        for j in range(len(made.statics)):
            signals = ecg.render(
                self._rhythm(made, j),
                *made.latents[:, j],
                made.anatomy,
                s.leads,
                self.spec.samples,
                s.sampling_rate_hz,
                generator=partial(self._electrode_generator, made.index, j),
                shift=s.anatomy.electrode_shift,
                effects=s.ecg_effects,
                noise=s.noise,
            )
            labels = {task: float(values[j]) for task, values in made.labels.items() if not np.isnan(values[j])}
            yield Trajectory(patient, f"{patient}-{j:03d}", signals, made.vitals.structured[j], made.statics[j], labels)

    def sources(self) -> dict[str, str]:
        """Returns an empty mapping: nothing is read."""
        return {}

    def resume_token(self) -> str:
        """Returns an empty text: the settings say everything."""
        return ""

    def notes(self) -> list[str]:
        """Returns an empty list: nothing was found in sources."""
        return []

    def latent(self, patient: str) -> Truth:
        """Returns the latent states, true beats and nuisance factors behind the patient's trajectories, for tests."""
        made = self._patient(patient)
        rhythms = [self._rhythm(made, j) for j in range(len(made.statics))]
        seconds = self.settings.window_seconds
        return Truth(
            *made.latents,
            heart_rate=np.stack([rhythm.heart_rate(seconds) for rhythm in rhythms]),
            beats=[[t[(t >= 0) & (t < seconds)] for t in rhythm.times] for rhythm in rhythms],
            anatomy=made.anatomy,
        )

    def _patient(self, patient: str) -> _Patient:
        s = self.settings
        number = patient.removeprefix(_PREFIX)
        index = int(number) if number.isdecimal() else -1
        if not 0 <= index < s.patients or patient != _name(index):
            raise InputError(f"no patient '{patient}'; expected {_name(0)} to {_name(s.patients - 1)}.")
        rng = self._generator(index, _TABULAR)
        count = int(rng.geometric(1 / s.trajectories_per_patient))
        latents = physiology.draw_latents(rng, count, s.windows, s.latents)
        labels = {
            task.name: physiology.draw_labels(rng, latent[:, -1], getattr(s, task.name))
            for task, latent in zip(_TASKS, latents)
        }
        return _Patient(
            index=index,
            latents=latents,
            labels=labels,
            vitals=physiology.draw_vitals(rng, latents, s.tabular_effects, s.missing),
            statics=physiology.draw_statics(rng, latents, s.tabular_effects, s.missing),
            anatomy=Anatomy.draw(self._generator(index, _ANATOMY), s.anatomy, s.noise.level_sd),
        )

    def _rhythm(self, made: _Patient, j: int) -> Rhythm:
        vitals = made.vitals
        return Rhythm.draw(
            self._generator(made.index, _RHYTHM, j),
            vitals.heart_rate[j],
            vitals.variability[j],
            vitals.respiration_hz[j],
            self.settings.window_seconds,
        )

    def _electrode_generator(self, index: int, j: int, electrode: int) -> np.random.Generator:
        return self._generator(index, _ELECTRODES + electrode, j)

    def _generator(self, index: int, stream: int, j: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, index, stream, j])


def _name(index: int) -> str:
    return f"{_PREFIX}{index:06d}"
