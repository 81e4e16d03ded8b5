"""Fixtures shared by the whole suite: a small synthetic data set and settings that fit it."""

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# A shell that runs the suite in the background has it ignore Ctrl-C, and whatever a test starts inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository():
    return REPOSITORY


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort, SyntheticSettings
    from tfmmcl.records.writer import write_dataset

    settings = SyntheticSettings(
        name="small",
        seed=3,
        patients=40,
        trajectories_per_patient=2,
        windows=3,
        window_seconds=4,
        sampling_rate_hz=100,
        leads=("II", "V1"),
        patients_per_shard=10,
    )
    return write_dataset(SyntheticCohort(settings), settings, tmp_path_factory.mktemp("small") / "data")


SMALL_OVERRIDES = (
    "data.batch_size=8",
    "augmentation.segment.seconds=2",
    "encoder.signal.stem_filters=8",
    "encoder.signal.stage_filters=[8,16]",
    "encoder.signal.blocks_per_stage=1",
    "encoder.signal.units=16",
    "encoder.structured_units=[8]",
    "encoder.statics_units=[8]",
    "encoder.recurrent_layers=1",
    "encoder.recurrent_units=16",
    "objective.projection_units=[16,16]",
    "training.epochs=2",
)
"""Settings, as a command line gives them, of a network that trains in seconds."""


@pytest.fixture(scope="session")
def small_overrides():
    return SMALL_OVERRIDES


@pytest.fixture
def make_settings(small_data, tmp_path):
    from tfmmcl.config import load
    from tfmmcl.settings import PretrainSettings

    def make(*overrides):
        path = tmp_path / "settings.yaml"
        path.write_text(f"data: {{path: '{small_data.path}'}}\n")
        return load(path, PretrainSettings, [*SMALL_OVERRIDES, *overrides])

    return make
