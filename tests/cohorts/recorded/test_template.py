"""template.yaml as it stands, on a made-up hospital that keeps its data as the template says."""

import numpy as np
import pandas as pd
from small_hospital import KEY, write_record

from tfmmcl.cohorts.catalog import load_cohort
from tfmmcl.cohorts.recorded.cohort import RecordedCohort
from tfmmcl.records.verify import verify
from tfmmcl.records.writer import write_dataset

START = pd.Timestamp("2150-01-01")
HOUR = 3600


def make_hospital(root, patients=15):
    """Two patients out of three have a record of 13 hours; one in five dies at 20 hours."""
    rng = np.random.default_rng(0)
    vitals, labs, stays, facts, deaths = [], [], [], [], []
    for number in range(patients):
        patient, hours = 100 + number, np.arange(0, 24, 0.5)
        for hour in hours:
            at = START + pd.Timedelta(hours=hour, seconds=int(rng.integers(60)))
            vitals.append((patient, at, "HR" if number % 2 else "Heart rate", rng.normal(80, 10)))
            vitals.append((patient, at, "SpO2", rng.normal(96, 1)))
        for hour in (1, 9):
            at = START + pd.Timedelta(hours=hour)
            labs.append((patient, at, rng.normal(140, 3), rng.normal(4, 0.3), rng.normal(90, 20), rng.normal(6, 1)))
        stays.append((patient, START, START + pd.Timedelta(hours=24), "ICU"))
        facts.append((patient, 60 + number, "FM"[number % 2]))
        if number % 5 == 0:
            deaths.append((patient, START + pd.Timedelta(hours=20), "ward"))
        if number % 3:
            write_record(root / "waves" / str(patient), f"r{number}", 13 * HOUR, rate_hz=10, seed=number)
    (root / "vitals").mkdir()
    pd.DataFrame(vitals, columns=["patient_id", "charted_at", "parameter", "value"]).to_csv(
        root / "vitals" / "1.csv", index=False
    )
    names = ["patient_id", "taken_at", "sodium", "potassium", "creatinine", "glucose"]
    pd.DataFrame(labs, columns=names).to_csv(root / "labs.csv", index=False)
    pd.DataFrame(stays, columns=["patient_id", "admitted_at", "left_at", "ward"]).to_csv(
        root / "stays.csv", index=False
    )
    pd.DataFrame(facts, columns=["patient_id", "age", "sex"]).to_csv(root / "patients.csv", index=False)
    pd.DataFrame(deaths, columns=["patient_id", "died_at", "place"]).to_csv(root / "deaths.csv", index=False)
    return pd.DataFrame(labs, columns=names)


def test_the_template_works_as_it_stands(repository, tmp_path):
    labs = make_hospital(tmp_path / "raw")
    settings = load_cohort(repository / "configs" / "cohorts" / "template.yaml")
    data = write_dataset(RecordedCohort(settings, tmp_path / "raw", KEY), settings, tmp_path / "data")
    assert not verify(data)
    flow = data.manifest.splits
    # Anchors at 5, 11, 17 and 23 hours, five hours of windows before each; the records last 13 hours.
    assert sum(count.trajectories for count in flow.values()) == 10 * 3
    labelled = [count.labels["mortality_24h"] for count in flow.values()]
    assert sum(label.positive for label in labelled) == 3 * sum(number % 3 != 0 for number in range(0, 15, 5))
    mean = data.statistics.statics_mean[[feature.name for feature in data.spec.statics].index("creatinine")]
    assert mean == np.float32(mean)
    assert 0.0113 * labs["creatinine"].min() < mean < 0.0113 * labs["creatinine"].max()
