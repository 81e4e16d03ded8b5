"""Cohorts small enough to read at a glance; importable, so that spawned preparation workers can unpickle them."""

import errno
import os
import signal
from dataclasses import dataclass

import numpy as np

from tfmmcl.cohorts.settings import CohortSettings
from tfmmcl.cohorts.trajectory import Excluded, Feature, Seen, Spec, Task, Trajectory
from tfmmcl.errors import InputError


def make_spec(windows=2, samples=5, leads=("II", "V1"), structured=3, statics=2, tasks=("mpap",), scale=0.001):
    return Spec(
        windows=windows,
        window_seconds=samples / 100,
        sampling_rate_hz=100,
        leads=leads,
        signal_scale_mv=(scale,) * len(leads),
        structured=tuple(Feature(name=f"structured{i}", unit="1") for i in range(structured)),
        statics=tuple(Feature(name=f"static{i}", unit="1") for i in range(statics)),
        tasks=tuple(Task(name=name) for name in tasks),
    )


def make_trajectory(spec, patient="p", name="p-0", seed=0, **changes):
    rng = np.random.default_rng(seed)
    values = {
        "signals": rng.normal(size=(spec.windows, spec.samples, len(spec.leads))).astype(np.float32),
        "structured": rng.normal(70, 10, size=(spec.windows, len(spec.structured))).astype(np.float32),
        "statics": rng.normal(140, 5, size=len(spec.statics)).astype(np.float32),
        "labels": {task.name: float(rng.integers(2)) for task in spec.tasks},
    }
    return Trajectory(patient, name, **(values | changes))


def make_settings(**changes):
    return CohortSettings(**({"name": "tiny", "patients_per_shard": 2} | changes))


SPEC = make_spec()


@dataclass
class TinyCohort:
    """Patient number i has 1 + i mod 3 trajectories; `fault` says what happens at the patient `at`.

    What is staged is the version of the source, which may be read from nowhere else.
    """

    ids: tuple = tuple(f"patient{i}" for i in range(12))
    at: str = ""
    fault: str = ""
    spec: Spec = SPEC
    source: str = "0" * 64
    token: str = ""

    def stage(self, folder):
        for path in folder.glob("token"):
            assert path.read_text() == self.token, "what was staged with another key is still there"
        (folder / "token").write_text(self.token)
        self.staged = folder / "source"
        if not self.staged.exists():
            self.staged.write_text(self.source)
            if self.fault == "interrupted staging":
                raise KeyboardInterrupt

    def patients(self):
        assert self.staged.read_text() == self.source
        return list(self.ids)

    def given_splits(self):
        return None

    def sources(self):
        return {"raw.csv": self.source}

    def resume_token(self):
        return self.token

    def notes(self):
        return ["a note"]

    def trajectories(self, patient):
        assert self.staged.read_text() == self.source
        number = self.ids.index(patient)
        yield Seen("anchors", 1 + number % 3)
        for index in range(1 + number % 3):
            made = make_trajectory(self.spec, patient, f"{patient}/{index}", seed=10 * number + index)
            if patient == self.at and self.fault == "excluded":
                yield Excluded("anchors", "it is too short", f"{made.name} has one")
                continue
            yield made
            if patient == self.at and self.fault:
                self._fail()

    def _fail(self):
        if self.fault == "error":
            raise RuntimeError("the disk melted")
        if self.fault == "bad data":
            raise InputError("raw.csv: line 3 is odd.")
        if self.fault == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.fault == "interrupt":
            raise KeyboardInterrupt
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
