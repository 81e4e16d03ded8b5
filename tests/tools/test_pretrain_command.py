import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from tiny_cohort import COHORT, make_data


@pytest.fixture
def prepared(tmp_path):
    return make_data(tmp_path / "prepared").path


def sentence(done):
    """Returns the one line on standard error of a command that refused."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_run_is_complete(pretrain):
    done = pretrain()
    assert done.returncode == 0, done.stderr
    assert "AutoGraph" not in done.stderr  # TensorFlow's word for code of ours that it cannot read
    run = pretrain.folder / "runs" / "tiny-001"
    names = {path.name for path in run.iterdir()}
    assert names == {
        *("config.yaml", "tensorboard", "history.jsonl", "checkpoints"),
        *("encoder.keras", "saved_model", "result.json"),
    }
    result = json.loads((run / "result.json").read_text())
    assert 0 < result["final"]["val_loss"] < 3 * result["chance"]["loss"]  # too small to learn more
    assert result["wall_seconds"] > 0
    found = re.search(r"validation loss (\d+\.\d+), (-?\d+\.\d+) below a random network's ln\((\d+)\)", done.stdout)
    assert float(found[1]) == pytest.approx(result["final"]["val_loss"], abs=1e-3)
    assert int(found[3]) == 2 * result["validation_batch_size"] - 1
    assert f"tensorboard --logdir {run.relative_to(pretrain.folder)}/tensorboard" in done.stdout


@pytest.mark.slow
def test_a_runs_settings_repeat_it_on_the_same_cohort(pretrain):
    assert pretrain("training.epochs=3").returncode == 0
    run = pretrain.folder / "runs" / "tiny-001"
    manifest = pretrain.folder / "data" / "tiny" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    again = pretrain("--config", str(run / "config.yaml"), "--out", "again", config=False)
    assert again.returncode == 0, again.stderr
    assert "data/tiny: reused" in again.stdout
    assert manifest.stat().st_mtime_ns == before
    histories = [(folder / "history.jsonl").read_text().splitlines() for folder in (run, pretrain.folder / "again")]
    first, second = ([json.loads(line)["val_loss"] for line in lines] for lines in histories)
    assert len(first) == 3
    assert second == pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["optimizer.learningrate=1"],
            r"override 'optimizer\.learningrate=1': unknown key '.*learningrate'; did you mean 'learning_rate'",
        ),
        (["optimiser.learning_rate=1"], r"unknown key 'optimiser'; did you mean 'optimizer'"),
        (["optimizer.learning_rate=fast"], r"'optimizer\.learning_rate': found 'fast', .*number"),
        (["optimizer.learning_rate=-1"], r"'optimizer\.learning_rate': found -1, .*greater than 0"),
        (["augmentation.signal_mask.pattern=zigzag"], r"'augmentation\.signal_mask\.pattern': found 'zigzag'"),
        (["training.precision=float8"], r"'training\.precision': found 'float8', .*mixed_bfloat16"),
        (["optimizer.warmup_epochs=3"], r"warmup_epochs is 3\.0, more than the 2 epochs"),
        (["encoder.structured_units=[0]"], r"'encoder\.structured_units\.0': found 0, .*greater than or equal to 1"),
        (["epochs"], r"override 'epochs': expected key=value"),
        (["--data", "nowhere"], r"nowhere: no such data set folder; make one with tools/prepare\.py"),
        (["data.cohort=nowhere.yaml"], r"nowhere\.yaml: no such file"),
        (["--resume"], r"--resume: expected --out"),
        (["--resume", "--out", "nowhere"], r"--resume: a run continues with its own settings"),
        (["--epochs", "3"], r"--epochs"),
        (["--profile", "5"], r"--profile: found 5, expected FROM,TO"),
        (["--profile", "6,5"], r"watching\.profile is 6,5, expected FROM,TO"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(pretrain, arguments, expected):
    assert re.search(expected, sentence(pretrain(*arguments)))
    assert not list(pretrain.folder.iterdir())


def test_a_missing_config_is_named(pretrain):
    assert "nowhere.yaml: no such file" in sentence(pretrain("--config", "nowhere.yaml", config=False))


def test_resuming_a_folder_without_a_run_is_refused(pretrain):
    refused = sentence(pretrain("--resume", "--out", "nowhere", config=False))
    assert "nowhere: holds no run" in refused


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.batch_size=4000", r"data\.batch_size: found 4000, expected at most the \d+ trajectories"),
        ("augmentation.segment.seconds=3", r"augmentation\.segment\.seconds: found 3 s .* at most half"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_one_sentence(pretrain, prepared, override, expected):
    assert re.search(expected, sentence(pretrain("--data", str(prepared), "--out", "run", override)))
    assert not list(pretrain.folder.iterdir())


def test_a_damaged_data_set_is_one_sentence(pretrain, prepared, tmp_path):
    shard = next(prepared.glob("train-*"))
    shard.write_bytes(shard.read_bytes()[:-10])
    refused = sentence(pretrain("--data", str(prepared), "--out", "run"))
    assert re.search(r"train-00000-of-0000\d\.tfrecord: found \d+ bytes, expected \d+", refused)
    shard.unlink()
    assert "no such file; the manifest lists it" in sentence(pretrain("--data", str(prepared), "--out", "run"))
    (prepared / "manifest.json").write_text("{")
    assert "manifest.json: cannot be read as JSON" in sentence(pretrain("--data", str(prepared), "--out", "run"))


def test_a_flipped_byte_is_named_with_its_record(pretrain, prepared):
    shard = next(prepared.glob("train-*"))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    done = pretrain("--data", str(prepared), "--out", "run")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    expected = r"train-00000-of-0000\d\.tfrecord: record \d+ is damaged \(checksum mismatch\)"
    assert re.search(expected, done.stderr.strip().splitlines()[-1])


def test_a_data_set_without_signals_asks_for_the_no_ecg_encoder(pretrain, tmp_path):
    data = make_data(tmp_path / "tabular", leads=[])
    refused = sentence(pretrain("--data", str(data.path), "--out", "run"))
    assert "has no signals, but encoder.signal asks for them; set encoder.signal=null" in refused


def test_another_cohort_in_the_data_folder_is_not_used_silently(pretrain):
    make_data(pretrain.folder / "data" / "tiny")
    cohort = pretrain.folder.parent / "tiny_cohort.yaml"
    cohort.write_text(yaml.safe_dump({**COHORT, "seed": 5}))
    assert re.search(r"data/tiny: was made with seed=0, but .* says 5", sentence(pretrain("--out", "second")))


def test_an_existing_folder_is_left_alone(pretrain):
    (pretrain.folder / "thesis").mkdir()
    (pretrain.folder / "thesis" / "draft.tex").write_text("years of work")
    assert "thesis: already exists" in sentence(pretrain("--out", "thesis"))
    assert [path.name for path in (pretrain.folder / "thesis").iterdir()] == ["draft.tex"]
    assert not (pretrain.folder / "data").exists()


@pytest.mark.slow
def test_a_nan_is_one_sentence_with_exit_code_3(pretrain):
    done = pretrain("--out", "run", "optimizer.learning_rate=1e30")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert re.search(r"the loss is nan at step \d+", done.stderr.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_end(pretrain, number):
    process = pretrain("--out", "run", "training.epochs=12", start=subprocess.Popen, start_new_session=True)
    history = pretrain.folder / "run" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not history.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert re.search(
        r"stopped in epoch \d+ after \d of \d steps, which are saved; --resume --out run continues", errors
    )
    done_before = len(history.read_text().splitlines())
    assert 1 <= done_before < 12
    resumed = pretrain("--resume", "--out", "run", config=False)
    assert resumed.returncode == 0, resumed.stderr
    assert [json.loads(line)["epoch"] for line in history.read_text().splitlines()] == list(range(1, 13))
    again = sentence(pretrain("--resume", "--out", "run", config=False))
    assert "this run is finished" in again
    fewer = sentence(pretrain("--resume", "--out", "run", "training.epochs=3", config=False))
    assert "training.epochs: found 3, expected at least the 12" in fewer
    other = sentence(pretrain("--resume", "--out", "run", "optimizer.learning_rate=1", config=False))
    assert "was started with optimizer.learning_rate=0.001, found 1.0; a resumed run may only change" in other


def test_help_is_fast_because_tensorflow_stays_out(repository):
    code = "import sys, runpy; sys.argv[1:] = ['--help']; sys.modules['tensorflow'] = sys.modules['keras'] = None;"
    for tool in ("pretrain", "prepare", "verify", "export"):
        path = str(repository / "tools" / f"{tool}.py")
        done = subprocess.run(
            [sys.executable, "-c", f"{code} runpy.run_path({path!r}, run_name='__main__')"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "usage:" in done.stdout
