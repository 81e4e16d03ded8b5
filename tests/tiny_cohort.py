"""A cohort of 30 patients and 60 trajectories, for commands."""

from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort, SyntheticSettings
from tfmmcl.records.writer import write_dataset

COHORT = {
    "name": "tiny",
    "source": "synthetic",
    "patients": 30,
    "trajectories_per_patient": 2,
    "windows": 2,
    "window_seconds": 4,
    "sampling_rate_hz": 100,
    "leads": ["II"],
}


def make_data(path, **changes):
    settings = SyntheticSettings(**{**COHORT, **changes})
    return write_dataset(SyntheticCohort(settings), settings, path)
