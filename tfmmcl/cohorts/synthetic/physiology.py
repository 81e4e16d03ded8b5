"""Latent states, and what follows from them in a patient's numbers: vitals, laboratory values, pressures and labels.

Two latents drive everything: right-ventricular strain and decompensation, standard normal at every window in the
population, correlated within a patient and drifting within a trajectory. Labels are thresholds on a noisy copy of a
latent, so their prevalence is exact in expectation and the best AUROC any model can reach is known (`latent_auroc`).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from tfmmcl.cohorts.trajectory import Feature
from tfmmcl.config import Settings

WINDOW_MINUTES = 30

Fraction = Annotated[float, Field(ge=0, le=1)]
BeatsPerMinute = Annotated[float, Field(ge=-30, le=30)]
LogShift = Annotated[float, Field(ge=-1, le=1)]

STRUCTURED = tuple(
    Feature(name=f"{vital}_{summary}", unit=unit)
    for vital, unit, summaries in (
        ("heart_rate", "bpm", ("mean", "sd", "min", "max", "last")),
        ("spo2", "%", ("mean", "sd", "min", "last")),
    )
    for summary in summaries
)


class _Static(NamedTuple):
    name: str
    unit: str
    centre: float  # the median
    spread: float  # SD, of the logarithm where the distribution is skewed
    skewed: bool
    low: float
    high: float
    decimals: int  # as laboratories and monitors report it
    strain: float  # shift in SDs for one SD of strain
    decompensation: float  # and of decompensation


_STATICS = (
    _Static("sodium", "mmol/L", 138, 3.8, False, 110, 170, 0, 0.0, -0.35),
    _Static("potassium", "mmol/L", 4.2, 0.11, True, 2.2, 7.5, 1, 0.0, 0.25),
    _Static("chloride", "mmol/L", 102, 4.5, False, 75, 130, 0, -0.05, -0.25),
    _Static("bicarbonate", "mmol/L", 25, 3.8, False, 8, 45, 0, 0.15, -0.35),
    _Static("bun", "mg/dL", 22, 0.5, True, 3, 180, 0, 0.2, 0.45),
    _Static("creatinine", "mg/dL", 1.1, 0.42, True, 0.3, 15, 2, 0.15, 0.40),
    _Static("glucose", "mg/dL", 122, 0.3, True, 40, 700, 0, 0.0, 0.15),
    _Static("systolic_bp", "mmHg", 122, 17, False, 60, 230, 0, -0.1, -0.45),
    _Static("diastolic_bp", "mmHg", 68, 10, False, 30, 130, 0, 0.0, -0.35),
)
STATICS = tuple(Feature(name=static.name, unit=static.unit) for static in _STATICS)
_PANEL = 7  # the first seven come from one tube, the last two from one cuff

# Residual correlations: electroneutrality ties Na to Cl and Cl against HCO3, the kidney ties K, BUN and creatinine.
_CORRELATIONS = {
    ("sodium", "chloride"): 0.6,
    ("chloride", "bicarbonate"): -0.4,
    ("potassium", "creatinine"): 0.3,
    ("potassium", "bun"): 0.25,
    ("potassium", "bicarbonate"): -0.15,
    ("bun", "creatinine"): 0.65,
    ("bicarbonate", "creatinine"): -0.2,
    ("sodium", "glucose"): -0.15,
    ("systolic_bp", "diastolic_bp"): 0.6,
}


class LatentSettings(Settings):
    """How the latents vary; both are standard normal at every window.

    Attributes:
        patient: Share of the variance that is the patient's own, the same in all trajectories.
        drift: Share of the variance that moves within a trajectory.
        correlation: Correlation of strain with decompensation.
    """

    patient: Fraction = 0.5
    drift: Fraction = 0.05
    correlation: float = Field(default=0.3, gt=-1, lt=1)


class VitalEffects(Settings):
    """Shift of vitals, laboratory values and pressures for one SD of a latent; 0 switches an effect off.

    Attributes:
        heart_rate: Beats per minute.
        respiration: Of the log of the respiratory rate.
        variability: Of the log of the RR intervals' relative SD.
        desaturation: Of the log of 100 - SpO2.
        statics: Scales the table of shifts in laboratory values and pressures.
    """

    heart_rate: BeatsPerMinute = 0.0
    respiration: LogShift = 0.0
    variability: LogShift = 0.0
    desaturation: LogShift = 0.0
    statics: Annotated[float, Field(ge=0, le=3)] = 1.0


class StrainEffects(VitalEffects):
    """The defaults for right-ventricular strain."""

    heart_rate: BeatsPerMinute = 2.0
    desaturation: LogShift = 0.12


class DecompensationEffects(VitalEffects):
    """The defaults for decompensation."""

    heart_rate: BeatsPerMinute = 6.0
    respiration: LogShift = 0.12
    variability: LogShift = -0.3
    desaturation: LogShift = 0.16


class TabularEffects(Settings):
    """What each latent does to the numbers.

    Attributes:
        strain: Effects of right-ventricular strain.
        decompensation: Effects of decompensation.
    """

    strain: StrainEffects = StrainEffects()
    decompensation: DecompensationEffects = DecompensationEffects()


class MissingSettings(Settings):
    """Probabilities that a value is missing.

    Attributes:
        heart_rate: A window has no heart rate.
        spo2: A window has no SpO2.
        panel: A trajectory has no metabolic panel.
        pressure: A trajectory has no blood pressure.
        value: A single laboratory value is missing from a panel.
    """

    heart_rate: Fraction = 0.03
    spo2: Fraction = 0.1
    panel: Fraction = 0.1
    pressure: Fraction = 0.05
    value: Fraction = 0.01


class LabelSettings(Settings):
    """A binary label: `correlation * latent + sqrt(1 - correlation^2) * noise` above the threshold for the prevalence.

    Attributes:
        prevalence: Expected fraction of positives.
        correlation: Of the label's score with the latent of the last window; 0 for a label that is noise.
        labelled_fraction: Fraction of patients whose trajectories have the label.
    """

    prevalence: float = Field(gt=0, lt=1)
    correlation: float = Field(default=0.85, ge=0, lt=1)
    labelled_fraction: Fraction = 1.0


class MpapSettings(LabelSettings):
    """Elevated mean pulmonary arterial pressure: common, and known in those who had a catheter.

    Attributes:
        prevalence: The paper's (Raghu et al. 2022, Table 1).
        labelled_fraction: Fraction of patients who had a catheter.
    """

    prevalence: float = Field(default=0.778, gt=0, lt=1)
    labelled_fraction: Fraction = 0.3


class MortalitySettings(LabelSettings):
    """Death within 24 hours: rare, and known in all.

    Attributes:
        prevalence: The paper's (Raghu et al. 2022, Table 1).
        correlation: Of the label's score with decompensation.
    """

    prevalence: float = Field(default=0.013, gt=0, lt=1)
    correlation: float = Field(default=0.75, ge=0, lt=1)


@dataclass(frozen=True)
class Vitals:
    """Heart rate, breathing and saturation of J trajectories of T windows.

    Attributes:
        structured: `(J, T, 9)` float32 summaries in `STRUCTURED`'s order, NaN where missing.
        heart_rate: `(J, T)` true mean heart rate in bpm during the minute of the ECG.
        variability: `(J, T)` SD of the RR intervals over their mean.
        respiration_hz: `(J, T)` breaths per second.
    """

    structured: np.ndarray
    heart_rate: np.ndarray
    variability: np.ndarray
    respiration_hz: np.ndarray


def draw_latents(rng: np.random.Generator, trajectories: int, windows: int, settings: LatentSettings) -> np.ndarray:
    """Draws one patient's latents.

    Args:
        rng: Source of randomness.
        trajectories: J.
        windows: T.
        settings: How the variance is divided.

    Returns:
        `(2, J, T)`: strain and decompensation, each standard normal over patients.
    """
    patient = rng.standard_normal((2, 1))
    admission = _autoregressive(rng, (2, trajectories), 0.5)
    between = np.sqrt(settings.patient) * patient + np.sqrt(1 - settings.patient) * admission
    within = _autoregressive(rng, (2, trajectories, windows), 0.8)
    strain, other = np.sqrt(1 - settings.drift) * between[:, :, None] + np.sqrt(settings.drift) * within
    return np.stack([strain, settings.correlation * strain + np.sqrt(1 - settings.correlation**2) * other])


def draw_vitals(
    rng: np.random.Generator, latents: np.ndarray, effects: TabularEffects, missing: MissingSettings
) -> Vitals:
    """Draws minute-by-minute heart rate and SpO2 in each 30-minute window, and summarises what the monitor shows.

    Args:
        rng: Source of randomness.
        latents: `(2, J, T)` strain and decompensation.
        effects: What the latents do.
        missing: How often a window has no value.

    Returns:
        The vitals; the ECG's heart rate is that of one of the 30 minutes, before the monitor rounds it.
    """
    shape = latents.shape[1:]

    def shift(name: str) -> np.ndarray:
        return getattr(effects.strain, name) * latents[0] + getattr(effects.decompensation, name) * latents[1]

    def minutes(sd: float) -> np.ndarray:
        return sd * _autoregressive(rng, (*shape, WINDOW_MINUTES), 0.8)

    own = rng.standard_normal(4)
    rate = 80 + 8 * own[0] + shift("heart_rate") + 3 * _autoregressive(rng, shape, 0.5)
    rate = np.clip(rate[..., None] + minutes(2.5), 38, 170)
    deficit = np.log(3.5) + 0.25 * own[1] + shift("desaturation") + 0.1 * _autoregressive(rng, shape, 0.5)
    saturation = np.clip(100 - np.exp(deficit[..., None] + minutes(0.12)), 60, 100)
    variability = 0.035 * np.exp(0.3 * own[2] + shift("variability") + 0.15 * rng.standard_normal(shape))
    respiration = 17 / 60 * np.exp(0.12 * own[3] + shift("respiration") + 0.06 * rng.standard_normal(shape))
    minute = rng.integers(WINDOW_MINUTES, size=shape)

    shown, oxygen = np.rint(rate), np.rint(saturation)
    summaries = [f(shown, -1) for f in (np.mean, np.std, np.min, np.max)] + [shown[..., -1]]
    summaries += [f(oxygen, -1) for f in (np.mean, np.std, np.min)] + [oxygen[..., -1]]
    structured = np.stack(summaries, -1).astype(np.float32)
    lost = rng.uniform(size=(2, *shape))
    structured[lost[0] < missing.heart_rate, :5] = np.nan
    structured[lost[1] < missing.spo2, 5:] = np.nan
    return Vitals(
        structured=structured,
        heart_rate=np.take_along_axis(rate, minute[..., None], -1)[..., 0],
        variability=np.clip(variability, 0.004, 0.12),
        respiration_hz=np.clip(respiration, 0.1, 0.8),
    )


def draw_statics(
    rng: np.random.Generator, latents: np.ndarray, effects: TabularEffects, missing: MissingSettings
) -> np.ndarray:
    """Draws laboratory values and pressures at the start of each trajectory.

    Args:
        rng: Source of randomness.
        latents: `(2, J, T)` strain and decompensation; the first window's count.
        effects: What the latents do.
        missing: How often a panel, a pressure or a single value is missing.

    Returns:
        `(J, 9)` float32 in `STATICS`' order and units, NaN where missing.
    """
    count = latents.shape[1]
    # Half of what the latents leave unexplained is the patient's own: creatinine of 2 stays near 2.
    residual = np.sqrt(0.5) * (rng.standard_normal(len(_STATICS)) + rng.standard_normal((count, len(_STATICS))))
    table = np.array([[s.centre, s.spread, s.low, s.high, s.strain, s.decompensation] for s in _STATICS]).T
    centre, spread, low, high, strain, decompensation = table
    strain, decompensation = strain * effects.strain.statics, decompensation * effects.decompensation.statics
    score = residual @ _CHOLESKY.T + np.outer(latents[0, :, 0], strain) + np.outer(latents[1, :, 0], decompensation)
    skewed = np.array([static.skewed for static in _STATICS])
    values = np.where(skewed, centre * np.exp(np.where(skewed, spread, 0) * score), centre + spread * score)
    systolic, diastolic = values[:, -2:].T
    values[:, -1] = np.minimum(diastolic, systolic - 15)
    values = np.clip(values, low, high)
    for column, static in enumerate(_STATICS):
        values[:, column] = np.round(values[:, column], static.decimals)
    lost = rng.uniform(size=(count, len(_STATICS) + 2))
    values[:, :_PANEL][lost[:, :_PANEL] < missing.value] = np.nan
    values[lost[:, -2] < missing.panel, :_PANEL] = np.nan
    values[lost[:, -1] < missing.pressure, _PANEL:] = np.nan
    return values.astype(np.float32)


def draw_labels(rng: np.random.Generator, latent: np.ndarray, settings: LabelSettings) -> np.ndarray:
    """Draws one patient's labels of one task.

    Args:
        rng: Source of randomness.
        latent: `(J,)` standard normal, one for each trajectory.
        settings: Prevalence, correlation and how many patients are labelled.

    Returns:
        `(J,)` 0 or 1, or NaN in all places where the patient is not labelled.
    """
    labelled = rng.uniform() < settings.labelled_fraction
    noise = rng.standard_normal(latent.shape)
    score = settings.correlation * latent + np.sqrt(1 - settings.correlation**2) * noise
    labels = (score > NormalDist().inv_cdf(1 - settings.prevalence)).astype(float)
    return labels if labelled else np.full_like(labels, np.nan)


def latent_auroc(prevalence: float, correlation: float) -> float:
    """Returns the AUROC of a label's own latent: what a model that recovers the latent perfectly can reach.

    Args:
        prevalence: Fraction of positives.
        correlation: Correlation of the label's score with the latent.
    """
    normal = NormalDist()
    threshold, noise = normal.inv_cdf(1 - prevalence), np.sqrt(1 - correlation**2)
    x = np.linspace(-8, 8, 4001)
    density = np.exp(-0.5 * x**2)
    positive = density * [normal.cdf(z) for z in (correlation * x - threshold) / noise]
    negative = density - positive
    below = np.cumsum(negative) - 0.5 * negative
    return float(positive @ below / (positive.sum() * negative.sum()))


def _autoregressive(rng: np.random.Generator, shape: tuple[int, ...], coefficient: float) -> np.ndarray:
    """Returns stationary AR(1) series along the last axis, standard normal at every step."""
    series = rng.standard_normal(shape)
    for step in range(1, shape[-1]):
        series[..., step] *= np.sqrt(1 - coefficient**2)
        series[..., step] += coefficient * series[..., step - 1]
    return series


def _cholesky() -> np.ndarray:
    index = {static.name: i for i, static in enumerate(_STATICS)}
    matrix = np.eye(len(_STATICS))
    for (a, b), value in _CORRELATIONS.items():
        matrix[index[a], index[b]] = matrix[index[b], index[a]] = value
    return np.linalg.cholesky(matrix)


_CHOLESKY = _cholesky()
