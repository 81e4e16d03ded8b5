import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfmmcl.benchmarks.numpy_views import NumpyViews
from tfmmcl.config import validate
from tfmmcl.pipeline.parse import parse
from tfmmcl.pipeline.preprocess import Preprocessor
from tfmmcl.pipeline.views import Views
from tfmmcl.settings import AugmentationSettings

STILL = {
    "segment": {"seconds": 2},
    "signal_noise_std": 0,
    "signal_mask": {"fraction": 0},
    "history_cutout": {"probability": 0},
    "channel_dropout": 0,
    "feature_corruption": {"probability": 0},
}


@pytest.fixture(scope="module")
def examples(small_data):
    records = tf.data.TFRecordDataset(small_data.shards("train")).take(20)
    return [parse(record, small_data.spec) for record in records]


@pytest.fixture
def make(small_data):
    def of_settings(**changes):
        settings = validate(STILL | changes, AugmentationSettings, "test")
        views = NumpyViews(small_data.spec, small_data.statistics, settings)
        rng = np.random.default_rng(0)
        keys = ("signals", "structured", "statics")
        return lambda example: views(*(example[key].numpy() for key in keys), rng)

    return of_settings


def test_without_chance_they_are_the_pipelines_views(small_data, examples, make):
    settings = validate(STILL, AugmentationSettings, "test")
    ours = Views(Preprocessor(small_data.spec, small_data.statistics), settings, signals=True)
    for example in examples:
        for mine, theirs in zip(ours.augmented(example, tf.constant([0, 0], tf.int64)), make()(example)):
            for name, value in mine.items():
                np.testing.assert_allclose(theirs[name], value, atol=2e-5, err_msg=name)


def test_half_of_each_lead_is_masked_in_one_stretch_that_wraps_round(examples, make):
    for view in make(signal_mask={"fraction": 0.5}, signal_noise_std=1)(examples[0]):
        zero = view["signals"] == 0
        assert (zero.sum(axis=1) == zero.shape[1] // 2).all()
        assert (np.abs(np.diff(zero.astype(int), axis=1, append=zero[:, :1])).sum(axis=1) == 2).all()


def test_every_tabular_augmentation_happens_as_often_as_it_should(small_data, examples, make):
    cut = make(history_cutout={"probability": 1})
    dropped = make(channel_dropout=0.3)
    corrupted = make(feature_corruption={"probability": 1})
    plain = make()
    missing, changed = [], []
    for example in examples:
        before = plain(example)[0]
        # A third of three windows is what ⌊0.5 · 3⌋ leaves.
        full = before["structured"] != 0
        after = cut(example)[0]["structured"]
        assert ((after == 0)[:, full.all(axis=0)].sum(axis=0) == 1).all()
        missing.append((dropped(example)[0]["structured"] == 0).all(axis=0)[full.any(axis=0)])
        changed.append(corrupted(example)[0]["statics"] != before["statics"])
    assert np.concatenate(missing).mean() == pytest.approx(0.3, abs=0.1)
    assert np.concatenate(changed).mean() > 0.9


def test_a_static_that_was_never_observed_is_left_alone(small_data, examples):
    statistics = small_data.statistics
    never = dataclasses.replace(statistics, marginal_count=np.zeros_like(statistics.marginal_count))
    settings = validate(STILL | {"feature_corruption": {"probability": 1}}, AugmentationSettings, "test")
    still = validate(STILL, AugmentationSettings, "test")
    arrays = [examples[0][key].numpy() for key in ("signals", "structured", "statics")]
    rng = np.random.default_rng(0)
    corrupted = NumpyViews(small_data.spec, never, settings)(*arrays, rng)
    plain = NumpyViews(small_data.spec, never, still)(*arrays, rng)
    np.testing.assert_array_equal(corrupted[0]["statics"], plain[0]["statics"])
