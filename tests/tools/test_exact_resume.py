"""A run that was killed, wherever that was, and resumed, against one that was left alone: the same to the last bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

SETTINGS = ("training.epochs=3", "training.deterministic=true", "training.checkpoint_minutes=0", "data.batch_size=8")
TIMES = ("seconds", "trajectories_per_second", "input_wait_ms", "input_wait_share")

KILLED_WHILE_SAVING = """
import os, runpy, sys
from tfmmcl.training import run_directory
number, script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
replaced, saved = os.replace, []
def replace(source, target):
    if "checkpoints" in str(target):
        saved.append(target)
        if len(saved) == int(number):
            with open(source, "r+b") as file:
                file.truncate(os.path.getsize(source) // 2)
            os._exit(137)
    replaced(source, target)
os.replace = replace
runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def undisturbed(pretrain, whole):
    """The run that is left alone; once for all tests."""
    if not whole.exists():
        done = pretrain("--out", str(whole), *SETTINGS)
        assert done.returncode == 0, done.stderr
    return whole


def shown(run):
    """Returns every scalar and picture that TensorBoard shows, but for what a clock says, in order."""
    found = []
    for file in sorted((run / "tensorboard").rglob("events*"), key=lambda file: (file.parent.name, file.name)):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name in ("scalars", "images") and "speed/" not in value.tag:
                    array = tf.make_ndarray(value.tensor).tolist()
                    folder = file.parent.relative_to(run / "tensorboard")
                    found.append((str(folder), value.tag, event.step, array))
    return sorted(found, key=lambda item: item[:3])


def projection(run):
    files = (file for file in (run / "tensorboard").iterdir() if file.is_file() and "events" not in file.name)
    return {file.name: file.read_bytes() for file in files}


def history(run):
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def state(run):
    """Returns every array of the last checkpoint: weights, optimizer, running means."""
    newest = max((run / "checkpoints").glob("*.weights.h5"))
    found = {}
    with h5py.File(newest) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return newest.name, found


def assert_same(run, expected):
    assert history(run) == history(expected)
    assert shown(run) == shown(expected)
    assert projection(run) == projection(expected)
    assert len(projection(run)) == 3
    (name, arrays), (expected_name, expected_arrays) = state(run), state(expected)
    assert name == expected_name
    assert arrays.keys() == expected_arrays.keys()
    for key, value in expected_arrays.items():
        np.testing.assert_array_equal(arrays[key], value, err_msg=key)
    encoders = [keras.saving.load_model(folder / "encoder.keras").get_weights() for folder in (run, expected)]
    for one, other in zip(*encoders):
        np.testing.assert_array_equal(one, other)


def resume_to_the_end(pretrain):
    done = pretrain("--resume", "--out", "run", config=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_where_the_undisturbed_run_does(pretrain, undisturbed):
    seed = random.randrange(2**32)
    print("seed", seed)  # shown if the test fails
    chance = random.Random(seed)
    run = pretrain.folder / "run"
    process = pretrain("--out", "run", *SETTINGS, start=subprocess.Popen)
    for _ in range(2):
        deadline = time.monotonic() + 120
        before = len(list(run.glob("checkpoints/*")))
        while len(list(run.glob("checkpoints/*.json"))) <= min(before, 1) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.7))
        process.kill()
        process.communicate()
        process = pretrain("--resume", "--out", "run", config=False, start=subprocess.Popen)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert_same(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("write", [1, 2, 5, 8])
def test_killed_while_a_checkpoint_is_written(pretrain, undisturbed, repository, tmp_path, write):
    script = str(repository / "tools" / "pretrain.py")
    settings = [*pretrain.small, "--out", "run", *SETTINGS]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(write), script, *settings],
        cwd=pretrain.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 137, done.stderr
    resume_to_the_end(pretrain)
    assert_same(pretrain.folder / "run", undisturbed)
    assert not list((pretrain.folder / "run").rglob(".partial*"))


@pytest.mark.slow
def test_from_every_checkpoint(pretrain, undisturbed):
    """Every position a run can be resumed from: within an epoch, at its last step, and between two epochs."""
    done = pretrain("--out", "all", *SETTINGS, "training.checkpoints=1000")
    assert done.returncode == 0, done.stderr
    everything = pretrain.folder / "all"
    positions = sorted((everything / "checkpoints").glob("*.json"))
    assert len(positions) > 9
    for position in positions[1::4]:
        shutil.rmtree(pretrain.folder / "run", ignore_errors=True)
        shutil.copytree(everything, pretrain.folder / "run")
        (pretrain.folder / "run" / "result.json").unlink()
        for later in positions[positions.index(position) + 1 :]:
            (pretrain.folder / "run" / "checkpoints" / later.name).unlink()
        resume_to_the_end(pretrain)
        assert_same(pretrain.folder / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_and_goes_on_exactly(pretrain, undisturbed, number):
    settings = [setting for setting in SETTINGS if "minutes" not in setting]
    process = pretrain("--out", "run", *settings, start=subprocess.Popen)
    run = pretrain.folder / "run"
    deadline = time.monotonic() + 120
    while not (run / "config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(random.uniform(4, 9))
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    if process.returncode:
        assert process.returncode == 128 + number, errors
        resume_to_the_end(pretrain)
    assert_same(run, undisturbed)
