"""A 12-lead ECG from a beat model: Gaussian waves in three dimensions, seen by electrodes that add their noise.

The heart is one dipole in Frank's axes (x left, y down, z posterior). Every wave of every beat is a Gaussian in time
(McSharry et al., IEEE TBME 50:289, 2003) along its own direction; Dower's matrix (Dower et al., J Electrocardiol
13:243, 1980) turns the dipole into potentials at nine electrodes, where noise and lead-off gaps arise; leads are
differences of those potentials, so that III = II - I with the noise in it.

Everything is vectorised over the N windows of a trajectory and their K beats; the only loops are over the six waves,
over the electrodes in use and over lead-off gaps, which are rare. Measured on one core: 1,500 windows of 4 leads and
7,200 samples a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from tfmmcl.cohorts.synthetic.leads import ELECTRODE_VECTORS, LEAD_ROWS, check_leads
from tfmmcl.cohorts.synthetic.rhythm import Rhythm
from tfmmcl.config import Settings


class _Wave(NamedTuple):
    centre: float  # s from the R peak, at an RR interval of 1 s
    centre_power: float  # the centre goes with RR to this power
    rise: float  # s, the Gaussian's SD before its peak
    fall: float  # s, and after it
    width_power: float  # the widths go with RR to this power
    healthy: tuple[float, float, float]  # mV in Frank's axes
    strained: tuple[float, float, float]  # mV that a fully strained right ventricle adds


# Times are in seconds from the R peak rather than in phase, because depolarisation does not stretch with the cycle:
# P and QRS keep their durations at any rate, PR shortens a little (here with RR^(1/3)), and only repolarisation follows
# the cycle, with its square root (Bazett 1920). In phase alone, a slow heart would have a wide QRS.
#
# The right atrium comes before the left, which makes P biphasic in V1; the septum points forwards first (r in V1, q in
# V6). A loaded right heart adds its own dipole: rightwards and forwards in QRS (right axis, tall R in V1, S in V6),
# downwards and forwards in the right atrium (P pulmonale), backwards in T (inverted T in V1-V3).
_WAVES = (
    _Wave(-0.172, 1 / 3, 0.020, 0.020, 0.0, (0.04, 0.080, -0.04), (-0.01, 0.11, -0.05)),  # right atrium
    _Wave(-0.140, 1 / 3, 0.020, 0.020, 0.0, (0.06, 0.045, 0.05), (0.0, 0.0, 0.0)),  # left atrium
    _Wave(-0.025, 0.0, 0.008, 0.008, 0.0, (-0.15, -0.05, -0.25), (0.05, 0.0, 0.10)),  # septum
    _Wave(0.000, 0.0, 0.010, 0.010, 0.0, (1.00, 0.62, 0.70), (-0.75, 0.28, -1.30)),  # free walls
    _Wave(0.026, 0.0, 0.011, 0.011, 0.0, (-0.20, -0.10, 0.35), (-0.35, 0.05, -0.15)),  # base
    _Wave(0.300, 0.5, 0.060, 0.040, 0.5, (0.35, 0.20, -0.15), (0.00, -0.05, 0.30)),  # T
)
_ATRIA, _VENTRICLES, _T = slice(0, 2), slice(2, 5), 5
_REACH = 3.5  # SDs at which a wave is cut off: 0.2 % of its peak, under a microvolt in P and T


class EcgEffects(Settings):
    """How strongly the latent state shapes the ECG; 0 switches an effect off.

    Attributes:
        right_ventricle: Right-ventricular dipole in QRS at full strain, 1 for a tall R in V1 and a right axis.
        p_pulmonale: Right atrial dipole added at full strain.
        t_inversion: Posterior T dipole added at full strain.
        t_flattening: Fraction of the T wave lost at full decompensation.
    """

    right_ventricle: float = Field(default=1.0, ge=0, le=2)
    p_pulmonale: float = Field(default=1.0, ge=0, le=3)
    t_inversion: float = Field(default=1.0, ge=0, le=3)
    t_flattening: float = Field(default=0.5, ge=0, le=1)


class AnatomySettings(Settings):
    """How patients differ in ways that have nothing to do with any label (SDs across patients).

    Attributes:
        gain: Of the log of the gain: chest wall, skin, amplifier.
        rotation_degrees: Of the heart's rotation in the frontal and in the horizontal plane.
        waves: Of the log of each wave's amplitude.
        expression: Of how visible strain is, in SDs of strain and apart for P, QRS and T: a heart may show more or less
            than it bears.
        timing: Of the log of the PR and QT intervals.
        electrode_shift: Of each coefficient of Dower's matrix; the electrodes are placed anew for each trajectory.
    """

    gain: float = Field(default=0.2, ge=0, le=1)
    rotation_degrees: float = Field(default=15.0, ge=0, le=60)
    waves: float = Field(default=0.2, ge=0, le=1)
    expression: float = Field(default=0.6, ge=0, le=3)
    timing: float = Field(default=0.05, ge=0, le=0.2)
    electrode_shift: float = Field(default=0.06, ge=0, le=0.5)


class NoiseSettings(Settings):
    """Noise at each electrode; levels are root mean squares in mV for the typical patient.

    Attributes:
        wander_mv: Baseline wander under 0.5 Hz.
        respiration_mv: Baseline moving with each breath.
        powerline_mv: Mains hum; none where the sampling rate cannot carry it.
        powerline_hz: 50 or 60.
        muscle_mv: Muscle and amplifier noise, white.
        level_sd: SD across patients of the log of the noise level.
        off: Probability that an electrode is off for a whole window.
        gap: Probability that an electrode comes off for a part of a window.
    """

    wander_mv: float = Field(default=0.05, ge=0, le=5)
    respiration_mv: float = Field(default=0.02, ge=0, le=5)
    powerline_mv: float = Field(default=0.005, ge=0, le=5)
    powerline_hz: Literal[50, 60] = 60
    muscle_mv: float = Field(default=0.012, ge=0, le=5)
    level_sd: float = Field(default=0.4, ge=0, le=2)
    off: float = Field(default=0.005, ge=0, le=1)
    gap: float = Field(default=0.01, ge=0, le=1)


@dataclass(frozen=True)
class Anatomy:
    """One patient's heart and chest.

    Attributes:
        gain: Multiplies every wave.
        rotation: `(3, 3)` rotation of the dipole.
        waves: `(6,)` gain of each wave.
        expression: `(6,)` what is added to strain in each wave.
        timing: `(2,)` factors on the PR and QT intervals.
        noise: Multiplies every noise.
    """

    gain: float
    rotation: np.ndarray
    waves: np.ndarray
    expression: np.ndarray
    timing: np.ndarray
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator, settings: AnatomySettings, level_sd: float) -> Anatomy:
        """Draws a patient's anatomy and noise level."""
        frontal, horizontal = np.deg2rad(settings.rotation_degrees) * rng.standard_normal(2)
        c, s, d, t = np.cos(frontal), np.sin(frontal), np.cos(horizontal), np.sin(horizontal)
        rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[d, 0, -t], [0, 1, 0], [t, 0, d]])
        return cls(
            gain=math.exp(settings.gain * rng.standard_normal()),
            rotation=rotation,
            waves=np.exp(settings.waves * rng.standard_normal(len(_WAVES))),
            expression=settings.expression * rng.standard_normal(3)[[0, 0, 1, 1, 1, 2]],
            timing=np.exp(settings.timing * rng.standard_normal(2)),
            noise=math.exp(level_sd * rng.standard_normal()),
        )


def render(
    rhythm: Rhythm,
    strain: np.ndarray,
    decompensation: np.ndarray,
    anatomy: Anatomy,
    leads: Sequence[str],
    samples: int,
    sampling_rate_hz: float,
    generator: Callable[[int], np.random.Generator],
    shift: float = 0.0,
    effects: EcgEffects | None = None,
    noise: NoiseSettings | None = None,
) -> np.ndarray:
    """Renders the ECG of N windows recorded with one placement of the electrodes.

    Args:
        rhythm: The beats of the N windows.
        strain: `(N,)` right-ventricular strain, standard normal in the population.
        decompensation: `(N,)` decompensation, standard normal in the population.
        anatomy: The patient's heart and chest.
        leads: C names from `LEADS`, in any order.
        samples: Samples in each window, Z.
        sampling_rate_hz: Samples per second.
        generator: Gives electrode i's own source of randomness, so that a lead is the same whichever leads it is
            asked for with.
        shift: SD of the electrodes' misplacement, in Dower's coefficients.
        effects: Effect sizes; the defaults if not given.
        noise: Noise levels; the defaults if not given.

    Returns:
        `(N, Z, C)` float32 in mV, NaN where an electrode that the lead needs is off.

    Raises:
        InputError: If a lead is unknown.
    """
    check_leads(leads)
    effects, noise = effects or EcgEffects(), noise or NoiseSettings()
    windows = len(rhythm.rr)
    if not leads:
        return np.empty((windows, samples, 0), np.float32)
    matrix = np.array([LEAD_ROWS[lead] for lead in leads])
    used = np.flatnonzero(matrix.any(0))
    matrix = matrix[:, used].astype(np.float32)

    vectors = _wave_vectors(strain, decompensation, anatomy, effects)  # (N, 6, 3)
    sources = np.empty((windows, len(_WAVES) + 1, samples), np.float32)
    _waves(rhythm, anatomy, sampling_rate_hz, sources[:, :-1])
    time = np.arange(samples, dtype=np.float32) / np.float32(sampling_rate_hz)
    angular, phase = (2 * np.pi * rhythm.breath[:, 0], rhythm.breath[:, 1])
    sources[:, -1] = np.sin(np.multiply.outer(angular.astype(np.float32), time) + phase.astype(np.float32)[:, None])

    basis, scales = _noise_basis(samples, sampling_rate_hz, noise)
    potentials = np.empty((windows, len(used), samples), np.float32)
    weights = np.empty((windows, len(used), len(_WAVES) + 1), np.float32)
    loadings = np.empty((windows, len(used), len(basis)), np.float32)
    off = []
    for column, electrode in enumerate(used):
        rng = generator(int(electrode))
        seen = ELECTRODE_VECTORS[electrode] + shift * rng.standard_normal(3)
        level = anatomy.noise * np.exp(0.3 * rng.standard_normal(windows))
        weights[:, column, :-1] = vectors @ seen
        weights[:, column, -1] = np.sqrt(2) * noise.respiration_mv * level * rng.standard_normal(windows)
        loadings[:, column] = level[:, None] * scales * rng.standard_normal((windows, len(basis)))
        off.append(_gaps(rng, windows, samples, noise))
        rng.standard_normal(dtype=np.float32, out=(white := np.empty((windows, samples), np.float32)))
        potentials[:, column] = white * (noise.muscle_mv * level).astype(np.float32)[:, None]
    potentials += weights @ sources
    potentials += loadings @ basis
    signals = np.ascontiguousarray((matrix @ potentials).transpose(0, 2, 1))
    for column, (start, stop) in enumerate(off):
        seen_by = matrix[:, column] != 0
        for window in np.flatnonzero(stop > start):
            signals[window, start[window] : stop[window], seen_by] = np.nan
    return signals


def _wave_vectors(strain: np.ndarray, decompensation: np.ndarray, anatomy: Anatomy, effects: EcgEffects) -> np.ndarray:
    """Returns `(N, 6, 3)` each wave's dipole in mV."""
    healthy = np.array([wave.healthy for wave in _WAVES])
    added = np.array([wave.strained for wave in _WAVES])
    added[_ATRIA] *= effects.p_pulmonale
    added[_VENTRICLES] *= effects.right_ventricle
    added[_T] *= effects.t_inversion
    vectors = healthy + _severity(strain[:, None] + anatomy.expression)[:, :, None] * added
    vectors[:, _T] *= (1 - effects.t_flattening * _severity(decompensation))[:, None]
    return (anatomy.gain * anatomy.waves[:, None] * vectors) @ anatomy.rotation.T


def _severity(latent: np.ndarray) -> np.ndarray:
    """Maps a latent to 0..1, near its percentile: bounds what an extreme does, steepest where most patients are."""
    return 1 / (1 + np.exp(-1.7 * latent))


def _waves(rhythm: Rhythm, anatomy: Anatomy, rate: float, out: np.ndarray) -> None:
    """Writes the six waves of every beat, each of unit height, to `out`, `(N, 6, Z)`.

    Only the samples within a wave's reach are computed, for all beats of all windows at once.
    """
    windows, _, samples = out.shape
    # QT follows the rate over a minute or so, not from beat to beat, hence the window's mean RR.
    rr = rhythm.rr
    timing = (*anatomy.timing[[0, 0]], 1, 1, 1, anatomy.timing[1])
    strengths = rhythm.strengths.astype(np.float32)[:, :, None]
    for index, wave in enumerate(_WAVES):
        stretch = timing[index] * rr**wave.width_power if wave.width_power else np.ones(windows)
        peaks = rhythm.times + (wave.centre * timing[index] * rr**wave.centre_power)[:, None]
        reach = math.ceil(_REACH * max(wave.rise, wave.fall) * stretch.max() * rate)
        # Beats outside the window land in a margin on either side, which is cut off.
        margin = 2 * reach + 1
        nearest_sample = np.clip(np.rint(peaks * rate), -reach - 1, samples + reach).astype(np.int64)
        offsets = np.arange(-reach, reach + 1)
        late = (nearest_sample / rate - peaks).astype(np.float32)
        time = late[:, :, None] + (offsets / rate).astype(np.float32)
        width = np.where(time < 0, np.float32(wave.rise), np.float32(wave.fall))
        width *= stretch.astype(np.float32)[:, None, None]
        heights = strengths * np.exp(-0.5 * np.square(time / width))
        length = samples + 2 * margin
        place = (np.arange(windows)[:, None] * length + margin + nearest_sample)[:, :, None] + offsets
        total = np.bincount(place.ravel(), heights.ravel(), windows * length)
        out[:, index] = total.reshape(windows, length)[:, margin : margin + samples]


@lru_cache(maxsize=8)
def _noise_basis(samples: int, rate: float, noise: NoiseSettings) -> tuple[np.ndarray, np.ndarray]:
    """Returns `(B, Z)` sinusoids for wander and mains, and `(B,)` the SD in mV of their coefficients."""
    wander = np.array([0.05, 0.08, 0.13, 0.2, 0.3, 0.45])
    power = 1 / wander
    mains = [noise.powerline_hz] if noise.powerline_hz < rate / 2 else []
    scales = np.concatenate([noise.wander_mv * np.sqrt(power / power.sum()), [noise.powerline_mv] * len(mains)])
    angle = 2 * np.pi * np.outer([*wander, *mains], np.arange(samples) / rate)
    return np.concatenate([np.cos(angle), np.sin(angle)]).astype(np.float32), np.tile(scales, 2)


def _gaps(rng: np.random.Generator, windows: int, samples: int, noise: NoiseSettings) -> tuple[np.ndarray, np.ndarray]:
    """Returns `(N,)` first and one-past-last sample of the stretch an electrode is off, equal where it stays on."""
    fate = rng.uniform(size=windows)
    length = np.where(fate < noise.off, 1.0, np.where(fate < noise.off + noise.gap, rng.uniform(0.05, 0.6, windows), 0))
    start = rng.uniform(size=windows) * (1 - length)
    first = np.floor(start * samples).astype(np.int64)
    return first, np.minimum(first + np.ceil(length * samples).astype(np.int64), samples)
