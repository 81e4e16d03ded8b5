from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from small_cohorts import make_spec, make_trajectory

from tfmmcl.records import profile as module
from tfmmcl.records.profile import EVERYONE, Profile
from tfmmcl.records.sample import Sample

SPEC = make_spec(tasks=("mpap", "death"))


def make_many(count):
    rng = np.random.default_rng(5)
    many = []
    for index in range(count):
        made = make_trajectory(SPEC, name=f"p-{index}", seed=index)
        made.structured[rng.random(made.structured.shape) < 0.4] = np.nan
        made.statics[rng.random(made.statics.shape) < 0.3] = np.nan
        made.signals[rng.random(SPEC.windows) < 0.3] = np.nan
        made.signals[..., 0][rng.random((SPEC.windows, SPEC.samples)) < 0.5] = np.nan
        made.labels["death"] = [0.0, 1.0, np.nan][index % 3]
        many.append(made)
    return many


def gather(many, cuts=()):
    bounds = [0, *sorted(cuts), len(many)]
    total = Profile(SPEC)
    for shard, (start, stop) in enumerate(pairwise(bounds)):
        part = Profile(SPEC, seed=shard)
        for index in range(start, stop):
            part.add(many[index], shard, 100 * index)
        total.merge(part.arrays())
    return total


def nan_mean(windows):
    observed = [column[~np.isnan(column)] for column in windows.T]
    return np.array([column.mean() if column.size else np.nan for column in observed])


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 25), max_size=3))
def test_counts_and_moments_are_those_of_all_values_of_a_group(cuts):
    many = make_many(25)
    found = gather(many, cuts)
    for group in found.groups:
        chosen = [t for t in many if group == EVERYONE or t.labels[group[0]] == group[1]]
        values = np.stack([np.concatenate([t.statics, nan_mean(t.structured)]) for t in chosen]).astype(float)
        moments = found.moments(group)
        assert found.trajectories(group) == len(chosen)
        np.testing.assert_array_equal(moments.count, np.isfinite(values).sum(axis=0))
        np.testing.assert_allclose(moments.mean, np.nanmean(values, axis=0), rtol=1e-6)
        expected = np.nanvar(values, axis=0) * moments.count
        np.testing.assert_allclose(moments.squares, expected, rtol=1e-4, atol=1e-6)
    missing = [
        *np.sum([np.isnan(t.statics) for t in many], axis=0),
        *np.sum([np.isnan(t.structured).sum(axis=0) for t in many], axis=0),
        *np.sum([np.isnan(t.signals).all(axis=1).sum(axis=0) for t in many], axis=0),
    ]
    np.testing.assert_array_equal(found.missing(), missing)


def test_a_small_sample_is_everything_in_order():
    many = make_many(20)
    rows = gather(many, [5, 5, 11]).rows()
    np.testing.assert_array_equal(rows.statics, [t.statics for t in many])
    np.testing.assert_array_equal(rows.structured, [t.structured for t in many])
    np.testing.assert_array_equal(rows.present, [np.isfinite(t.signals).any(axis=1) for t in many])


def test_pictured_trajectories_are_a_few_and_lie_where_they_were_added():
    ranks, shards, offsets = gather(make_many(40), [10, 30]).pictured()
    assert len(set(offsets)) == len(ranks) == module.PICTURED
    for shard, offset in zip(shards, offsets, strict=True):
        assert shard == sum(offset >= start for start in (1000, 3000))


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 10)
    found = gather(make_many(100), [40])
    assert len(found.rows().statics) == 10
    assert found.trajectories() == 100


def test_a_profile_of_nothing_merges():
    found = gather([])
    assert found.trajectories() == 0
    assert found.rows().structured.shape == (0, SPEC.windows, 3)
    assert len(found.pictured()[0]) == 0


@pytest.mark.parametrize("sizes", [[1000], [10, 700, 290], [500, 500]])
def test_a_sample_is_uniform_and_bounded(sizes):
    total, first = Sample(200, np.empty(0)), 0
    for seed, size in enumerate(sizes):
        part, random = Sample(200, np.empty(0)), np.random.default_rng(seed)
        for value in range(first, first + size):
            part.add(random.random(1), np.array([float(value)]))
            assert part.held <= 400
        total.add(*part.rows())
        first += size
    ranks, values = total.rows()
    assert len(ranks) == len(set(values)) == 200
    assert (np.diff(values) > 0).all()
    assert kstest(values / 1000, "uniform").pvalue > 0.01
