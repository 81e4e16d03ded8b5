"""Imputation and standardisation in the graph, for any leading batch axes; the SavedModel runs the same functions."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.records.schema import MISSING_SAMPLE
from tfmmcl.records.statistics import Statistics


def forward_fill(x: tf.Tensor) -> tf.Tensor:
    """Replaces each NaN of `(…, T, M)` by the feature's last earlier value; NaN stays where there is none."""
    windows = x.shape[-2]
    observed = ~tf.math.is_nan(x)
    steps = tf.range(windows)
    # last[..., t, m]: the latest observed window at or before t. T is small, so a (T, T) comparison is cheapest.
    usable = observed[..., tf.newaxis, :, :] & (steps[tf.newaxis, :] <= steps[:, tf.newaxis])[..., tf.newaxis]
    last = tf.reduce_max(tf.where(usable, steps[:, tf.newaxis], -1), axis=-2)
    chosen = last[..., tf.newaxis, :] == steps[:, tf.newaxis]
    filled = tf.reduce_sum(tf.where(chosen, x[..., tf.newaxis, :, :], 0), axis=-2)
    return tf.where(last >= 0, filled, tf.constant(np.nan, x.dtype))


class Preprocessor:
    """Turns physical units into what the encoder reads: zero mean, unit variance, and zero where missing.

    Zero is the training mean, so a missing value is imputed with it.

    Args:
        spec: The data set's spec.
        statistics: The training split's statistics.
    """

    def __init__(self, spec: Spec, statistics: Statistics) -> None:
        self.spec = spec
        self._statistics = statistics
        self._scale_mv = np.asarray(spec.signal_scale_mv, np.float32)

    def structured(self, x: tf.Tensor) -> tf.Tensor:
        """Forward-fills and standardises `(…, T, M)`."""
        return _standardise(forward_fill(x), self._statistics.structured_mean, self._statistics.structured_std)

    def statics(self, x: tf.Tensor) -> tf.Tensor:
        """Standardises `(…, L)`."""
        return _standardise(x, self._statistics.statics_mean, self._statistics.statics_std)

    def signals(self, millivolts: tf.Tensor) -> tf.Tensor:
        """Standardises `(…, Z, C)` millivolts per lead; what no record could hold is missing, infinities included."""
        sizes = [-1 if size is None else size for size in millivolts.shape]
        # Leads beside time: along a last axis of a few leads, broadcasting takes seven times as long.
        mean, std, largest = (
            np.tile(values, sizes[-2])
            for values in (self._statistics.signals_mean, self._statistics.signals_std, 32767 * self._scale_mv)
        )
        rows = tf.reshape(millivolts, (*sizes[:-2], sizes[-2] * sizes[-1]))
        return tf.reshape(tf.where(tf.abs(rows) <= largest, (rows - mean) / std, 0.0), sizes)

    def stored_signals(self, stored: tf.Tensor) -> tf.Tensor:
        """Standardises stored int16 `(…, C)`; the same as `signals` of `to_millivolts`, in less than half the time."""
        std = self._statistics.signals_std
        standardised = tf.cast(stored, tf.float32) * (self._scale_mv / std) - self._statistics.signals_mean / std
        return tf.where(stored == MISSING_SAMPLE, 0.0, standardised)

    def to_millivolts(self, stored: tf.Tensor) -> tf.Tensor:
        """Converts stored int16 `(…, C)` to millivolts, NaN where missing."""
        return tf.where(stored == MISSING_SAMPLE, np.float32(np.nan), tf.cast(stored, tf.float32) * self._scale_mv)

    def marginal(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the standardised values that each static took in training `(L, K)`, and how many `(L,)`."""
        mean, std = self._statistics.statics_mean[:, None], self._statistics.statics_std[:, None]
        values = np.nan_to_num((self._statistics.marginal - mean) / std, nan=0.0)
        return values.astype(np.float32), self._statistics.marginal_count.astype(np.int32)


def _standardise(x: tf.Tensor, mean: np.ndarray, std: np.ndarray) -> tf.Tensor:
    standardised = (x - mean) / std
    return tf.where(tf.math.is_nan(standardised), tf.zeros_like(standardised), standardised)
