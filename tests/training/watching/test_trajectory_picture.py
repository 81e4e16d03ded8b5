import numpy as np
import pytest
import tensorflow as tf

from tfmmcl.training.watching.similarity import draw_similarity
from tfmmcl.training.watching.trajectory import draw_views

GREY = 219  # 0.86 of white


def make_view(data, seconds, masked):
    """A trajectory of which a part is masked: of the signals from the left, and the last windows of all features."""
    spec, chance = data.spec, np.random.default_rng(0)
    signals = chance.normal(size=(spec.windows, round(seconds * spec.sampling_rate_hz), len(spec.leads)))
    structured = chance.normal(size=(spec.windows, len(spec.structured)))
    signals[:, : round(masked * signals.shape[1])] = 0
    structured[: round(masked * spec.windows)] = 0
    return {"signals": signals, "structured": structured, "statics": chance.normal(size=len(spec.statics))}


def draw(data, *views):
    png = draw_views(data.spec, data.statistics, [(f"view {i}", view) for i, view in enumerate(views)], "$a trajectory")
    return tf.io.decode_png(png, channels=3).numpy()


def grey(picture):
    return (picture == GREY).all(axis=-1).mean()


def test_what_is_masked_or_cut_out_is_grey(small_data):
    found = {masked: grey(draw(small_data, make_view(small_data, 2, masked))) for masked in (0, 1 / 3, 2 / 3, 1)}
    assert found[0] < 0.002
    assert found[1] > 0.15
    assert found[1 / 3] == pytest.approx(found[1] / 3, rel=0.2)
    assert found[2 / 3] == pytest.approx(2 * found[1 / 3], rel=0.2)


def test_short_segments_stand_side_by_side_and_long_ones_below_one_another(small_data):
    height, width, _ = draw(small_data, *[make_view(small_data, 4, 0)] * 3).shape
    assert width > 2 * height
    height, width, _ = draw(small_data, *[make_view(small_data, 10, 0)] * 3).shape
    assert height > width


def test_without_signals_the_features_are_drawn(small_data):
    view = make_view(small_data, 2, 0)
    whole = draw(small_data, view)
    del view["signals"]
    assert 0.3 * len(whole) < len(draw(small_data, view)) < len(whole)


def test_a_lead_of_nothing_but_zeros_or_far_outliers_is_drawn(small_data):
    view = make_view(small_data, 2, 0)
    view["signals"][..., 0] = 0
    view["signals"][..., 1] *= 1e6
    assert draw(small_data, view).std() > 20


def test_similarities_show_their_diagonal():
    picture = tf.io.decode_png(draw_similarity(2 * np.eye(8) - 1), channels=3).numpy().astype(int)
    dark_red = (np.abs(picture - [103, 0, 31]).sum(axis=-1) < 6).mean()
    dark_blue = (np.abs(picture - [5, 48, 97]).sum(axis=-1) < 6).mean()
    assert dark_blue == pytest.approx(7 * dark_red, rel=0.25)  # 56 cells against 8, and a bit of the colour bar
