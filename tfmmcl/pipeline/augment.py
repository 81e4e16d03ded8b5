"""The augmentations, each a function of one trajectory's tensors, a key and its settings.

Every function runs in the tf.data graph, vectorised over windows, leads and features, and draws stateless random
numbers from its `key` `(2,)`: the same key gives the same draw, whatever runs beside it. Inputs are standardised, so
zero is the training mean. Definitions: Raghu et al. 2022.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from scipy.special import ndtri

from tfmmcl.pipeline.preprocess import forward_fill
from tfmmcl.settings import (
    FeatureCorruptionSettings,
    HistoryCutoutSettings,
    SegmentSettings,
    SignalMaskSettings,
)

# By name: what TensorFlow chooses by itself is another generator where XLA compiles.
split_key = functools.partial(tf.random.split, alg="philox")
_integers = functools.partial(tf.random.stateless_uniform, dtype=tf.int32, alg="philox")
_bits = functools.partial(_integers, minval=None, maxval=None)


def segment(signals: tf.Tensor, view: int, samples: int, key: tf.Tensor, settings: SegmentSettings) -> tf.Tensor:
    """Cuts one of two disjoint segments out of each window.

    Args:
        signals: `(T, Z, C)`, of any type.
        view: 0 or 1: which of the two.
        samples: Length of the segment; twice this must fit in Z.
        key: Random key.
        settings: Position of the segments.

    Returns:
        `(T, samples, C)`.
    """
    windows, length, leads = signals.shape
    if settings.position == "first":
        return signals[:, view * samples : (view + 1) * samples]
    half = length // 2
    start = view * half + _integers([windows, 1], key, 0, half - samples + 1)
    cut = tf.gather(signals, start + tf.range(samples), axis=1, batch_dims=1)
    return tf.ensure_shape(cut, (windows, samples, leads))


def add_signal_noise(
    signals: tf.Tensor, observed: tf.Tensor, key: tf.Tensor, std: float, period: int | None = None
) -> tf.Tensor:
    """Adds Gaussian noise where a signal was observed; a missing lead stays zero.

    Args:
        signals: `(T, Z, C)`.
        observed: `(T, Z, C)`.
        key: Random key.
        std: Standard deviation.
        period: Samples after which the noise repeats, a divisor of Z. Default: it does not, see `noise_period`.
    """
    windows, samples, leads = signals.shape
    period = period or samples
    noise = tf.tile(_normal((windows, period, leads), key, std), [1, samples // period, 1])
    return signals + tf.where(observed, noise, 0.0)


def noise_period(samples: int, mask: SignalMaskSettings) -> int:
    """Returns how much noise a masked segment needs, as drawing it is the largest part of what a view costs.

    A contiguous mask of zeros leaves one stretch, going round the end. If its length divides the segment's, noise that
    repeats after that length still gives each of its samples a draw of its own.
    """
    left = samples - _part(mask.fraction, samples)
    whole = mask.pattern != "contiguous" or mask.fill != "zero" or not left or samples % left
    return samples if whole else left


def mask_signals(signals: tf.Tensor, observed: tf.Tensor, key: tf.Tensor, settings: SignalMaskSettings) -> tf.Tensor:
    """Masks part of every lead of every window of `(T, Z, C)`; a missing lead stays zero."""
    windows, samples, leads = signals.shape
    mask_key, fill_key = tf.unstack(split_key(key, 2))
    columns = leads if settings.scope == "lead" else 1
    if settings.pattern == "contiguous":
        start = _integers([windows, 1, columns], mask_key, 0, samples)
        length = _part(settings.fraction, samples)
        offset = tf.range(samples)[:, tf.newaxis] - start
        # What lies past the end goes on at the beginning. Comparing is half the cost of a remainder.
        masked = ((offset >= 0) & (offset < length)) | (offset < length - samples)
    else:
        masked = _chance([windows, samples, columns], mask_key) < settings.fraction
    if settings.fill == "zero":
        return tf.where(masked, 0.0, signals)
    return tf.where(masked, add_signal_noise(tf.zeros_like(signals), observed, fill_key, settings.fill_std), signals)


def history_cutout(structured: tf.Tensor, key: tf.Tensor, settings: HistoryCutoutSettings) -> tf.Tensor:
    """Cuts part of the history out of structured features `(T, M)`."""
    windows, features = structured.shape
    columns = features if settings.scope == "feature" else 1
    length = _part(settings.fraction, windows)
    chance_key, place_key = tf.unstack(split_key(key, 2))
    chosen = _chance([columns], chance_key) < settings.probability
    if settings.pattern == "contiguous":
        start = _integers([columns], place_key, 0, windows - length + 1)
        steps = tf.range(windows)[:, tf.newaxis]
        cut = (steps >= start) & (steps < start + length)
    else:
        cut = _lowest(_chance([windows, columns], place_key), length)
    cut = tf.broadcast_to(cut & chosen, structured.shape)
    if settings.fill == "mean":
        return tf.where(cut, 0.0, structured)
    filled = forward_fill(tf.where(cut, np.float32(np.nan), structured))
    return tf.where(tf.math.is_nan(filled), 0.0, filled)  # a cut from the start has nothing before it


def channel_dropout(structured: tf.Tensor, key: tf.Tensor, probability: float) -> tf.Tensor:
    """Sets all windows of a feature of `(T, M)` to the mean with this probability, without rescaling the rest."""
    dropped = _chance([structured.shape[-1]], key) < probability
    return tf.where(dropped, 0.0, structured)


def corrupt_features(
    statics: tf.Tensor, marginal: np.ndarray, count: np.ndarray, key: tf.Tensor, settings: FeatureCorruptionSettings
) -> tf.Tensor:
    """Replaces statics `(L,)` by draws from their empirical marginals.

    Args:
        statics: Standardised statics.
        marginal: `(L, K)` standardised training values.
        count: `(L,)` values in each row; a feature that was never observed is left alone.
        key: Random key.
        settings: How many features.
    """
    features = statics.shape[0]
    chance_key, draw_key = tf.unstack(split_key(key, 2))
    uniform = _chance([features], chance_key)
    if settings.count == "bernoulli":
        chosen = uniform < settings.probability
    else:
        chosen = _lowest(uniform, _part(settings.probability, features))
    # Integers modulo the count: a uniform float32 cannot reach every row of a long marginal.
    bits = _bits([features], draw_key) & 0x7FFFFFFF
    draws = tf.gather(marginal, bits % np.maximum(count, 1), axis=1, batch_dims=1)
    return tf.where(chosen & (count > 0), draws, statics)


def _chance(shape: Sequence[int], key: tf.Tensor) -> tf.Tensor:
    """Draws uniform numbers in [0, 1); XLA and TensorFlow take the same bits, but make other numbers of them."""
    return tf.cast(_bits(shape, key) & 0x7FFFFF, tf.float32) / 2**23


def _normal(shape: Sequence[int], key: tf.Tensor, std: float) -> tf.Tensor:
    """Draws normal numbers of 16 random bits each: the middles of 65,536 equally likely parts of the distribution.

    They lie within 4.3 standard deviations, and their distribution function within 1e-5 of the normal one; the noise is
    the largest part of what a view costs, and these cost a quarter of numbers that use 32 bits.
    """
    count = math.prod(shape)
    bits = _bits([-(-count // 2)], key)
    places = tf.concat([bits & 0xFFFF, tf.bitwise.right_shift(bits, 16) & 0xFFFF], 0)[:count]
    return tf.reshape(std * tf.gather(_quantiles(), places), shape)


@functools.cache
def _quantiles() -> np.ndarray:
    # Looking a number up takes a fifth of the time of computing it.
    return ndtri((np.arange(2**16) + 0.5) / 2**16).astype(np.float32)


def _part(fraction: float, whole: int) -> int:
    """Returns ⌊fraction · whole⌋ of the fraction as written: 0.29 of 100 is 29, though 0.29 * 100 < 29 in binary."""
    return int(fraction * whole + 1e-9)


def _lowest(values: tf.Tensor, number: int) -> tf.Tensor:
    """Marks the `number` lowest values along the first axis."""
    ranks = tf.argsort(tf.argsort(values, axis=0), axis=0)
    return ranks < number
