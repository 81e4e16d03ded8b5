"""From a hospital's raw files to embeddings and a report: its ids, dates and key are in nothing that comes out."""

import io
import json
import os
import subprocess
import sys
import zipfile

import polars as pl
import pytest
import yaml
from small_hospital import TREE, write_events, write_record
from small_network import OVERRIDES

HOUR = 3600
PATIENTS = [f"QZX{70451 + 13 * number}W" for number in range(60)]  # what cannot occur by chance
SECRETS = [*PATIENTS, "2150-01-01", "a key that nobody would guess"]
EVALUATION = """
tasks: [elevated]
arms: [contrastive]
baselines: [best_static]
modes: [linear]
fractions: [1.0]
seeds: 1
encoder:
  signal: {stem_filters: 4, stage_filters: [4], blocks_per_stage: 1, kernel_size: 5, units: 4}
  structured_units: [4]
  statics_units: [4]
  recurrent_layers: 1
  recurrent_units: 8
pretraining:
  batch_size: 4
  augmentation: {segment: {seconds: 2}}
  objective: {projection_units: [4]}
  training: {epochs: 1}
resamples: 100
"""


@pytest.fixture
def hospital(tmp_path):
    """Writes raw files whose ids are in tables, in file names and in headers, and a cohort file."""

    def rows():
        for number, patient in enumerate(PATIENTS):
            yield patient, 0, "IN", None
            yield patient, 60, "Na", 140 + number % 5
            for minute in range(0, 180, 5):
                yield patient, minute * 60 + number, "HR", 60 + (minute + number) % 40
            yield patient, HOUR, "mPAP", 15 + number % 12
            yield patient, 3 * HOUR, "OUT", None

    write_events(tmp_path / "raw", rows())
    for number, patient in enumerate(PATIENTS):
        write_record(tmp_path / "raw", f"{patient}_1", 120, start_seconds=HOUR - 90, seed=number)
    waveforms = {"format": "wfdb", "path": "*.hea", "subject": r"(\w+)_1", "start": "header"}
    tree = {
        **TREE,
        "inputs": {
            "events": [{**TREE["inputs"]["events"][0], "subject": {"column": "patient"}}],
            "waveforms": [waveforms],
        },
        "signals": {"leads": {"II": ["II"], "V1": ["V1"]}, "length": "5 s", "sampling_rate_hz": 100},
        "windows": {"count": 3, "length": "30 s"},
        "require": {"structured_windows": 0},
    }
    (tmp_path / "key").write_text("a key that nobody would guess")
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(tree))))
    (tmp_path / "run.yaml").write_text("data: {path: data}\n")
    (tmp_path / "evaluate.yaml").write_text(EVALUATION)


def contents(path):
    """Yields what is in a file, unpacked."""
    raw = path.read_bytes()
    yield raw
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    if path.suffix == ".parquet":
        yield pl.read_parquet(path).write_json().encode()


@pytest.mark.slow
def test_no_id_date_or_key_is_in_anything_that_comes_out(repository, hospital, tmp_path):
    small = ["data.batch_size=4", "augmentation.segment.seconds=2", "objective.projection_units=[4]", *OVERRIDES]
    commands = [
        ("prepare", "--cohort", "cohort.yaml", "--root", "raw", "--out", "data", "--id-key", "key"),
        ("verify", "data"),
        ("pretrain", "--config", "run.yaml", "--out", "run", "training.epochs=1", *small),
        ("finetune", "--task", "elevated", "--data", "data", "--encoder", "run", "--out", "tuned", "training.epochs=1"),
        ("embed", "--model", "run/saved_model", "--data", "data", "--out", "embeddings.parquet"),
        ("evaluate", "--config", "evaluate.yaml", "--data", "data", "--out", "report"),
    ]
    said = []
    for tool, *arguments in commands:
        done = subprocess.run(
            [sys.executable, str(repository / "tools" / f"{tool}.py"), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "none")},
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
    made = ("data", "run", "tuned", "report", "embeddings.parquet")
    files = [path for name in made for path in (tmp_path / name, *(tmp_path / name).rglob("*")) if path.is_file()]
    assert len(files) > 40
    searched = {str(path.relative_to(tmp_path)): b"\n".join(contents(path)) for path in files}
    searched |= {"printed": "\n".join(said).encode(), "names": "\n".join(map(str, files)).encode()}
    for name, content in searched.items():
        found = [secret for secret in SECRETS if secret.encode() in content]
        assert not found, f"{found} in {name}"
