import dataclasses
import json
import shutil
from itertools import combinations

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort, SyntheticSettings
from tfmmcl.cohorts.trajectory import Feature, Spec
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.statistics import Statistics
from tfmmcl.records.writer import write_dataset

ALPHA = 1e-6  # all keys are fixed, so a test that passes once passes always


@pytest.fixture(scope="session")
def draws():
    """Runs a function of a key inside tf.data for many keys, and stacks what it returns."""

    def run(function, number=2000, parallel_calls=tf.data.AUTOTUNE, seed=3):
        keys = tf.random.split(tf.constant([seed, 0], tf.int64), number)
        made = tf.data.Dataset.from_tensor_slices(keys).map(function, parallel_calls).batch(number)
        return tf.nest.map_structure(lambda x: x.numpy(), made.get_single_element())

    return run


@pytest.fixture(scope="session")
def is_uniform():
    """Asserts that integers are uniform over `range(size)`."""

    def check(values, size):
        values = np.asarray(values).ravel()
        assert values.min() >= 0
        assert values.max() < size
        assert size == 1 or stats.chisquare(np.bincount(values, minlength=size)).pvalue > ALPHA

    return check


@pytest.fixture(scope="session")
def is_rate():
    """Asserts that independent booleans are true with the given probability."""

    def check(values, probability):
        values = np.asarray(values).ravel()
        assert stats.binomtest(int(values.sum()), values.size, probability).pvalue > ALPHA

    return check


@pytest.fixture(scope="session")
def are_independent():
    """Asserts that the columns of `(N, columns)` small integers are pairwise independent."""

    def check(columns):
        columns = np.asarray(columns)
        for a, b in combinations(columns.T.astype(int), 2):
            table = np.zeros((a.max() + 1, b.max() + 1))
            np.add.at(table, (a, b), 1)
            table = table[table.any(axis=1)][:, table.any(axis=0)]
            assert min(table.shape) > 1, "a constant column shows nothing"
            assert stats.chi2_contingency(table, correction=False).pvalue > ALPHA

    return check


@pytest.fixture(scope="session")
def spec():
    return Spec(
        windows=6,
        window_seconds=4,
        sampling_rate_hz=25,
        leads=("II", "V1"),
        signal_scale_mv=(0.001, 0.002),
        structured=[Feature(name=f"w{i}", unit="1") for i in range(5)],
        statics=[Feature(name=f"d{i}", unit="1") for i in range(4)],
    )


@pytest.fixture(scope="session")
def statistics():
    """Made up, with static 3 never observed."""
    marginal = np.full((4, 8), np.nan, np.float32)
    count = np.array([8, 5, 1, 0])
    for i in range(3):
        marginal[i, : count[i]] = 10 * i + np.arange(count[i])
    return Statistics(
        structured_mean=np.array([1, 2, 3, 4, 5], np.float32),
        structured_std=np.array([1, 0.5, 2, 4, 3], np.float32),
        statics_mean=np.array([3.5, 12, 20, 0], np.float32),
        statics_std=np.array([2.3, 1.4, 1, 1], np.float32),
        signals_mean=np.array([0.1, -0.2], np.float32),
        signals_std=np.array([0.5, 0.25], np.float32),
        marginal=marginal,
        marginal_count=count,
    )


@pytest.fixture(scope="session")
def cohort():
    settings = {"patients": 40, "windows": 3, "window_seconds": 4, "sampling_rate_hz": 100, "leads": ("II", "V1")}
    return SyntheticCohort(SyntheticSettings(name="small", patients_per_shard=4, **settings))


@pytest.fixture(scope="session")
def data(cohort, tmp_path_factory):
    return write_dataset(cohort, cohort.settings, tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="session")
def tampered(cohort):
    """The cohort with the values of some patients made enormous."""

    class Tampered:
        spec = cohort.spec
        stage = cohort.stage
        patients = cohort.patients
        given_splits = cohort.given_splits
        sources = cohort.sources
        resume_token = cohort.resume_token
        notes = cohort.notes

        def __init__(self, patients):
            self.touched = set(patients)

        def trajectories(self, patient):
            for item in cohort.trajectories(patient):
                scaled = {key: 1000 * getattr(item, key) for key in ("structured", "statics")}
                touched = dataclasses.replace(item, signals=5 * item.signals, **scaled)
                yield touched if patient in self.touched else item

    return Tampered


@pytest.fixture
def rewritten(data, tmp_path):
    """Writes the data set again with every record's features edited in place by a function."""

    def rewrite(edit):
        out = tmp_path / "rewritten"
        shutil.copytree(data.path, out)
        manifest = json.loads((out / "manifest.json").read_text())
        for shard in manifest["shards"]:
            file = str(out / shard["path"])
            records = [tf.train.Example.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset(file)]
            with tf.io.TFRecordWriter(file) as writer:
                for record in records:
                    edit(record.features.feature)
                    writer.write(record.SerializeToString())
            shard["bytes"] = (out / shard["path"]).stat().st_size
        (out / "manifest.json").write_text(json.dumps(manifest))
        return DataSet.open(out)

    return rewrite
