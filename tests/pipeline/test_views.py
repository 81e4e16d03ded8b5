import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfmmcl.config import validate
from tfmmcl.errors import InputError
from tfmmcl.pipeline.preprocess import Preprocessor
from tfmmcl.pipeline.shapes import segment_samples
from tfmmcl.pipeline.views import Views, trajectory_key
from tfmmcl.records.schema import MISSING_SAMPLE
from tfmmcl.settings import AugmentationSettings

ALPHA = 1e-6
NAMES = [f"patient-{i // 4}-{i % 4}" for i in range(1200)]
STILL = {
    "signal_noise_std": 0,
    "signal_mask": {"fraction": 0},
    "history_cutout": {"probability": 0},
    "channel_dropout": 0,
    "feature_corruption": {"probability": 0},
}


def augmentation(**changes):
    return validate({"segment": {"seconds": 1.6}} | changes, AugmentationSettings, "test")


@pytest.fixture(scope="module")
def example():
    rng = np.random.default_rng(0)
    signals = (2 * rng.integers(-450, 450, (6, 100, 2)) + 1).astype(np.int16)  # odd: never exactly the mean
    signals[2, :, 1] = MISSING_SAMPLE  # a missing lead
    signals[4, 5:12, 0] = MISSING_SAMPLE  # a gap
    structured = rng.normal(3, 1, (6, 5)).astype(np.float32)
    structured[0:2, 3] = structured[4, 1] = np.nan
    return {"structured": structured, "statics": np.float32([-1, 17, np.nan, 5]), "signals": signals}


@pytest.fixture(scope="module")
def make(spec, statistics):
    def build(signals=True, **changes):
        return Views(Preprocessor(spec, statistics), augmentation(**changes), signals=signals)

    return build


@pytest.fixture(scope="module")
def many(make, example):
    """Returns the views that many trajectories with the same content get, differing by their names alone."""

    def run(seed=0, epoch=0, names=NAMES, signals=True, parallel_calls=tf.data.AUTOTUNE, views=2, **changes):
        made = make(signals, **changes)
        tensors = tf.nest.map_structure(tf.constant, example)

        def augmented(name):
            return made.augmented(tensors, trajectory_key(seed, epoch, name), views)

        dataset = tf.data.Dataset.from_tensor_slices(names).map(augmented, parallel_calls).batch(len(names))
        return tf.nest.map_structure(lambda x: x.numpy(), dataset.get_single_element())

    return run


@pytest.fixture(scope="module")
def reference(many):
    return many()


@pytest.fixture(scope="module")
def decisions(make, example):
    """Reads off small integers that say what was drawn for each trajectory of a view; columns are named."""
    plain = make(**STILL)
    base = plain.augmented(tf.nest.map_structure(tf.constant, example), trajectory_key(0, 0, "any"))

    def read(view, index):
        cut = (view["structured"] == 0) & (base[index]["structured"].numpy() != 0)
        replaced = view["statics"] != base[index]["statics"].numpy()
        mask = view["signals"][:, 0] == 0
        start = (mask & ~np.roll(mask, 1, 1)).argmax(axis=1)
        return {
            **{f"cut {m}": cut[..., m].any(axis=1) for m in range(5)},
            **{f"where {m}": cut[..., m].argmax(axis=1) for m in range(5)},
            **{f"replaced {i}": replaced[:, i] for i in range(2)},
            **{f"value {i}": np.unique(view["statics"][:, i], return_inverse=True)[1] for i in range(2)},
            **{f"mask {c}": start[:, c] // 8 for c in range(2)},
        }

    return read


def same(a, b):
    return all(np.array_equal(a[i][key], b[i][key]) for i in range(len(a)) for key in a[i])


def every_pair_is_independent(a, b, are_independent):
    for one in a.values():
        for other in b.values():
            are_independent(np.stack([one, other], axis=1))


# Independence.


def test_the_two_views_of_a_trajectory_draw_independently(reference, decisions, are_independent):
    every_pair_is_independent(decisions(reference[0], 0), decisions(reference[1], 1), are_independent)


@pytest.mark.parametrize("lag", [1, 4, 700])
def test_two_trajectories_draw_independently(reference, decisions, are_independent, lag):
    for index, view in enumerate(reference):
        drawn = decisions(view, index)
        one, other = {k: v[lag:] for k, v in drawn.items()}, {k: v[:-lag] for k, v in drawn.items()}
        for key in drawn:
            are_independent(np.stack([one[key], other[key]], axis=1))


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 1}, {"epoch": 1, "seed": 1}])
def test_another_epoch_or_seed_draws_independently(reference, many, decisions, are_independent, change):
    others = many(**change)
    for index in (0, 1):
        one, other = decisions(reference[index], index), decisions(others[index], index)
        for key in one:
            are_independent(np.stack([one[key], other[key]], axis=1))


def test_the_augmentations_of_a_view_draw_independently(reference, decisions, are_independent):
    drawn = decisions(reference[0], 0)
    groups = [
        [key for key in drawn if key.split()[0] in words]
        for words in (("cut", "where"), ("replaced", "value"), ("mask",))
    ]
    for i, group in enumerate(groups):
        for other in groups[:i]:
            one, two = ({key: drawn[key] for key in keys} for keys in (group, other))
            every_pair_is_independent(one, two, are_independent)


def test_noise_differs_between_views_trajectories_and_epochs(many):
    some = {"names": NAMES[:500]}
    quiet, still = some | {"signal_mask": {"fraction": 0}}, many(**some, **STILL)
    # The first window's first lead of view and epoch, less the signal itself.
    noise = [
        (many(epoch=epoch, **quiet)[index]["signals"] - still[index]["signals"])[:, 0, :, 0]
        for index in (0, 1)
        for epoch in (0, 1)
    ]
    for i, one in enumerate(noise):
        assert one.var() == pytest.approx(0.1, rel=0.03)
        assert stats.pearsonr(one[1:].ravel(), one[:-1].ravel()).pvalue > ALPHA
        for other in noise[:i]:
            assert stats.pearsonr(one.ravel(), other.ravel()).pvalue > ALPHA


# The same key gives the same views.


def test_the_same_seed_epoch_and_trajectory_give_the_same_views(many, reference):
    assert same(many(), reference)


def test_views_are_the_same_under_1_and_8_parallel_calls(many, reference):
    assert same(many(parallel_calls=1), reference)
    assert same(many(parallel_calls=8), reference)


def test_views_do_not_depend_on_the_order_or_company_of_trajectories(many, reference):
    picked = [1100, 3, 77]
    alone = many(names=[NAMES[i] for i in picked])
    expected = tuple({key: value[picked] for key, value in view.items()} for view in reference)
    assert same(alone, expected)


def test_views_do_not_depend_on_the_global_seed(many):
    tf.random.set_seed(1)
    one = many(names=NAMES[:5])
    tf.random.set_seed(2)
    assert same(many(names=NAMES[:5]), one)


@pytest.mark.parametrize("compiled", [False, True])
def test_views_are_the_same_eagerly_in_a_function_and_in_tf_data(make, example, reference, compiled):
    made = make()
    call = tf.function(made.augmented) if compiled else made.augmented
    for i in range(6):
        views = call(tf.nest.map_structure(tf.constant, example), trajectory_key(0, 0, NAMES[i]))
        for view, expected in zip(views, reference):
            for key, value in view.items():
                np.testing.assert_allclose(value, expected[key][i], atol=1e-6)
                np.testing.assert_array_equal(value == 0, expected[key][i] == 0)


OTHER_WAYS = {
    "segment": {"seconds": 1.6, "position": "random"},
    "signal_mask": {"pattern": "element", "scope": "window", "fill": "noise"},
    "history_cutout": {"pattern": "element", "scope": "shared", "fill": "forward"},
    "feature_corruption": {"count": "exact", "views": "first"},
}


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "xla"])
@pytest.mark.parametrize("ways", [{}, OTHER_WAYS], ids=["paper", "others"])
def test_several_at_once_get_the_views_that_each_gets_alone(make, many, example, ways, compiled):
    names = NAMES[:7]
    together = make(**ways).several(0, 2, compiled=compiled)
    batch = {key: tf.stack([tf.constant(value)] * len(names)) for key, value in example.items()}
    dataset = tf.data.Dataset.from_tensors(batch | {"trajectory": tf.constant(names)})
    found = dataset.map(lambda examples: together(examples, tf.constant(3, tf.int64))).get_single_element()
    for view, expected in zip(found, many(epoch=3, names=names, **ways)):
        for key, value in view.items():
            np.testing.assert_allclose(value, expected[key], rtol=0, atol=1e-5)
            np.testing.assert_array_equal(value == 0, expected[key] == 0)


def test_keys_of_seeds_epochs_and_trajectories_do_not_collide():
    keys = [
        trajectory_key(seed, epoch, name).numpy()
        for seed in (0, 1, 2, 2**31 - 1)
        for epoch in (0, 1, 2, 2**31 - 1)
        for name in ("a", "b", "patient-1", "patient-10", "", "é")
    ]
    assert len(np.unique(keys, axis=0)) == len(keys)
    assert len(np.unique(np.array(keys)[:, 0])) == 16


# What a view holds.


def expected_plain(example, statistics, segment):
    structured = example["structured"].copy()
    for t in range(1, 6):
        structured[t] = np.where(np.isnan(structured[t]), structured[t - 1], structured[t])
    signals = np.where(example["signals"] == MISSING_SAMPLE, np.nan, example["signals"] * np.array([0.001, 0.002]))
    signals = (signals[:, segment] - statistics.signals_mean) / statistics.signals_std
    return {
        "structured": np.nan_to_num((structured - statistics.structured_mean) / statistics.structured_std),
        "statics": np.nan_to_num((example["statics"] - statistics.statics_mean) / statistics.statics_std),
        "signals": np.nan_to_num(signals),
    }


def test_without_augmentation_a_view_is_imputed_standardised_and_cut(many, example, statistics):
    views = many(names=NAMES[:2], **STILL)
    for view, segment in zip(views, (slice(0, 40), slice(40, 80))):
        for key, value in expected_plain(example, statistics, segment).items():
            np.testing.assert_allclose(view[key], np.stack([value] * 2), atol=1e-5)


def test_a_plain_view_is_the_first_segment_without_augmentation(make, example, statistics):
    view = make().plain(tf.nest.map_structure(tf.constant, example))
    expected = expected_plain(example, statistics, slice(0, 40))
    assert view.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(view[key], value, atol=1e-5)


def test_physical_units_in_batches_give_the_plain_view(make, example):
    millivolts = np.where(example["signals"] == MISSING_SAMPLE, np.nan, example["signals"] * np.array([0.001, 0.002]))
    inputs = {**example, "signals": millivolts.astype(np.float32)}
    batch = make().of_physical_units({key: tf.stack([value] * 3) for key, value in inputs.items()})
    for key, value in make().plain(tf.nest.map_structure(tf.constant, example)).items():
        np.testing.assert_allclose(batch[key], np.stack([value] * 3), atol=1e-5)


@pytest.mark.parametrize("fill", ["zero", "noise"])
@pytest.mark.parametrize("position", ["first", "random"])
def test_missing_samples_are_exactly_zero_in_every_view(make, example, position, fill):
    only_gap = np.where(np.isin(np.arange(6), [2])[:, None, None], MISSING_SAMPLE, example["signals"])
    changed = {**example, "signals": only_gap.astype(np.int16)}
    made = make(segment={"seconds": 1.6, "position": position}, signal_mask={"fill": fill})
    for name in NAMES[:10]:
        for view in made.augmented(tf.nest.map_structure(tf.constant, changed), trajectory_key(0, 0, name)):
            assert not np.any(view["signals"][2])
            assert np.all(np.any(view["signals"].numpy(), axis=(1, 2)) == (np.arange(6) != 2))


def test_a_gap_stays_zero_under_the_noise(many):
    first, _ = many(signal_mask={"fraction": 0})
    assert not first["signals"][:, 4, 5:12, 0].any()
    assert not first["signals"][:, 2, :, 1].any()
    assert first["signals"][:, 4, :5, 0].all()


def test_what_is_masked_is_exactly_zero_though_noise_is_added(many, reference):
    quiet = many(signal_noise_std=0)
    for noisy, plain in zip(reference, quiet):
        zero = noisy["signals"] == 0
        assert (zero[:, 0].sum(axis=1) == 20).all()  # window 0 has no gap: half of 40 samples
        np.testing.assert_array_equal(zero, plain["signals"] == 0)


def test_random_segments_of_the_two_views_do_not_overlap(many):
    views = many(names=NAMES[:200], **(STILL | {"segment": {"seconds": 1.6, "position": "random"}}))
    assert not np.isin(views[0]["signals"][:, 0, :, 0], views[1]["signals"][:, 0, :, 0]).all(axis=1).any()
    assert len(np.unique(views[0]["signals"][:, 0, 0, 0])) > 5


def test_corruption_of_the_first_view_leaves_the_second_alone(many):
    still = many(names=NAMES[:300], **STILL)
    both = many(names=NAMES[:300])
    first = many(names=NAMES[:300], feature_corruption={"views": "first"})
    np.testing.assert_array_equal(first[0]["statics"], both[0]["statics"])
    np.testing.assert_array_equal(first[1]["statics"], still[1]["statics"])
    assert not np.array_equal(both[1]["statics"], still[1]["statics"])


@pytest.mark.parametrize(
    ("changes", "touched"),
    [
        ({"signal_noise_std": 0.3}, "signals"),
        ({"signal_mask": {"fraction": 0.5}}, "signals"),
        ({"history_cutout": {"probability": 1}}, "structured"),
        ({"channel_dropout": 0.5}, "structured"),
        ({"feature_corruption": {"probability": 1}}, "statics"),
    ],
)
def test_an_augmentation_touches_only_its_modality(many, changes, touched):
    still, changed = many(names=NAMES[:20], **STILL), many(names=NAMES[:20], **(STILL | changes))
    for before, after in zip(still, changed):
        assert {key for key in before if not np.array_equal(before[key], after[key])} == {touched}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_number_of_views_shares_the_two_segments_in_turn(many, example, statistics, number):
    views = many(names=NAMES[:2], views=number, **STILL)
    assert len(views) == number
    for index, view in enumerate(views):
        segment = slice(40 * (index % 2), 40 * (index % 2) + 40)
        expected = expected_plain(example, statistics, segment)["signals"]
        np.testing.assert_allclose(view["signals"], np.stack([expected] * 2), atol=1e-5)


def test_three_views_are_all_different(many):
    views = many(names=NAMES[:1], views=3)
    for key in ("structured", "signals"):
        assert len({view[key].tobytes() for view in views}) == 3


# The No-ECG form.


def test_no_ecg_reads_no_signals_and_has_the_same_tabular_views(make, example, reference):
    tabular = {key: tf.constant(example[key]) for key in ("structured", "statics")}
    made = make(signals=False)
    for i in range(5):
        views = made.augmented(tabular, trajectory_key(0, 0, NAMES[i]))
        for view, expected in zip(views, reference):
            assert view.keys() == {"structured", "statics"}
            for key, value in view.items():
                np.testing.assert_allclose(value, expected[key][i], atol=1e-6)
    assert made.plain(tabular).keys() == {"structured", "statics"}


def test_no_ecg_asks_nothing_of_the_windows_length(make):
    make(signals=False, segment={"seconds": 1000})


# Segment length.


def test_the_paper_reads_2400_of_7200_samples(spec):
    paper = spec.model_copy(update={"window_seconds": 30.0, "sampling_rate_hz": 240.0})
    assert segment_samples(paper, AugmentationSettings()) == 2400


def test_a_segment_may_be_half_a_window_and_no_longer(make):
    make(segment={"seconds": 2})
    with pytest.raises(InputError, match=r"augmentation\.segment\.seconds: found 2\.04 s \(51 samples\).*4-s windows"):
        make(segment={"seconds": 2.04})


def test_a_segment_of_no_samples_is_refused(make):
    with pytest.raises(InputError, match="0 samples"):
        make(segment={"seconds": 0.01})
