import json
import re
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import yaml
from small_labelled import write_labelled

SMALL = (
    "encoder.signal={stem_filters: 4, stage_filters: [4], blocks_per_stage: 1, kernel_size: 5, units: 4}",
    "encoder.recurrent_layers=1",
    "encoder.recurrent_units=8",
    "training.epochs=3",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp("finetune") / "data")


@pytest.fixture
def command(repository, data, tmp_path):
    """Runs the command in an empty folder on the small data set."""

    def run(*arguments, tool="finetune", defaults=("--task", "high", *SMALL), start=subprocess.run):
        path = str(repository / "tools" / f"{tool}.py")
        return start(
            [sys.executable, path, "--data", str(data.path), *defaults, *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def sentence(done):
    """Returns the one line on standard error of a command that refused."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.slow
def test_a_run_is_complete_and_says_its_scores(command, tmp_path):
    done = command()
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "high-001"
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "tensorboard", "history.jsonl", "model.keras"),
        *("saved_model", "predictions.npz", "result.json"),
    }
    result = json.loads((run / "result.json").read_text())
    scores = result["scores"]["test"]
    found = re.search(r"^test: n (\d+), positives (\d+), prevalence .*auroc (\d\.\d+), ", done.stdout, re.MULTILINE)
    assert (int(found[1]), int(found[2])) == (scores["n"], scores["positives"])
    assert float(found[3]) == pytest.approx(scores["auroc"], abs=1e-3)
    assert len(re.findall(r"^epoch \d/3, loss", done.stdout, re.MULTILINE)) == 3
    assert "runs/high-001/saved_model" in done.stdout
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["task"] == "high"
    again = command("--config", str(run / "config.yaml"), "--out", "again", defaults=())
    assert again.returncode == 0, again.stderr
    losses = [
        [json.loads(line)["val_loss"] for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (run, tmp_path / "again")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.slow
def test_a_pretrained_encoder_is_fine_tuned_whole_frozen_and_on_a_fraction(command, repository, tmp_path):
    pretraining = [
        *("--config", str(repository / "configs" / "demo.yaml"), "--out", "pretrained", *SMALL[:3]),
        *("training.epochs=1", "data.batch_size=16", "augmentation.segment.seconds=2"),
    ]
    done = command(*pretraining, tool="pretrain", defaults=())
    assert done.returncode == 0, done.stderr
    modes = {"frozen": "training.frozen_epochs=all", "few": "label_fraction=0.05", "tuned": "training.encoder_rate=0.1"}
    for out, override in modes.items():
        done = command("--encoder", "pretrained", "--out", out, override)
        assert done.returncode == 0, done.stderr
        settings = yaml.safe_load((tmp_path / out / "config.yaml").read_text())
        assert settings["pretrained"] == str(tmp_path / "pretrained")
        assert settings["reading"]["seconds"] == 2
    results = {out: json.loads((tmp_path / out / "result.json").read_text()) for out in modes}
    assert results["few"]["training"]["patients"] < 0.1 * results["tuned"]["training"]["patients"]

    other = write_labelled(tmp_path / "other", number=24)
    done = command("--encoder", "pretrained", "--data", str(other.path), "training.epochs=1")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^warning: .*pretrained was pre-trained on another data set", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--task", "hihg"], r"has no task 'hihg'; did you mean 'high'\?"),
        (["--data", "nowhere"], r"nowhere: no such data set folder"),
        (["--encoder", "nowhere"], r"nowhere: holds no run \(no config\.yaml\)"),
        (["reading.seconds=9"], r"reading\.seconds: found 9 s .* expected at most"),
        (["optimizer.learningrate=1"], r"unknown key '.*learningrate'; did you mean 'learning_rate'"),
        (["training.frozen_epochs=-1"], r"frozen_epochs is -1, expected 0 or more"),
        (["training.frozen_epochs=10"], r"frozen_epochs is 10, expected .* fewer than the \d+ epochs .* or all"),
        (["optimizer.warmup_epochs=99"], r"warmup_epochs is 99\.0, more than the \d+ epochs"),
        (["--out", "."], r"already exists; expected a new folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(command, tmp_path, arguments, expected):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert re.search(expected, sentence(command(*arguments)))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_killed_run_goes_on_to_the_same_network(command, tmp_path, epoch):
    settings = ("training.epochs=5", "training.frozen_epochs=2", "training.encoder_rate=0.5", "training.patience=2")
    settings = (*settings, "training.least_steps=3", "data.batch_size=8")
    assert command("--out", "whole", *settings).returncode == 0
    process = command("--out", "part", *settings, start=subprocess.Popen)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "part").glob(f"checkpoints/epoch-0000{epoch}-*.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    changed = command("--resume", "--out", "part", "training.epochs=9", defaults=())
    assert "was started with training.epochs=5, found 9" in sentence(changed)
    resumed = command("--resume", "--out", "part", defaults=())
    assert resumed.returncode == 0, resumed.stderr
    weights = [keras.saving.load_model(tmp_path / run / "model.keras").get_weights() for run in ("whole", "part")]
    for one, other in zip(*weights):
        np.testing.assert_array_equal(one, other)
    lines = [
        [json.loads(line) for line in (tmp_path / run / "history.jsonl").read_text().splitlines()]
        for run in ("whole", "part")
    ]
    assert [(line["epoch"], line["loss"], line["val_loss"]) for line in lines[0]] == [
        (line["epoch"], line["loss"], line["val_loss"]) for line in lines[1]
    ]
    assert "this run is finished" in sentence(command("--resume", "--out", "part", defaults=()))


def test_a_missing_task_is_said(command):
    assert "key 'task' is missing" in sentence(command(defaults=()))


def test_the_shipped_settings_have_the_demos_encoder(repository):
    from tfmmcl.config import load
    from tfmmcl.finetune_settings import FinetuneSettings
    from tfmmcl.settings import PretrainSettings

    settings = load(repository / "configs" / "finetune.yaml", FinetuneSettings, ["task=x", "data.path=y"])
    assert settings.encoder == load(repository / "configs" / "demo.yaml", PretrainSettings).encoder
    assert settings.model_copy(update={"encoder": FinetuneSettings(task="x", data={"path": "y"}).encoder}) == (
        FinetuneSettings(task="x", data={"path": "y", "batch_size": 64})
    )


def test_help_is_fast_because_tensorflow_stays_out(repository):
    code = "import sys, runpy; sys.argv[1:] = ['--help']; sys.modules['tensorflow'] = sys.modules['keras'] = None;"
    path = str(repository / "tools" / "finetune.py")
    done = subprocess.run(
        [sys.executable, "-c", f"{code} runpy.run_path({path!r}, run_name='__main__')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
