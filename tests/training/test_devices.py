"""One device, two devices of one machine and two machines have to give the same results."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from tfmmcl.config import dump
from tfmmcl.errors import InputError
from tfmmcl.pipeline.batches import Batches
from tfmmcl.training.pretrain import build_pretrainer
from tfmmcl.training.start import join_workers

# Adam divides by the gradient's own size, and so turns rounding in small gradients into steps of full size: a low rate
# keeps that below the tolerance.
SETTINGS = ("optimizer.learning_rate=1e-4", "optimizer.clip_norm=0.1")

TWO_DEVICES = """
import runpy, sys
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def command(repository, small_data, small_overrides, tmp_path):
    """Returns the command line of a run in `tmp_path / name`."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"data": {"path": str(small_data.path)}}))

    def make(name, *arguments, resume=False):
        start = ["--resume"] if resume else ["--config", str(config), *small_overrides, *SETTINGS]
        tool = str(repository / "tools" / "pretrain.py")
        return [tool, "--out", str(tmp_path / name), *start, *arguments]

    return make


def start(arguments, *before):
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, *before, *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(*processes):
    """Waits for processes and returns their output; none outlives the test."""
    try:
        found = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, found):
        assert process.returncode == 0, errors
    return found


def start_workers(make):
    """Starts two workers that find each other on this machine; `make` takes further arguments."""
    with socket.socket() as one, socket.socket() as two:
        for held in (one, two):
            held.bind(("localhost", 0))
        addresses = ",".join(f"localhost:{held.getsockname()[1]}" for held in (one, two))
    return [start(make("--workers", addresses, "--worker", str(index))) for index in (0, 1)]


def assert_same_run(one, other):
    histories = [list(map(json.loads, (run / "history.jsonl").read_text().splitlines())) for run in (one, other)]
    assert len(histories[0]) == len(histories[1])
    for first, second in zip(*histories):
        for name in ("loss", "val_loss", "alignment", "val_alignment", "embedding_std", "val_embedding_std"):
            assert second[name] == pytest.approx(first[name], rel=2e-6), name
    encoders = [keras.saving.load_model(run / "encoder.keras") for run in (one, other)]
    for first, second in zip(*(encoder.weights for encoder in encoders)):
        np.testing.assert_allclose(second, first, rtol=2e-6, atol=1e-6, err_msg=first.path)


@pytest.mark.slow
def test_two_devices_take_the_gradient_step_of_one(make_settings, tmp_path):
    config = tmp_path / "resolved.yaml"
    config.write_text(dump(make_settings()))
    ((printed, _),) = finish(start([str(config)], str(Path(__file__).with_name("step_on_devices.py"))))
    figures = [[float(number) for number in line.split()] for line in printed.splitlines()]
    assert len(figures) == 2  # without and with clipping
    for moved, apart in figures:
        assert moved > 0.01
        assert apart < 1e-5 * moved


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [(), ("training.accumulate=3", "optimizer.name=lamb", "data.batch_size=6", "encoder.signal.recompute=true")],
)
def test_devices_and_workers_give_the_results_of_one_device(command, tmp_path, settings):
    finish(start(command("one", *settings)))
    finish(start(command("mirrored", "training.distribution=mirrored", *settings), "-c", TWO_DEVICES))
    assert_same_run(tmp_path / "one", tmp_path / "mirrored")
    (_, _), (printed, _) = finish(*start_workers(lambda *more: command("workers", *settings, *more)))
    assert printed == ""
    assert_same_run(tmp_path / "one", tmp_path / "workers")


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_worker_ends_the_other_and_both_resume(command, tmp_path, lost):
    history = tmp_path / "run" / "history.jsonl"
    workers = start_workers(lambda *more: command("run", "training.epochs=300", *more))
    try:
        deadline = time.monotonic() + 120
        while not (history.exists() and len(history.read_text().splitlines()) > 1) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(workers[lost].pid, signal.SIGKILL)
        left = workers[1 - lost]
        _, errors = left.communicate(timeout=60)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert left.returncode == 3, errors
    assert "Traceback" not in errors
    assert re.search(r"another worker has stopped \(\w+\); start all workers again with --resume", errors)
    done = len(history.read_text().splitlines())
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 300", f"epochs: {done + 2}"))
    finish(*start_workers(lambda *more: command("run", *more, resume=True)))
    lines = [json.loads(line)["epoch"] for line in history.read_text().splitlines()]
    assert lines == list(range(1, done + 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.batch_size=9", r"data\.batch_size: found 9, expected a multiple of the 2 devices"),
        ("training.jit_compile=true", r"training\.jit_compile: found true, expected auto or false with 2 devices"),
    ],
)
def test_settings_that_several_devices_cannot_have_are_refused(command, tmp_path, override, expected):
    process = start(command("run", "training.distribution=mirrored", override), "-c", TWO_DEVICES)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert re.search(expected, errors.strip().splitlines()[-1])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["training", "validation"])
def test_pipelines_share_each_batch_without_overlap(make_settings, small_data, split):
    settings = make_settings()

    def rows(context):
        batches = getattr(Batches(small_data, settings, context), split)()
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        one = [batch[0]["structured"].numpy() for batch in batches]
        return [np.concatenate(one[step : step + replicas]) for step in range(0, len(one), replicas)]

    whole = rows(tf.distribute.InputContext())
    parts = [rows(tf.distribute.InputContext(2, index, 4)) for index in (0, 1)]
    assert len(whole) == len(parts[0]) == len(parts[1])
    for batch, *shares in zip(whole, *parts):
        assert [len(share) for share in shares] == [4, 4]
        found = np.concatenate(shares).reshape(8, -1)
        order = [np.lexsort(np.round(item.reshape(8, -1), 5).T) for item in (batch, found)]
        np.testing.assert_array_equal(found[order[1]], batch.reshape(8, -1)[order[0]])


def test_accumulated_steps_apply_the_mean_gradient_of_their_batches(make_settings, small_data):
    settings = make_settings("training.accumulate=2", "data.batch_size=4")
    keras.utils.set_random_seed(0)
    trainer = build_pretrainer(settings, small_data)
    trainer.compile(optimizer=keras.optimizers.SGD(0.1))
    start = [variable.numpy() for variable in trainer.trainable_variables]
    batches = list(Batches(small_data, settings).training().take(4))
    gradients = []
    for views in batches[:2]:
        with tf.GradientTape() as tape:
            stacked = {key: tf.concat([view[key] for view in views], 0) for key in views[0]}
            embeddings, outputs = trainer(stacked, training=True)
            loss = trainer.objective(tf.split(embeddings, 2), tf.split(outputs, 2))["loss"]
        gradients.append(tape.gradient(loss, trainer.trainable_variables))
    trainer.make_train_function()
    trainer.train_function(iter([batches[0]]))
    for variable, before in zip(trainer.trainable_variables, start):
        np.testing.assert_array_equal(variable, before)
    trainer.train_function(iter([batches[1]]))
    for variable, before, first, second in zip(trainer.trainable_variables, start, *gradients):
        expected = before - 0.1 * (first + second) / 2
        np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=1e-5)
    assert int(trainer.optimizer.iterations.numpy()) == 1


def test_an_epoch_has_whole_accumulations(make_settings, small_data):
    steps = Batches(small_data, make_settings()).steps_per_epoch()
    assert Batches(small_data, make_settings(f"training.accumulate={steps - 1}")).steps_per_epoch() == steps - 1
    with pytest.raises(InputError, match=rf"training.accumulate: found {steps + 1}, expected at most the {steps}"):
        Batches(small_data, make_settings(f"training.accumulate={steps + 1}")).steps_per_epoch()


@pytest.mark.parametrize(
    ("workers", "index", "expected"),
    [
        ("a:1,b", 0, r"--workers: found 'b', expected HOST:PORT,HOST:PORT"),
        ("a:1,b:2", 2, r"--worker: found 2, expected 0 to 1"),
        ("a:1,b:2", None, r"--worker: found none, expected 0 to 1"),
    ],
)
def test_a_wrong_list_of_workers_is_named(monkeypatch, workers, index, expected):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(InputError, match=expected):
        join_workers(workers, index)


def test_a_slurm_task_finds_its_place(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("TF_CONFIG", "")
    join_workers("a:1,b:2", None)
    assert json.loads(os.environ["TF_CONFIG"]) == {
        "cluster": {"worker": ["a:1", "b:2"]},
        "task": {"type": "worker", "index": 1},
    }
