import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfmmcl.errors import InputError
from tfmmcl.evaluation.tabular import flatten, forward_fill, static_columns
from tfmmcl.records import schema
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.verify import read_trajectories


def test_each_row_is_a_trajectorys_statics_and_then_its_windows(small_data):
    found = flatten(small_data, "train", fill=False)
    trajectories = list(read_trajectories(small_data, "train"))
    assert found.trajectories.tolist() == [trajectory.name for trajectory in trajectories]
    assert found.patients.tolist() == [trajectory.patient for trajectory in trajectories]
    assert found.features.dtype == np.float32
    place = {name: index for index, name in enumerate(found.names)}
    assert len(place) == found.features.shape[1]
    for row, trajectory in zip(found.features, trajectories):
        for feature, value in zip(small_data.spec.statics, trajectory.statics):
            np.testing.assert_equal(row[place[feature.name]], value)
        for window, values in enumerate(trajectory.structured, start=1):
            for feature, value in zip(small_data.spec.structured, values):
                np.testing.assert_equal(row[place[f"{feature.name}[w{window}]"]], value)
    assert np.isnan(found.features).any()
    assert static_columns(found.names) == list(range(len(small_data.spec.statics)))


def test_filling_stays_within_a_trajectory_and_a_feature(small_data):
    raw, filled = (flatten(small_data, "train", fill=fill) for fill in (False, True))
    shape = (-1, small_data.spec.windows, len(small_data.spec.structured))
    columns = len(small_data.spec.statics)
    expected = [pd.DataFrame(rows).ffill().to_numpy() for rows in raw.features[:, columns:].reshape(shape)]
    np.testing.assert_array_equal(filled.features[:, columns:].reshape(shape), expected)
    np.testing.assert_array_equal(filled.features[:, :columns], raw.features[:, :columns])


@settings(deadline=None, max_examples=50)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3)),
        elements=st.sampled_from(np.array([np.nan, np.nan, 1, 2, 3], np.float32)),
    )
)
def test_filling_equals_pandas(structured):
    expected = np.stack([pd.DataFrame(rows).ffill().to_numpy() for rows in structured])
    np.testing.assert_array_equal(forward_fill(structured), expected)


def test_signals_are_not_decoded(small_data, monkeypatch):
    expected = flatten(small_data, "test").features

    def refuse(*_):
        raise AssertionError("a signal was decoded")

    monkeypatch.setattr(schema, "dequantise", refuse)
    with pytest.raises(AssertionError, match="a signal was decoded"):
        next(read_trajectories(small_data, "test"))
    np.testing.assert_array_equal(flatten(small_data, "test").features, expected)


def test_a_split_without_trajectories_is_refused(small_data):
    shards = [shard for shard in small_data.manifest.shards if shard.split != "test"]
    data = DataSet(small_data.path, small_data.manifest.model_copy(update={"shards": shards}))
    with pytest.raises(InputError, match="the test split has no trajectories"):
        flatten(data, "test")
