"""The paper's size and the real ECGs, through the commands; minutes, not seconds."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def run(repository, folder, tool, *arguments):
    command = [sys.executable, str(repository / "tools" / f"{tool}.py"), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_papers_configuration_takes_steps_at_full_size(repository, tmp_path):
    (tmp_path / "cohort.yaml").write_text(
        (repository / "configs/cohorts/paper_synthetic.yaml").read_text().replace("patients: 64", "patients: 8")
    )
    said = run(
        *(repository, tmp_path, "pretrain", "--config", repository / "configs/paper.yaml", "--out", "run"),
        *("data.cohort=cohort.yaml", "data.batch_size=2", "training.epochs=1", "training.steps_per_epoch=2"),
    )
    assert "22,153,600 parameters" in said
    assert json.loads((tmp_path / "run/result.json").read_text())["steps"] == 2


def test_real_ecgs_train_with_a_falling_loss(repository, tmp_path):
    records = repository.parent / "shared" / "data" / "challenge2015"
    if not records.is_dir():
        pytest.skip(f"the Challenge 2015 records are not in {records}")
    cohort = repository / "configs/cohorts/challenge2015.yaml"
    said = run(repository, tmp_path, "prepare", "--cohort", cohort, "--root", records, "--out", "data")
    assert "lost:" not in said
    assert "verified" in run(repository, tmp_path, "verify", "data")
    config = repository / "configs/challenge2015.yaml"
    run(
        *(repository, tmp_path, "pretrain", "--config", config, "--data", "data", "--out", "run"),
        "training.epochs=4",
    )
    history = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["val_loss"] < json.loads((tmp_path / "run/result.json").read_text())["chance"]["loss"] - 0.5
