"""The shipped cohort files on the published data: the numbers their sources are known for."""

import csv
import gzip
import re

import numpy as np
import pytest
import yaml
from real_data import real

from tfmmcl.cohorts.catalog import load_cohort
from tfmmcl.cohorts.recorded.cohort import RecordedCohort
from tfmmcl.cohorts.splits import split_of
from tfmmcl.cohorts.trajectory import Excluded, Seen, Trajectory

KEY = b"a key for the tests"


def staged(repository, name, root, stage):
    cohort = RecordedCohort(load_cohort(repository / "configs" / "cohorts" / f"{name}.yaml"), root, KEY)
    cohort.stage(stage)
    return cohort


def items(cohort, patients=None):
    found = [item for patient in patients or cohort.patients() for item in cohort.trajectories(patient)]
    return [item for item in found if isinstance(item, Trajectory)], found


def test_mimic_iv_accounts_for_every_pulmonary_pressure(repository, tmp_path):
    root = real("fixtures/mimic_iv_demo")
    with gzip.open(root / "icu" / "chartevents.csv.gz", "rt") as file:
        measured = [row for row in csv.DictReader(file) if row["itemid"] == "220061" and row["valuenum"]]
    patients = {row["subject_id"] for row in measured}
    assert (len(measured), len(patients)) == (314, 12)
    cohort = staged(repository, "mimic_iv", root, tmp_path)
    only_mpap = cohort.settings.model_copy(update={"anchors": cohort.settings.anchors[:1]})
    assert only_mpap.anchors[0].each == "mean_pap"
    cohort.settings = only_mpap
    kept, found = items(cohort, sorted(patients))
    assert all(not np.isnan(item.labels["elevated_mpap"]) for item in kept)
    lost = [item for item in found if isinstance(item, Excluded) and item.level == "anchors"]
    times = {(row["subject_id"], row["charttime"]) for row in measured}
    assert len(kept) + len(lost) == len(times) == 314
    assert sum(item.count for item in found if isinstance(item, Seen) and item.level == "anchors") == 314
    above = sum(float(row["valuenum"]) > 20 for row in measured) / len(measured)
    assert above == pytest.approx(0.53, abs=0.005)
    assert len(kept) == 248
    assert {item.reason for item in lost} == {"its first window begins before the stay"}


def test_the_csv_and_the_meds_route_give_equal_trajectories(repository, tmp_path):
    """The MEDS release was made from the same database; what it shares with the tables must not depend on the route."""
    tables = staged(repository, "mimic_iv", real("fixtures/mimic_iv_demo"), tmp_path / "tables")
    meds = staged(repository, "meds_mimic_iv", real("fixtures/meds_demo"), tmp_path / "meds")
    shared = meds.patients()
    assert len(shared) == 10
    assert set(shared) < set(tables.patients())
    left, _ = items(tables, shared)
    right, _ = items(meds, shared)
    assert len(left) > 100
    assert [item.name for item in left] == [item.name for item in right]
    for one, two in zip(left, right, strict=True):
        # MEDS keeps numbers as float32.
        np.testing.assert_allclose(one.structured, two.structured, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(one.statics, two.statics, rtol=1e-6)
        np.testing.assert_equal(one.labels, two.labels)


def test_the_two_mimic_files_differ_in_their_inputs_alone(repository):
    trees = [
        yaml.safe_load((repository / "configs" / "cohorts" / f"{name}.yaml").read_text())
        for name in ("mimic_iv", "meds_mimic_iv")
    ]
    for tree in trees:
        for key in ("name", "description", "inputs"):
            del tree[key]
    assert trees[0] == trees[1]


def test_challenge_2012_fixture(repository, tmp_path):
    root = real("fixtures/challenge2012")
    cohort = staged(repository, "challenge2012", root, tmp_path)
    kept, found = items(cohort)
    assert len(kept) == len(list((root / "set-a").glob("*.txt"))) == 25
    assert not [item for item in found if isinstance(item, Excluded)]
    with open(root / "Outcomes-a.txt") as file:
        outcomes = {row["RecordID"]: row for row in csv.DictReader(file)}
    for patient in cohort.patients():
        (item,) = items(cohort, [patient])[0]
        died, survival = outcomes[patient]["In-hospital_death"], float(outcomes[patient]["Survival"])
        assert item.labels == {"in_hospital_death": float(died), "death_within_a_day": float(2 <= survival <= 3)}
        _check_stay(root / "set-a" / f"{patient}.txt", item, cohort.spec)


def _check_stay(path, item, spec):
    """Compares a few features with the file, read line by line."""
    with open(path) as file:
        rows = [(row["Time"], row["Parameter"], float(row["Value"])) for row in csv.DictReader(file)]
    hours = [int(time[:2]) + int(time[3:]) / 60 for time, _, _ in rows]
    statics = dict(zip((feature.name for feature in spec.statics), item.statics, strict=True))
    structured = {feature.name: item.structured[:, i] for i, feature in enumerate(spec.structured)}
    general = {name: value for time, name, value in rows if time == "00:00" and value != -1}
    assert statics["age"] == general["Age"]
    np.testing.assert_equal(statics["height"], np.float32(general.get("Height", np.nan)))
    assert [statics[f"icu_{name}"] for name in ("coronary", "cardiac_surgery", "medical", "surgical")] == [
        float(general["ICUType"] == kind) for kind in (1, 2, 3, 4)
    ]
    sodium = [value for hour, (_, name, value) in zip(hours, rows, strict=True) if name == "Na" and hour < 48]
    np.testing.assert_equal(statics["sodium"], np.float32(sodium[-1] if sodium else np.nan))
    for window in range(24):
        inside = {}
        for hour, (time, name, value) in zip(hours, rows, strict=True):
            if name == "HR" and 2 * window <= hour < 2 * window + 2 and 10 <= value <= 300:
                inside.setdefault(time, []).append(value)
        values = [np.mean(list(set(several))) for several in inside.values()]
        np.testing.assert_allclose(
            structured["heart_rate_mean"][window], np.mean(values) if values else np.nan, rtol=1e-6
        )


def test_bidmc_keeps_a_patients_records_together(repository, tmp_path):
    root = real("bidmc")
    cohort = staged(repository, "bidmc", root, tmp_path)
    records = {path.name[:8] for path in root.glob("*_Signals.csv.gz")}
    owner = {
        name: re.search(r"MIMIC II matched wdb ID: (\S+)", (root / f"{name}_Fix.txt").read_text())[1]
        for name in records
    }
    assert owner["bidmc_06"] == owner["bidmc_07"]
    assert owner["bidmc_20"] == owner["bidmc_21"]
    assert cohort.patients() == sorted(set(owner.values()))
    kept, found = items(cohort, [owner["bidmc_06"]])
    assert sum(item.count for item in found if isinstance(item, Seen) and item.level == "records") == 2
    assert len({item.patient for item in kept}) == 1
    assert len(kept) == 8  # each record: 5, 6, 7 and 8 minutes
    assert split_of(owner["bidmc_20"], cohort.settings.split) == split_of(owner["bidmc_21"], cohort.settings.split)


def test_bidmc_signals_and_numerics_are_those_of_the_files(repository, tmp_path):
    import pandas as pd

    root = real("bidmc")
    cohort = staged(repository, "bidmc", root, tmp_path)
    pattern = r"MIMIC II matched wdb ID: (\S+)"
    patient = re.search(pattern, (root / "bidmc_01_Fix.txt").read_text())[1]
    first = items(cohort, [patient])[0][0]  # ends at 5 minutes
    numerics = pd.read_csv(root / "bidmc_01_Numerics.csv", skipinitialspace=True)
    names = [feature.name for feature in cohort.spec.structured]
    for window in range(10):
        inside = numerics[(numerics["Time [s]"] >= 30 * window) & (numerics["Time [s]"] < 30 * window + 30)]
        row = dict(zip(names, first.structured[window], strict=True))
        assert row["heart_rate_mean"] == pytest.approx(inside["HR"].mean(), rel=1e-6)
        assert row["spo2_min"] == inside["SpO2"].min()
    signals = pd.read_csv(root / "bidmc_01_Signals.csv.gz", skipinitialspace=True)
    # 240 Hz against 125 Hz: every 48th sample coincides with every 25th recorded one, but for the anti-aliasing filter.
    recorded = signals["II"].to_numpy()[: 125 * 300 : 25].reshape(10, 150)
    error = first.signals[:, ::48, cohort.spec.leads.index("II")] - recorded
    assert np.nanmedian(np.abs(error)) < 0.01


def test_challenge_2015_has_its_alarms(repository, tmp_path):
    root = real("challenge2015")
    cohort = staged(repository, "challenge2015", root, tmp_path)
    with open(root / "ALARMS") as file:
        alarms = {row[0]: row[1:] for row in csv.reader(file)}
    assert len(alarms) == 190
    assert sum(verdict == "1" for _, verdict in alarms.values()) == 66
    assert len(cohort.patients()) == 186
    names = [feature.name for feature in cohort.spec.statics]
    for record in ("a103l", "a142s"):
        (item,) = items(cohort, [record])[0]
        kind, verdict = alarms[record]
        assert item.labels == {"true_alarm": float(verdict)}
        assert {name for name, value in zip(names, item.statics, strict=True) if value} == {f"alarm_{kind.lower()}"}
        assert item.statics.sum() == 1
        assert item.signals.shape == (10, 7200, 2)
