import hashlib
import json
import multiprocessing
import os
from collections import Counter

import numpy as np
import pytest
from small_cohorts import TinyCohort, make_settings, make_spec

import tfmmcl
from tfmmcl.cohorts.splits import SPLITS, split_of
from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort, SyntheticSettings
from tfmmcl.cohorts.trajectory import Trajectory
from tfmmcl.errors import InputError
from tfmmcl.records.framing import read_records
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.schema import decode, encode
from tfmmcl.records.statistics import Accumulator
from tfmmcl.records.summary import summarise
from tfmmcl.records.verify import read_trajectories, verify
from tfmmcl.records.writer import write_dataset

SYNTHETIC = SyntheticSettings(
    name="tiny",
    patients=12,
    trajectories_per_patient=2,
    windows=2,
    window_seconds=2,
    sampling_rate_hz=100,
    leads=("II", "V1"),
    patients_per_shard=3,
)
SURROGATES = ("\ud800", "\udfff id", "é", "日本", " ", "\n", "0", "00")


def write(cohort, out, workers=1, **changes):
    return write_dataset(cohort, make_settings(**changes), out, workers)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def nothing_left(tmp_path):
    """Checks, at the end of the test, that its folder is as empty as it was."""
    yield
    assert list(tmp_path.iterdir()) == []
    assert not multiprocessing.active_children()


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    written = []
    for workers in (1, 2, 3):
        data = write_dataset(SyntheticCohort(SYNTHETIC), SYNTHETIC, tmp_path / str(workers), workers)
        written.append(files(data.path))
    assert written[0] == written[1] == written[2]
    assert sum(name.startswith("train-") for name in written[0]) > 1


def test_another_seed_of_the_split_gives_other_shards(tmp_path):
    one, other = (write(TinyCohort(), tmp_path / str(seed), split={"seed": seed}) for seed in (0, 1))
    assert one.fingerprint != other.fingerprint


def test_the_manifest_counts_what_is_on_disk(out):
    data = write(TinyCohort(), out)
    manifest = json.loads((out / "manifest.json").read_text())
    patients, trajectories, labels = Counter(), Counter(), Counter()
    for shard in manifest["shards"]:
        raw = (out / shard["path"]).read_bytes()
        records = [decode(record, data.spec) for record in read_records(out / shard["path"])]
        assert shard["bytes"] == len(raw)
        assert shard["sha256"] == hashlib.sha256(raw).hexdigest()
        assert shard["records"] == len(records)
        assert shard["path"].startswith(shard["split"] + "-")
        trajectories[shard["split"]] += len(records)
        patients[shard["split"]] += len({record.patient for record in records})
        labels[shard["split"]] += sum(record.labels["mpap"] for record in records)
    for split, count in manifest["splits"].items():
        assert count == {
            "patients": patients[split],
            "trajectories": trajectories[split],
            "labels": {"mpap": {"labelled": trajectories[split], "positive": labels[split]}},
        }
    assert sorted(manifest["splits"]) == sorted(SPLITS)
    assert sum(trajectories.values()) == 4 * (1 + 2 + 3)
    assert manifest["statistics_sha256"] == hashlib.sha256((out / "statistics.npz").read_bytes()).hexdigest()


def test_the_manifest_says_what_the_data_is_and_where_it_came_from(out):
    cohort = TinyCohort()
    write(cohort, out, split={"seed": 7})
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert manifest["missing_sample"] == -32768
    assert manifest["spec"] == json.loads(cohort.spec.model_dump_json())
    assert manifest["provenance"] == {
        "cohort": make_settings(split={"seed": 7}).model_dump(mode="json"),
        "sources": {"raw.csv": "0" * 64},
        "flow": [
            {"level": "patients", "seen": 12, "lost": {}},
            {"level": "anchors", "seen": 24, "lost": {}},
            {"level": "trajectories", "seen": 24, "lost": {}},
        ],
        "notes": ["a note"],
        "tfmmcl": tfmmcl.__version__,
    }


def test_files_are_named_by_split_and_number_and_nothing_else_is_written(out, tmp_path):
    data = write(TinyCohort(), out)
    shards = {shard.path for shard in data.manifest.shards}
    count = sum(name.startswith("train-") for name in shards)
    assert {f"train-{index:05d}-of-{count:05d}.tfrecord" for index in range(count)} <= shards
    assert set(files(out)) == shards | {"manifest.json", "statistics.npz"}
    assert list(tmp_path.iterdir()) == [out]


def test_every_trajectory_is_written_once_to_its_patients_split(out, tmp_path):
    cohort = TinyCohort()
    data = write(cohort, out, split={"seed": 3})
    cohort.stage(tmp_path)
    items = [item for patient in cohort.patients() for item in cohort.trajectories(patient)]
    expected = {item.name: encode(item, cohort.spec) for item in items if isinstance(item, Trajectory)}
    found = {}
    for split in SPLITS:
        for trajectory in read_trajectories(data, split):
            assert trajectory.name not in found
            assert split_of(trajectory.patient, make_settings(split={"seed": 3}).split) == split
            found[trajectory.name] = encode(trajectory, cohort.spec)
    assert found == expected


def test_a_shard_holds_whole_patients_and_no_more_than_asked_for(out):
    data = write(TinyCohort(), out, patients_per_shard=3)
    shards = [{decode(r, data.spec).patient for r in read_records(out / s.path)} for s in data.manifest.shards]
    assert all(1 <= len(patients) <= 3 for patients in shards)
    assert sum(map(len, shards)) == len(set().union(*shards)) == 12


def test_the_statistics_are_those_of_the_stored_training_split_alone(out):
    data = write(TinyCohort(), out)
    accumulator = Accumulator(data.spec)
    for trajectory in read_trajectories(data, "train"):
        accumulator.add(trajectory)
    for name, values in vars(accumulator.finish()).items():
        np.testing.assert_allclose(getattr(data.statistics, name), values, rtol=1e-6)


def test_any_id_is_written_and_read_back(out):
    data = write(TinyCohort(ids=SURROGATES), out, split={"test": 0, "validation": 0})
    assert {trajectory.patient for trajectory in read_trajectories(data, "train")} == set(SURROGATES)
    assert verify(data) == []


def test_what_is_lost_is_counted_and_its_patient_is_not(out):
    data = write(TinyCohort(at="patient1", fault="excluded"), out)
    assert [level.model_dump() for level in data.manifest.provenance.flow] == [
        {"level": "patients", "seen": 12, "lost": {}},
        {"level": "anchors", "seen": 24, "lost": {"it is too short": 2}},
        {"level": "trajectories", "seen": 22, "lost": {}},
    ]
    splits = data.manifest.splits.values()
    assert sum(count.patients for count in splits) == 12 - 1
    assert sum(count.trajectories for count in splits) == 24 - 2
    assert verify(data) == []


def test_details_of_what_is_lost_are_for_the_terminal_alone(out):
    data = write(TinyCohort(ids=SURROGATES, at="\ud800", fault="excluded"), out, split={"test": 0, "validation": 0})
    assert data.examples == {"it is too short": ["\ud800/0 has one"]}
    assert r"such as \ud800/0 has one" in summarise(data)
    assert not any(b"has one" in content for content in files(out).values())
    assert DataSet.open(out).examples == {}


def test_a_cohort_without_leads_is_written_and_verified(out):
    data = write(TinyCohort(spec=make_spec(leads=())), out)
    assert verify(data) == []
    assert data.statistics.signals_mean.shape == (0,)


def test_empty_splits_are_allowed_except_for_training(out):
    data = write(TinyCohort(), out, split={"test": 0, "validation": 0})
    assert data.manifest.splits["test"].patients == data.count("test") == 0
    assert verify(data) == []
    with pytest.raises(InputError, match="the test split has no trajectories"):
        data.shards("test")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_empty_training_split_is_one_sentence(out, workers):
    with pytest.raises(InputError, match=r"^cohort 'tiny' has no trajectory in its training split\.$"):
        write(TinyCohort(), out, workers, split={"test": 1 - 1e-9})


@pytest.mark.usefixtures("nothing_left")
def test_an_empty_training_split_says_why_a_record_was_left_out(out):
    with pytest.raises(InputError, match=r"in its training split \(most often lost: it is too short\)\.$"):
        write(TinyCohort(ids=("a",), at="a", fault="excluded"), out, split={"test": 0, "validation": 0})


@pytest.mark.usefixtures("nothing_left")
def test_a_cohort_without_patients_is_one_sentence(out):
    with pytest.raises(InputError, match=r"^cohort 'tiny' has no patients\.$"):
        write(TinyCohort(ids=()), out)


@pytest.mark.usefixtures("nothing_left")
def test_bad_data_before_any_shard_is_finished_leaves_nothing_behind(out):
    with pytest.raises(InputError, match="line 3 is odd"):
        write(
            TinyCohort(at="patient7", fault="bad data"), out, patients_per_shard=12, split={"test": 0, "validation": 0}
        )


@pytest.mark.usefixtures("nothing_left")
def test_a_trajectory_that_does_not_fit_the_spec_leaves_nothing_behind(out):
    cohort = TinyCohort()
    cohort.trajectories = lambda patient: [Trajectory(patient, "odd", *[np.zeros(1, np.float32)] * 3)]
    with pytest.raises(InputError, match=r"trajectory odd: signals has shape \(1,\), expected \(2, 5, 2\)"):
        write(cohort, out)


@pytest.mark.parametrize("kind", ["file", "folder", "data set"])
def test_an_existing_out_is_refused_and_untouched(out, tmp_path, kind):
    if kind == "file":
        out.write_text("precious")
    elif kind == "folder":
        out.mkdir()
    else:
        write(TinyCohort(), out)
    before = out.read_text() if kind == "file" else files(out)
    with pytest.raises(InputError, match=r"data: already exists; expected the name of a new folder\.$"):
        write(TinyCohort(), out)
    assert (out.read_text() if kind == "file" else files(out)) == before
    assert list(tmp_path.iterdir()) == [out]


def test_folders_on_the_way_to_out_are_made(tmp_path):
    assert verify(write(TinyCohort(), tmp_path / "a" / "b" / "data")) == []


def test_a_data_set_is_as_readable_as_other_folders(out, tmp_path):
    write(TinyCohort(), out)
    assert os.stat(out).st_mode & 0o777 == 0o755


PEAK = """
import resource, sys
from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort, SyntheticSettings
from tfmmcl.records.writer import write_dataset
settings = SyntheticSettings(name="m", patients=int(sys.argv[1]), trajectories_per_patient=4, windows=8,
                             window_seconds=10, sampling_rate_hz=100, leads=("II", "V1"))
data = write_dataset(SyntheticCohort(settings), settings, sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sum(shard.bytes for shard in data.manifest.shards))
"""


def test_memory_does_not_grow_with_patients(python, tmp_path):
    (few, small), (many, large) = (map(int, python(PEAK, n, tmp_path / str(n)).split()) for n in (60, 240))
    assert large - small > 20e6
    # Kilobytes; what stays of a trajectory is its statics.
    assert 1024 * (many - few) < 5e6
