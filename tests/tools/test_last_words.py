"""The five lines that end a run: what they say, and that what they say can be pasted."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_labelled import write_labelled

from tfmmcl.training.run_directory import RunDirectory
from tfmmcl.training.start import report

RESULT = {"summary": ["loss 1", "accuracy 2"], "epochs": 3, "steps": 30, "wall_seconds": 12.3}


def commands(lines):
    """Returns the command of each of the last three lines."""
    return [line.partition(":")[2].strip() for line in lines[-3:]]


def words(tmp_path, monkeypatch, tasks):
    monkeypatch.chdir(tmp_path)
    data = {"path": str(tmp_path / "my data"), "spec": {"tasks": [{"name": name} for name in tasks]}}
    return report({**RESULT, "data": data}, RunDirectory("runs/a b"), tmp_path / "tools").splitlines()


def test_paths_are_quoted_and_as_seen_from_here(tmp_path, monkeypatch):
    lines = words(tmp_path, monkeypatch, ["death", "shock"])
    assert len(lines) == 5
    assert lines[0] == "loss 1; accuracy 2; 3 epochs, 30 steps, 12 s"
    board, finetune, embed = (shlex.split(command, comments=True) for command in commands(lines))
    assert board == ["tensorboard", "--logdir", "runs/a b/tensorboard"]
    assert finetune == [
        "python",
        "tools/finetune.py",
        *("--task", "death", "--data", "my data", "--encoder", "runs/a b"),
    ]
    assert embed[:2] == ["python", "tools/embed.py"]
    assert embed[2:] == ["--model", "runs/a b/saved_model", "--data", "my data", "--out", "runs/a b/embeddings.parquet"]
    assert lines[3].endswith("# or shock")


def test_a_data_set_without_tasks_says_so(tmp_path, monkeypatch):
    assert words(tmp_path, monkeypatch, [])[3].endswith("# this data set has no task")


@pytest.mark.slow
def test_what_a_run_says_last_can_be_pasted(pretrain, tmp_path):
    write_labelled(pretrain.folder / "data")
    done = pretrain("--data", "data", "--out", "a run")
    assert done.returncode == 0, done.stderr
    _, finetune, embed = commands(done.stdout.splitlines())
    # `python` is that of the environment in use.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    small = "training.epochs=1 training.least_steps=1 --out tuned"
    for command in (finetune.partition("#")[0] + small, embed):
        pasted = subprocess.run(
            command, shell=True, cwd=pretrain.folder, env=environment, capture_output=True, text=True
        )
        assert pasted.returncode == 0, (command, pasted.stderr)
    assert json.loads((pretrain.folder / "tuned" / "result.json").read_text())["task"] == "high"
    assert (pretrain.folder / "a run" / "embeddings.parquet").is_file()
    settings = yaml.safe_load((pretrain.folder / "tuned" / "config.yaml").read_text())
    assert settings["pretrained"] == str((pretrain.folder / "a run").resolve())
