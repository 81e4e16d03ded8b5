"""A data set with a task of each kind, whose labels follow from what is seen; a third of them are missing."""

import json
import shutil
from dataclasses import dataclass

import numpy as np

from tfmmcl.cohorts.settings import CohortSettings
from tfmmcl.cohorts.trajectory import Feature, Spec, Task, Trajectory
from tfmmcl.records.framing import read_records, write_record
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.schema import decode, encode
from tfmmcl.records.writer import write_dataset

TASKS = (
    Task(name="high"),
    Task(name="third", kind="multiclass", classes=("low", "middle", "top")),
    Task(name="pressure", kind="regression", unit="mmHg"),
)


def make_spec(leads=("II",)):
    return Spec(
        windows=2,
        window_seconds=4,
        sampling_rate_hz=25,
        leads=leads,
        signal_scale_mv=(0.001,) * len(leads),
        structured=(Feature(name="rate", unit="bpm"), Feature(name="noise", unit="1")),
        statics=(Feature(name="lactate", unit="mmol/L"), Feature(name="age", unit="a")),
        tasks=TASKS,
    )


@dataclass
class LabelledCohort:
    """Patient number i has 1 + i mod 3 trajectories. A severity shows in the ECG's height, the rate and the lactate."""

    number: int = 60
    leads: tuple = ("II",)

    @property
    def spec(self):
        return make_spec(self.leads)

    def stage(self, folder):
        pass

    def patients(self):
        return [f"patient{i}" for i in range(self.number)]

    def given_splits(self):
        return {name: ("train", "train", "validation", "test")[i % 4] for i, name in enumerate(self.patients())}

    def sources(self):
        return {}

    def resume_token(self):
        return ""

    def notes(self):
        return []

    def trajectories(self, patient):
        number = int(patient.removeprefix("patient"))
        for index in range(1 + number % 3):
            yield make_trajectory(self.spec, patient, f"{patient}/{index}", 10 * number + index)


def make_trajectory(spec, patient, name, seed):
    rng = np.random.default_rng(seed)
    severity = rng.normal()
    seconds = np.arange(spec.samples) / spec.sampling_rate_hz
    waves = 0.3 * np.exp(severity / 2) * np.sin(2 * np.pi * (seconds + rng.uniform(size=(spec.windows, 1))))
    signals = waves[..., None] + 0.02 * rng.normal(size=(spec.windows, spec.samples, len(spec.leads)))
    structured = np.stack([70 + 10 * severity + rng.normal(size=spec.windows), rng.normal(size=spec.windows)], axis=1)
    structured[rng.uniform(size=structured.shape) < 0.2] = np.nan
    labels = {
        "high": float(severity > 0),
        "third": float(np.digitize(severity, [-0.43, 0.43])),
        "pressure": 30 + 8 * severity,
    }
    return Trajectory(
        patient=patient,
        name=name,
        signals=signals.astype(np.float32),
        structured=structured.astype(np.float32),
        statics=np.array([2 + severity, rng.normal(60, 10)], np.float32),
        labels={task: label for task, label in labels.items() if rng.uniform() < 2 / 3},
    )


def write_labelled(out, **changes):
    return write_dataset(LabelledCohort(**changes), CohortSettings(name="labelled", patients_per_shard=8), out)


def rewritten(data, out, edit):
    """Returns a copy of a data set whose trajectories went through a function; its statistics stay as they are."""
    shutil.copytree(data.path, out)
    manifest = json.loads((out / "manifest.json").read_text())
    for shard in manifest["shards"]:
        path = out / shard["path"]
        trajectories = [edit(decode(record, data.spec)) for record in read_records(data.path / shard["path"])]
        with open(path, "wb") as file:
            for trajectory in trajectories:
                write_record(file, encode(trajectory, data.spec))
        shard["bytes"] = path.stat().st_size
    (out / "manifest.json").write_text(json.dumps(manifest))
    return DataSet.open(out)
