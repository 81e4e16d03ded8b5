"""A hospital's raw files, made up: events as CSV, signals as WFDB, and the cohort that reads them."""

import csv

import numpy as np
import wfdb

from tfmmcl.cohorts.recorded.cohort import RecordedCohort
from tfmmcl.cohorts.recorded.settings import RecordedSettings
from tfmmcl.cohorts.trajectory import Excluded, Seen, Trajectory

KEY = b"a key for the tests"

TREE = {
    "name": "small",
    "source": "recorded",
    "inputs": {
        "events": [
            {
                "format": "long",
                "path": "events.csv",
                "subject": {"column": "patient"},
                "time": {"column": "time"},
                "code": "code",
                "value": "value",
            }
        ]
    },
    "variables": {
        "hr": {"codes": ["HR"], "unit": "bpm", "plausible": [10, 300]},
        "mpap": {"codes": ["mPAP"], "unit": "mmHg"},
        "sodium": {"codes": ["Na"], "unit": "mmol/L"},
        "admission": {"codes": ["IN"]},
        "discharge": {"codes": ["OUT"]},
        "death": {"codes": ["DEATH"]},
    },
    "stays": {"start": "admission", "end": "discharge"},
    "anchors": [{"each": "mpap"}],
    "windows": {"count": 3, "length": "10 min"},
    "structured": [{"variable": "hr", "statistics": ["mean", "last", "count"]}],
    "statics": {"sodium": {"look_back": "1 h"}},
    "tasks": {
        "elevated": {"rule": "above", "variable": "mpap", "threshold": 20},
        "dies": {"rule": "within", "event": "death", "horizon": "1 h", "follow_up": ["discharge"]},
    },
}


def changed(tree=TREE, **changes):
    return RecordedSettings.model_validate({**tree, **changes})


def write_events(root, rows, name="events.csv"):
    """Writes rows of (patient, seconds since 2150-01-01, code, value)."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / name, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "time", "code", "value"])
        for patient, seconds, code, value in rows:
            time = np.datetime64("2150-01-01T00:00:00") + np.timedelta64(round(seconds * 1e6), "us")
            writer.writerow([patient, str(time), code, "" if value is None else value])


def write_record(root, name, seconds, start_seconds=0.0, rate_hz=100, leads=("II", "V1"), seed=0):
    """Writes a WFDB record of noise in mV that begins `start_seconds` after 2150-01-01; returns its samples."""
    root.mkdir(parents=True, exist_ok=True)
    signals = np.random.default_rng(seed).normal(0, 0.3, (round(seconds * rate_hz), len(leads)))
    begin = (np.datetime64("2150-01-01T00:00:00") + np.timedelta64(round(start_seconds * 1e6), "us")).astype(object)
    wfdb.wrsamp(
        name,
        fs=rate_hz,
        units=["mV"] * len(leads),
        sig_name=list(leads),
        p_signal=signals,
        fmt=["16"] * len(leads),
        adc_gain=[10_000.0] * len(leads),
        baseline=[0] * len(leads),
        base_time=begin.time(),
        base_date=begin.date(),
        write_dir=str(root),
    )
    return signals


def prepared(settings, root, stage):
    """Returns the staged cohort."""
    cohort = RecordedCohort(settings, root, KEY)
    stage.mkdir(parents=True, exist_ok=True)
    cohort.stage(stage)
    return cohort


def items(settings, root, stage):
    """Returns the trajectories, the excluded, and what was seen per level."""
    cohort = prepared(settings, root, stage)
    found = [item for patient in cohort.patients() for item in cohort.trajectories(patient)]
    seen = {}
    for item in found:
        if isinstance(item, Seen):
            seen[item.level] = seen.get(item.level, 0) + item.count
    kept = [item for item in found if isinstance(item, Trajectory)]
    return kept, [item for item in found if isinstance(item, Excluded)], seen
