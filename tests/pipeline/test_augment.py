from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from scipy import stats

from tfmmcl.pipeline import augment
from tfmmcl.settings import (
    FeatureCorruptionSettings,
    HistoryCutoutSettings,
    SegmentSettings,
    SignalMaskSettings,
)

T, Z, C, M = 3, 100, 2, 4
ALPHA = 1e-6
rng = np.random.default_rng(5)
SIGNALS = rng.normal(size=(T, Z, C)).astype(np.float32)
STRUCTURED = rng.normal(size=(10, M)).astype(np.float32)
SEEN = np.ones((T, Z, C), bool)
GAPS = SEEN.copy()
GAPS[1, :, 0] = False  # a missing lead
GAPS[2, 10:30, 1] = False  # a gap

MASKS = [
    SignalMaskSettings(pattern=pattern, scope=scope, fill=fill)
    for pattern in ("contiguous", "element")
    for scope in ("lead", "window")
    for fill in ("zero", "noise")
]
CUTOUTS = [
    HistoryCutoutSettings(pattern=pattern, scope=scope, fill=fill)
    for pattern in ("contiguous", "element")
    for scope in ("feature", "shared")
    for fill in ("mean", "forward")
]

# Statics whose values tell where they came from: 10 * feature + row in the marginal; -1 is the trajectory's own.
COUNT = np.array([8, 5, 1, 0], np.int32)
MARGINAL = np.float32(10 * np.arange(4)[:, None] + np.arange(8))
MARGINAL[1, :5] = [10, 10, 10, 12, 14]
OWN = np.full(4, -1, np.float32)


def masked(draws, settings, signals=SIGNALS, observed=SEEN, number=2000):
    return draws(lambda key: augment.mask_signals(tf.constant(signals), observed, key, settings), number)


def cutout(draws, settings, structured=STRUCTURED, number=2000):
    return draws(lambda key: augment.history_cutout(tf.constant(structured), key, settings), number)


def corrupted(draws, settings, statics=OWN, marginal=MARGINAL, count=COUNT, number=4000):
    return draws(lambda key: augment.corrupt_features(tf.constant(statics), marginal, count, key, settings), number)


def starts(mask, axis):
    """Where the one stretch begins, going round the end."""
    rises = mask & ~np.roll(mask, 1, axis)
    assert (rises.sum(axis) == 1).all()
    return rises.argmax(axis)


EVERY = (
    [(augment.mask_signals, (SIGNALS, GAPS), s) for s in MASKS]
    + [(augment.history_cutout, (STRUCTURED,), s) for s in CUTOUTS]
    + [
        (augment.corrupt_features, (OWN, MARGINAL, COUNT), FeatureCorruptionSettings(count=c))
        for c in ("bernoulli", "exact")
    ]
    + [(augment.segment, (SIGNALS, 1, 30), SegmentSettings(position=p)) for p in ("first", "random")]
    + [(augment.add_signal_noise, (SIGNALS, GAPS), 0.3), (augment.channel_dropout, (STRUCTURED,), 0.2)]
)


@pytest.mark.parametrize(("function", "inputs", "setting"), EVERY)
def test_eager_and_tf_data_with_1_and_8_calls_draw_the_same(draws, function, inputs, setting):
    def call(key):
        first, *rest = inputs
        keyed = (key, setting)
        return function(tf.constant(first), *rest, *keyed)

    alone, together = draws(call, 24, parallel_calls=1), draws(call, 24, parallel_calls=8)
    eager = [call(key) for key in tf.random.split(tf.constant([3, 0], tf.int64), 24)]
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(alone, np.stack(eager))


# Segments.


def test_first_segments_are_the_first_and_second_stretch(draws):
    for view in (0, 1):
        cut = draws(lambda key, v=view: augment.segment(tf.constant(SIGNALS), v, 30, key, SegmentSettings()), 3)
        np.testing.assert_array_equal(cut, np.stack([SIGNALS[:, 30 * view : 30 * view + 30]] * 3))


@pytest.mark.parametrize("length", [100, 101])
def test_random_segments_start_uniformly_within_their_half(draws, is_uniform, are_independent, length):
    ruler = np.broadcast_to(np.arange(length)[:, None] + 1000 * np.arange(C), (T, length, C)).astype(np.int16)
    settings = SegmentSettings(position="random")
    for view in (0, 1):
        cut = draws(lambda key, v=view: augment.segment(tf.constant(ruler), v, 30, key, settings), 6000)
        start = cut[:, :, 0, 0]
        expected = start[..., None, None] + np.arange(30)[:, None] + 1000 * np.arange(C)
        np.testing.assert_array_equal(cut, expected)
        is_uniform(start - 50 * view, 50 - 30 + 1)
        are_independent(start - 50 * view)


def test_a_random_segment_as_long_as_the_half_is_the_half(draws):
    for view in (0, 1):
        settings = SegmentSettings(position="random")
        cut = draws(lambda key, v=view, s=settings: augment.segment(tf.constant(SIGNALS), v, 50, key, s), 20)
        np.testing.assert_array_equal(cut, np.stack([SIGNALS[:, 50 * view : 50 * view + 50]] * 20))


# Signal noise.


def test_noise_is_gaussian_of_the_given_variance(draws):
    noise = draws(lambda key: augment.add_signal_noise(tf.zeros((T, Z, C)), SEEN, key, 0.1**0.5), 200)
    assert noise.var() == pytest.approx(0.1, rel=0.02)
    assert stats.kstest(noise.ravel(), stats.norm(0, 0.1**0.5).cdf).pvalue > ALPHA


def test_noise_is_added_to_the_signal(draws):
    both = draws(lambda key: augment.add_signal_noise(tf.constant(SIGNALS), SEEN, key, 0.3), 5)
    noise = draws(lambda key: augment.add_signal_noise(tf.zeros((T, Z, C)), SEEN, key, 0.3), 5)
    np.testing.assert_allclose(both, SIGNALS + noise, atol=1e-6)


def test_noise_of_samples_leads_windows_and_trajectories_is_uncorrelated(draws):
    noise = draws(lambda key: augment.add_signal_noise(tf.zeros((T, Z, C)), SEEN, key, 1.0), 300)
    for axis in range(4):
        a, b = (np.take(noise, range(i, noise.shape[axis] - 1 + i), axis).ravel() for i in (0, 1))
        assert stats.pearsonr(a, b).pvalue > ALPHA


def test_noise_leaves_what_was_not_observed(draws):
    out = draws(lambda key: augment.add_signal_noise(tf.constant(SIGNALS), GAPS, key, 0.3), 20)
    changed = out != SIGNALS
    assert not changed[:, ~GAPS].any()
    assert changed[:, GAPS].mean() > 0.999


@given(st.integers(1, 150), st.floats(0, 1), st.integers(0, 149), st.sampled_from(MASKS))
@example(100, 0.5, 60, MASKS[0])
def test_noise_that_repeats_gives_every_sample_the_mask_leaves_a_draw_of_its_own(samples, fraction, start, mask):
    mask = mask.model_copy(update={"fraction": fraction})
    period = augment.noise_period(samples, mask)
    assert samples % period == 0
    left = np.arange(samples)
    if mask.pattern == "contiguous" and mask.fill == "zero":
        left = (start + np.arange(samples - int(fraction * samples + 1e-9))) % samples
    assert len(set(left % period)) == len(left)


def test_half_a_mask_needs_half_the_noise(draws):
    assert augment.noise_period(Z, SignalMaskSettings()) == Z // 2
    noise = draws(lambda key: augment.add_signal_noise(tf.zeros((T, Z, C)), SEEN, key, 1.0, Z // 2), 20)
    np.testing.assert_array_equal(noise[:, :, : Z // 2], noise[:, :, Z // 2 :])
    assert len(np.unique(noise)) > 0.9 * noise.size / 2


# Signal masking.


@pytest.mark.parametrize("scope", ["lead", "window"])
@pytest.mark.parametrize(("fraction", "length"), [(0, 0), (0.25, 25), (0.5, 50), (0.999, 99), (1, 100)])
def test_a_contiguous_mask_zeroes_exactly_its_fraction_and_nothing_else(draws, scope, fraction, length):
    out = masked(draws, SignalMaskSettings(fraction=fraction, scope=scope), number=300)
    mask = out == 0
    assert (mask.sum(axis=2) == length).all()
    np.testing.assert_array_equal(out, np.where(mask, 0, SIGNALS))


@pytest.mark.parametrize("fraction", [0.29, 0.57, 0.58])
def test_a_decimal_fraction_is_not_rounded_down_by_binary(draws, fraction):
    out = masked(draws, SignalMaskSettings(fraction=fraction), number=5)
    assert ((out == 0).sum(axis=2) == round(100 * fraction)).all()


def test_a_contiguous_mask_is_one_stretch_round_the_end_that_starts_uniformly(draws, is_uniform):
    start = starts(masked(draws, SignalMaskSettings(fraction=0.3)) == 0, axis=2)
    is_uniform(start, Z)


def test_masks_are_drawn_for_each_window_and_lead(draws, is_uniform):
    start = starts(masked(draws, SignalMaskSettings()) == 0, axis=2).reshape(-1, T * C)
    for a, b in combinations(start.T, 2):
        is_uniform((a - b) % Z, Z)


@pytest.mark.parametrize("pattern", ["contiguous", "element"])
def test_scope_window_gives_all_leads_of_a_window_one_mask(draws, is_uniform, pattern):
    mask = masked(draws, SignalMaskSettings(scope="window", pattern=pattern)) == 0
    np.testing.assert_array_equal(mask[..., 0], mask[..., 1])
    if pattern == "contiguous":
        start = starts(mask[..., 0], axis=2)
        is_uniform(start, Z)
        for a, b in combinations(start.T, 2):
            is_uniform((a - b) % Z, Z)


def test_an_element_mask_draws_each_sample_on_its_own(draws, is_rate):
    out = masked(draws, SignalMaskSettings(fraction=0.3, pattern="element"))
    mask = out == 0
    np.testing.assert_array_equal(out, np.where(mask, 0, SIGNALS))
    is_rate(mask, 0.3)
    is_rate(mask[:, :, ::2] & mask[:, :, 1::2], 0.09)
    is_rate(mask[..., 0] & mask[..., 1], 0.09)
    is_rate(mask[:, 0] & mask[:, 1], 0.09)
    counts = mask.sum(axis=2).ravel()
    assert counts.var() == pytest.approx(Z * 0.3 * 0.7, rel=0.06)


@pytest.mark.parametrize(("fraction", "expected"), [(0, SIGNALS), (1, 0 * SIGNALS)])
def test_an_element_mask_of_nothing_or_all(draws, fraction, expected):
    out = masked(draws, SignalMaskSettings(fraction=fraction, pattern="element"), number=50)
    np.testing.assert_array_equal(out, np.stack([expected] * 50))


@pytest.mark.parametrize("scope", ["lead", "window"])
@pytest.mark.parametrize("pattern", ["contiguous", "element"])
def test_noise_fills_just_what_zero_would_and_is_gaussian(draws, scope, pattern):
    common = {"scope": scope, "pattern": pattern}
    mask = masked(draws, SignalMaskSettings(**common), number=300) == 0
    out = masked(draws, SignalMaskSettings(fill="noise", fill_std=0.05, **common), number=300)
    np.testing.assert_array_equal(out != SIGNALS, mask)
    assert stats.kstest(out[mask], stats.norm(0, 0.05).cdf).pvalue > ALPHA
    if scope == "window":
        fill = out[mask[..., :1].repeat(C, axis=-1)].reshape(-1, C)
        assert stats.pearsonr(*fill.T).pvalue > ALPHA


@pytest.mark.parametrize("settings", MASKS, ids=str)
def test_missing_samples_stay_exactly_zero_under_every_mask(draws, settings):
    out = masked(draws, settings, signals=np.where(GAPS, SIGNALS, 0), observed=GAPS, number=100)
    assert not out[:, ~GAPS].any()
    assert out[:, GAPS].any()


# History cutout.


def test_a_feature_is_cut_with_its_probability(draws, is_rate, are_independent):
    out = cutout(draws, HistoryCutoutSettings())
    chosen = (out == 0).any(axis=1)
    is_rate(chosen, 0.8)
    for feature in range(M):
        is_rate(chosen[:, feature], 0.8)
    are_independent(chosen)


@pytest.mark.parametrize("settings", [s for s in CUTOUTS if s.fill == "mean"], ids=str)
@pytest.mark.parametrize(("windows", "fraction", "length"), [(10, 0.5, 5), (7, 0.5, 3), (5, 0.2, 1), (1, 0.5, 0)])
def test_a_cut_is_the_fraction_rounded_down_and_the_rest_is_untouched(draws, settings, windows, fraction, length):
    structured = STRUCTURED[:windows]
    out = cutout(draws, settings.model_copy(update={"fraction": fraction}), structured, number=300)
    cut = out == 0
    assert set(np.unique(cut.sum(axis=1))) == {0, length}
    np.testing.assert_array_equal(out, np.where(cut, 0, structured))


def test_a_contiguous_cut_does_not_wrap_and_starts_uniformly(draws, is_uniform, are_independent):
    cut = cutout(draws, HistoryCutoutSettings(probability=1, fraction=0.3), number=4000) == 0
    start = cut.argmax(axis=1)
    steps = np.arange(10)[:, None]
    np.testing.assert_array_equal(cut, (steps >= start[:, None]) & (steps < start[:, None] + 3))
    is_uniform(start, 8)
    are_independent(start)


def test_an_element_cut_takes_any_windows_equally(draws, is_uniform, are_independent):
    settings = HistoryCutoutSettings(probability=1, pattern="element", fraction=0.4)
    cut = cutout(draws, settings, STRUCTURED[:5], number=4000) == 0
    pairs = list(combinations(range(5), 2))
    which = np.apply_along_axis(lambda column: pairs.index(tuple(np.flatnonzero(column))), 1, cut)
    is_uniform(which, len(pairs))
    are_independent(which)


@pytest.mark.parametrize("pattern", ["contiguous", "element"])
def test_a_cut_that_happens_by_chance_is_placed_as_one_that_always_does(draws, is_uniform, pattern):
    settings = HistoryCutoutSettings(probability=0.5, pattern=pattern, fraction=0.2)
    cut = cutout(draws, settings, STRUCTURED[:5], number=4000) == 0
    is_uniform(cut.argmax(axis=1)[cut.any(axis=1)], 5)


def test_where_a_feature_is_cut_does_not_depend_on_whether_others_are(draws, are_independent):
    cut = cutout(draws, HistoryCutoutSettings()) == 0
    cut = cut[cut[:, :, 0].any(axis=1)]
    others = cut[:, :, 1:].any(axis=1)
    for column in others.T:
        are_independent(np.stack([cut[:, :, 0].argmax(axis=1), column], axis=1))


@pytest.mark.parametrize("pattern", ["contiguous", "element"])
def test_scope_shared_cuts_all_features_alike_with_its_probability(draws, is_rate, pattern):
    cut = cutout(draws, HistoryCutoutSettings(scope="shared", pattern=pattern)) == 0
    np.testing.assert_array_equal(cut, np.broadcast_to(cut[..., :1], cut.shape))
    is_rate(cut[:, :, 0].any(axis=1), 0.8)


@pytest.mark.parametrize("settings", [s for s in CUTOUTS if s.fill == "forward"], ids=str)
def test_forward_fill_repeats_the_last_value_before_the_cut(draws, settings):
    cut = cutout(draws, settings.model_copy(update={"fill": "mean"}), number=300) == 0
    expected = np.stack([STRUCTURED] * 300)
    for i, t, m in np.argwhere(cut):
        expected[i, t, m] = expected[i, t - 1, m] if t else 0
    np.testing.assert_array_equal(cutout(draws, settings, number=300), expected)


@pytest.mark.parametrize("settings", CUTOUTS, ids=str)
def test_a_cutout_of_probability_zero_is_nothing(draws, settings):
    out = cutout(draws, settings.model_copy(update={"probability": 0.0}), number=50)
    np.testing.assert_array_equal(out, np.stack([STRUCTURED] * 50))


# Channel dropout.


def test_dropout_takes_whole_features_and_rescales_nothing(draws, is_rate, are_independent):
    out = draws(lambda key: augment.channel_dropout(tf.constant(STRUCTURED), key, 0.2))
    dropped = (out == 0).any(axis=1)
    np.testing.assert_array_equal(out, np.where(dropped[:, None], 0, STRUCTURED))
    for feature in range(M):
        is_rate(dropped[:, feature], 0.2)
    are_independent(dropped)


@pytest.mark.parametrize(("probability", "expected"), [(0.0, STRUCTURED), (1.0, 0 * STRUCTURED)])
def test_dropout_of_nothing_or_all(draws, probability, expected):
    out = draws(lambda key: augment.channel_dropout(tf.constant(STRUCTURED), key, probability), 50)
    np.testing.assert_array_equal(out, np.stack([expected] * 50))


# Feature corruption.


def test_each_feature_is_replaced_with_its_probability(draws, is_rate, are_independent):
    replaced = corrupted(draws, FeatureCorruptionSettings()) != OWN
    for feature in range(3):
        is_rate(replaced[:, feature], 0.6)
    are_independent(replaced[:, :3])


@pytest.mark.parametrize("count", ["bernoulli", "exact"])
def test_a_replacement_follows_the_empirical_marginal(draws, count):
    out = corrupted(draws, FeatureCorruptionSettings(count=count))
    for feature in range(3):
        values, multiplicity = np.unique(MARGINAL[feature, : COUNT[feature]], return_counts=True)
        drawn, found = np.unique(out[:, feature][out[:, feature] != -1], return_counts=True)
        np.testing.assert_array_equal(drawn, values)
        if len(values) > 1:
            assert stats.chisquare(found, found.sum() * multiplicity / multiplicity.sum()).pvalue > ALPHA


@pytest.mark.parametrize("count", ["bernoulli", "exact"])
def test_a_feature_never_observed_in_training_is_left_alone(draws, count):
    out = corrupted(draws, FeatureCorruptionSettings(probability=1, count=count))
    np.testing.assert_array_equal(out[:, 3], -1)
    assert (out[:, :3] != -1).all()


def test_features_draw_from_different_trajectories_independently(draws, are_independent):
    marginal = np.tile(np.arange(8, dtype=np.float32), (3, 1))
    out = corrupted(
        draws, FeatureCorruptionSettings(probability=1), np.full(3, -1, np.float32), marginal, np.full(3, 8, np.int32)
    )
    are_independent(out)


def test_what_is_drawn_does_not_depend_on_what_is_replaced(draws, are_independent):
    out = corrupted(draws, FeatureCorruptionSettings())
    out = out[out[:, 0] != -1]
    are_independent(np.stack([out[:, 0], out[:, 1] != -1], axis=1))


@pytest.mark.parametrize(("features", "number"), [(9, 5), (4, 2), (5, 3)])
def test_exact_replaces_always_as_many_features_each_as_often(draws, is_uniform, features, number):
    statics, marginal = np.full(features, -1, np.float32), np.zeros((features, 1), np.float32)
    settings = FeatureCorruptionSettings(count="exact")
    replaced = corrupted(draws, settings, statics, marginal, np.ones(features, np.int32)) == 0
    assert (replaced.sum(axis=1) == number).all()
    subsets = list(combinations(range(features), number))
    is_uniform([subsets.index(tuple(np.flatnonzero(row))) for row in replaced], len(subsets))


@pytest.mark.parametrize("count", ["bernoulli", "exact"])
def test_corruption_of_probability_zero_is_nothing(draws, count):
    out = corrupted(draws, FeatureCorruptionSettings(probability=0, count=count), number=50)
    np.testing.assert_array_equal(out, np.stack([OWN] * 50))


def test_every_row_of_a_long_marginal_is_in_reach(draws, is_uniform):
    rows = 65_536
    marginal = np.arange(rows, dtype=np.float32)[None].repeat(4, axis=0)
    settings = FeatureCorruptionSettings(probability=1)
    row = corrupted(draws, settings, OWN, marginal, np.full(4, rows, np.int32)).astype(int)
    is_uniform(row % 256, 256)
    is_uniform(row // 256, 256)
