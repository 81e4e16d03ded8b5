"""The paper's augmentations of one trajectory as one would write them in NumPy, for the peers of the pipeline."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.pipeline.shapes import segment_samples
from tfmmcl.records.schema import MISSING_SAMPLE
from tfmmcl.records.statistics import Statistics
from tfmmcl.settings import AugmentationSettings


class NumpyViews:
    """Makes two views of a trajectory, as `pipeline.views.Views` does with the default options.

    Args:
        spec: The data set's spec.
        statistics: The training split's statistics.
        settings: Probabilities and fractions.
    """

    def __init__(self, spec: Spec, statistics: Statistics, settings: AugmentationSettings) -> None:
        self._settings, self._statistics = settings, statistics
        self._samples = segment_samples(spec, settings)
        # Standardising and scaling to millivolts are one multiplication and one subtraction.
        self._scale = (np.asarray(spec.signal_scale_mv) / statistics.signals_std).astype(np.float32)
        self._offset = (statistics.signals_mean / statistics.signals_std).astype(np.float32)

    def __call__(
        self, signals: np.ndarray, structured: np.ndarray, statics: np.ndarray, rng: np.random.Generator
    ) -> list[dict[str, np.ndarray]]:
        """Returns two views.

        Args:
            signals: `(T, Z, C)` as stored, int16.
            structured: `(T, M)` in physical units, NaN where missing.
            statics: `(L,)` in physical units, NaN where missing.
            rng: Source of random numbers.
        """
        statistics = self._statistics
        structured = _standardise(_forward_fill(structured), statistics.structured_mean, statistics.structured_std)
        return [
            {
                "signals": self._signals(signals[:, view * self._samples : (view + 1) * self._samples], rng),
                "structured": self._structured(structured, rng),
                "statics": self._statics(statics, rng),
            }
            for view in range(2)
        ]

    def _signals(self, stored: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        x = stored * self._scale
        x -= self._offset
        if self._settings.signal_noise_std:
            x += self._settings.signal_noise_std * rng.standard_normal(x.shape, np.float32)
        missing = stored == MISSING_SAMPLE
        if missing.any():
            x[missing] = 0
        windows, samples, leads = x.shape
        length = int(self._settings.signal_mask.fraction * samples + 1e-9)
        starts = rng.integers(0, samples, (windows, leads))
        for window in range(windows):
            for lead in range(leads):
                stop = starts[window, lead] + length
                x[window, starts[window, lead] : stop, lead] = 0
                x[window, : max(0, stop - samples), lead] = 0
        return x

    def _structured(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        x = x.copy()
        cutout = self._settings.history_cutout
        windows, features = x.shape
        length = int(cutout.fraction * windows + 1e-9)
        starts = rng.integers(0, windows - length + 1, features)
        for feature in np.flatnonzero(rng.random(features) < cutout.probability):
            x[starts[feature] : starts[feature] + length, feature] = 0
        x[:, rng.random(features) < self._settings.channel_dropout] = 0
        return x

    def _statics(self, statics: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        statistics = self._statistics
        chosen = rng.random(len(statics)) < self._settings.feature_corruption.probability
        rows = rng.integers(0, np.maximum(statistics.marginal_count, 1))
        drawn = np.where(statistics.marginal_count > 0, statistics.marginal[np.arange(len(statics)), rows], statics)
        return _standardise(np.where(chosen, drawn, statics), statistics.statics_mean, statistics.statics_std)


def _forward_fill(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    for before, now in pairwise(x):
        np.copyto(now, before, where=np.isnan(now))
    return x


def _standardise(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return np.nan_to_num((x - mean) / std, nan=0.0).astype(np.float32)
