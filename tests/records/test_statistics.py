from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from small_cohorts import make_spec, make_trajectory

from tfmmcl.errors import InputError
from tfmmcl.records import statistics
from tfmmcl.records.statistics import Accumulator, Statistics

SPEC = make_spec(windows=3, samples=20, structured=2, statics=3)


def make_many(count, seed=0):
    """Trajectories with missing values, and leads whose mean is large beside their spread."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        trajectory = make_trajectory(SPEC, name=f"p-{index}", seed=1000 * seed + index)
        trajectory.signals[..., 0] += 500
        for array in (trajectory.signals, trajectory.structured, trajectory.statics):
            array[rng.random(array.shape) < 0.2] = np.nan
        made.append(trajectory)
    return made


def gather(trajectories, seed=0):
    accumulator = Accumulator(SPEC, seed)
    for trajectory in trajectories:
        accumulator.add(trajectory)
    return accumulator


def merged(parts):
    total = Accumulator(SPEC)
    for part in parts:
        total.merge(part.arrays())
    return total


def moments(accumulator):
    parts = accumulator._moments.values()
    return [array for part in parts for array in (part.count, part.mean, part.squares)]


def test_moments_are_those_of_all_observed_values():
    many = make_many(30)
    gathered = gather(many)
    found = gathered.finish()
    columns = {
        "structured": np.concatenate([t.structured for t in many]),
        "statics": np.stack([t.statics for t in many]),
        "signals": np.concatenate([t.signals.reshape(-1, 2) for t in many]),
    }
    for name, values in columns.items():
        values = values.astype(np.float64)
        np.testing.assert_allclose(gathered._moments[name].mean, np.nanmean(values, axis=0), rtol=1e-12)
        np.testing.assert_allclose(getattr(found, f"{name}_mean"), np.nanmean(values, axis=0), rtol=1e-6)
        np.testing.assert_allclose(getattr(found, f"{name}_std"), np.nanstd(values, axis=0), rtol=1e-6)


def test_infinite_values_count_as_missing():
    many = make_many(4)
    expected = gather(many).finish()
    for trajectory in many:
        trajectory.structured[np.isnan(trajectory.structured)] = np.inf
        trajectory.statics[np.isnan(trajectory.statics)] = -np.inf
    found = gather(many).finish()
    for name, values in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), values)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 24)), nested=st.booleans())
def test_merging_in_any_grouping_gives_the_same(cuts, nested):
    many = make_many(24)
    edges = [0, *sorted(cuts), 24]
    parts = [gather(many[start:stop], seed) for seed, (start, stop) in enumerate(pairwise(edges))]
    if nested:
        parts = [merged(parts[:2]), merged(parts[2:])]
    found, expected = merged(parts), gather(many)
    for one, other in zip(moments(found), moments(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_array_equal(found.finish().marginal, expected.finish().marginal)


def test_a_feature_that_never_varies_has_a_std_of_one():
    constant = [make_trajectory(SPEC, statics=np.full(3, 0.1, np.float32)) for _ in range(7)]
    found = gather(constant).finish()
    np.testing.assert_allclose(found.statics_mean, 0.1, rtol=1e-6)
    np.testing.assert_array_equal(found.statics_std, 1)


def test_what_was_never_observed_has_mean_zero_and_std_one():
    missing = make_trajectory(
        SPEC,
        signals=np.full((3, 20, 2), np.nan, np.float32),
        structured=np.full((3, 2), np.nan, np.float32),
        statics=np.full(3, np.nan, np.float32),
    )
    for found in (gather([missing]).finish(), gather([]).finish()):
        for name in ("structured", "statics", "signals"):
            np.testing.assert_array_equal(getattr(found, f"{name}_mean"), 0)
            np.testing.assert_array_equal(getattr(found, f"{name}_std"), 1)
        np.testing.assert_array_equal(found.marginal_count, 0)
        assert np.isnan(found.marginal).all()


def test_a_small_spread_around_a_large_mean_is_kept():
    rng = np.random.default_rng(0)
    many = [make_trajectory(SPEC, statics=(1e4 + rng.normal(size=3)).astype(np.float32)) for _ in range(200)]
    expected = np.std([t.statics.astype(np.float64) for t in many], axis=0)
    np.testing.assert_allclose(gather(many).finish().statics_std, expected, rtol=1e-6)


def test_the_marginal_holds_exactly_the_observed_values():
    many = make_many(40)
    found = gather(many).finish()
    for index in range(3):
        values = [t.statics[index] for t in many if not np.isnan(t.statics[index])]
        count = found.marginal_count[index]
        np.testing.assert_array_equal(found.marginal[index, :count], np.sort(values))
        assert np.isnan(found.marginal[index, count:]).all()
    assert found.marginal.shape == (3, found.marginal_count.max())


def test_a_large_marginal_is_a_bounded_uniform_sample(monkeypatch):
    monkeypatch.setattr(statistics, "MARGINAL_SIZE", 300)
    total, kept = Accumulator(SPEC), 0
    for shard, size in enumerate([700, 10, 1500, 290, 500]):  # unequal shards must not weigh alike
        part = Accumulator(SPEC, seed=shard)
        for index in range(size):
            part.add(make_trajectory(SPEC, statics=np.full(3, kept + index, np.float32)))
            assert part._marginal.held <= 600
        kept += size
        total.merge(part.arrays())
        assert total._marginal.held <= 600
    found = total.finish()
    np.testing.assert_array_equal(found.marginal_count, 300)
    assert found.marginal.shape == (3, 300)
    assert len(set(found.marginal[0])) == 300
    assert kstest(found.marginal[0] / kept, "uniform").pvalue > 0.01
    np.testing.assert_allclose(found.statics_mean, (kept - 1) / 2)  # the moments are of all values


def test_saved_statistics_load_equal(tmp_path):
    saved = gather(make_many(5)).finish()
    saved.save(tmp_path / "statistics.npz")
    loaded = Statistics.load(tmp_path / "statistics.npz", SPEC)
    for name, values in vars(saved).items():
        np.testing.assert_array_equal(getattr(loaded, name), values)
        assert getattr(loaded, name).dtype == values.dtype


def test_missing_statistics_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"statistics.npz: no such file; expected the training split's statistics\.$"):
        Statistics.load(tmp_path / "statistics.npz", SPEC)


def test_damaged_statistics_are_one_sentence_or_load_unchanged(tmp_path):
    path = tmp_path / "statistics.npz"
    saved = gather(make_many(5)).finish()
    saved.save(path)
    sound = path.read_bytes()
    sentences = []
    for position in range(0, len(sound), 3):
        damaged = bytearray(sound)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            loaded = Statistics.load(path, SPEC)
        except InputError as error:
            sentences.append(str(error))
        else:  # a field of the archive that nobody reads, such as a date
            for name, values in vars(saved).items():
                np.testing.assert_array_equal(getattr(loaded, name), values)
    assert all(sentence.startswith(f"{path}: ") for sentence in sentences)
    assert len(sentences) > len(sound) / 3 / 2


@pytest.mark.parametrize("length", [0, 1, 100, 1000])
def test_truncated_statistics_are_one_sentence(tmp_path, length):
    path = tmp_path / "statistics.npz"
    gather(make_many(2)).finish().save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"statistics.npz: cannot be read"):
        Statistics.load(path, SPEC)


def test_pickled_statistics_are_not_unpickled(tmp_path):
    saved = vars(gather(make_many(2)).finish())
    np.savez(tmp_path / "statistics.npz", **(saved | {"statics_mean": np.array([print], object)}))
    with pytest.raises(InputError, match="cannot be read"):
        Statistics.load(tmp_path / "statistics.npz", SPEC)


@pytest.mark.parametrize(
    ("key", "change", "sentence"),
    [
        ("structured_mean", lambda v: v[:1], r"'structured_mean' has shape \(1,\), expected \(2,\), finite"),
        ("signals_mean", lambda v: v * np.nan, "'signals_mean' has shape .*, finite"),
        ("statics_std", lambda v: v * 0, "'statics_std' has a value that is not positive"),
        ("marginal", lambda v: v[:1], "'marginal' does not have 3 rows"),
        ("marginal_count", lambda v: v[:1], "'marginal' does not have 3 rows"),
    ],
)
def test_statistics_that_do_not_fit_the_spec_are_one_sentence(tmp_path, key, change, sentence):
    saved = vars(gather(make_many(4)).finish())
    np.savez(tmp_path / "statistics.npz", **(saved | {key: change(saved[key])}))
    with pytest.raises(InputError, match=f"statistics.npz: {sentence}"):
        Statistics.load(tmp_path / "statistics.npz", SPEC)
