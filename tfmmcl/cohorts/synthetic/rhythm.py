"""When the heart of the synthetic ECG beats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rhythm:
    """The beats of N windows.

    Attributes:
        times: `(N, K)` R peaks in seconds from the window's start, beginning before it and ending after it.
        strengths: `(N, K)` gain of each beat, moving with respiration.
        rr: `(N,)` mean RR interval in seconds.
        breath: `(N, 2)` respiration's frequency in Hz and phase in radians.
    """

    times: np.ndarray
    strengths: np.ndarray
    rr: np.ndarray
    breath: np.ndarray

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        heart_rate: np.ndarray,
        variability: np.ndarray,
        respiration_hz: np.ndarray,
        seconds: float,
    ) -> Rhythm:
        """Draws beat times with respiratory sinus arrhythmia, a 0.1-Hz (Mayer) wave and jitter.

        Args:
            rng: Source of randomness.
            heart_rate: `(N,)` mean heart rate of each window, bpm.
            variability: `(N,)` SD of the RR intervals over their mean.
            respiration_hz: `(N,)` breaths per second.
            seconds: Length of a window.

        Returns:
            The rhythm; the RR intervals inside a window have the mean asked for, up to the beats cut by its edges.
        """
        rr = 60.0 / heart_rate
        lead_in = 1.5  # s; longer than the longest T wave reaches
        count = math.ceil((seconds + 2 * lead_in) / rr.min() * 1.1) + 2
        rough = np.arange(count) * rr[:, None] - lead_in
        phase = rng.uniform(0, 2 * np.pi, (2, len(rr), 1))
        breath = np.sin(2 * np.pi * respiration_hz[:, None] * rough + phase[0])
        # Variances of the three parts add to one: 1/2, 1/4, 1/4.
        sway = breath + np.sqrt(0.5) * np.sin(2 * np.pi * 0.1 * rough + phase[1])
        sway += 0.5 * rng.standard_normal(rough.shape)
        inside = (rough >= 0) & (rough <= seconds)
        sway -= (sway * inside).sum(1, keepdims=True) / np.maximum(inside.sum(1, keepdims=True), 1)
        intervals = rr[:, None] * np.clip(1 + variability[:, None] * sway, 0.5, 1.6)
        start = -lead_in - rr * rng.uniform(size=len(rr))
        strengths = 1 + 0.04 * breath + 0.02 * rng.standard_normal(rough.shape)
        times = start[:, None] + np.cumsum(intervals, 1)
        return cls(times, strengths, rr, np.stack([respiration_hz, phase[0, :, 0]], 1))

    def heart_rate(self, seconds: float) -> np.ndarray:
        """Returns `(N,)` the mean rate in bpm over the whole RR intervals inside each window of `seconds`."""
        inside = (self.times >= 0) & (self.times <= seconds)
        first = np.where(inside, self.times, np.inf).min(1)
        last = np.where(inside, self.times, -np.inf).max(1)
        intervals = inside.sum(1) - 1
        # A window too short for two beats says nothing of the rate: the rhythm's own mean stands in.
        return 60.0 * np.where(intervals > 0, intervals / np.where(intervals > 0, last - first, 1), 1 / self.rr)
