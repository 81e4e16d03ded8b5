import os
import runpy
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from tfmmcl.errors import InputError
from tfmmcl.evaluation.embed import embed
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.verify import read_trajectories

STRUCTURED, STATICS, SIGNALS = (None, 3, 9), (None, 9), (None, 3, 400, 2)
SHAPES = {"structured": STRUCTURED, "statics": STATICS, "signals": SIGNALS}


def observed_sum(x, axes):
    return tf.reduce_sum(tf.where(tf.math.is_nan(x), 0.0, x), axes)


def save_model(path, shapes, *, signature="serving_default"):
    """A model whose outputs are easy to know: sums over each input in turn, scaled by a variable."""
    module = tf.Module()
    module.scale = tf.Variable(2.0)

    def serve(**inputs):
        sums = [observed_sum(inputs[name], list(range(1, len(shapes[name])))) for name in sorted(inputs)]
        return {"embedding": module.scale * tf.stack(sums, axis=1), "probability": tf.sigmoid(sums[0])}

    specs = {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in shapes.items()}
    module.serve = tf.function(serve).get_concrete_function(**specs)
    tf.saved_model.save(module, str(path), signatures={signature: module.serve})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "saved_model", SHAPES)


@pytest.fixture(scope="module")
def no_ecg_model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("no_ecg") / "saved_model", {"statics": STATICS, "structured": STRUCTURED})


@pytest.fixture
def command(repository, tmp_path):
    def run(*arguments):
        arguments = [sys.executable, str(repository / "tools" / "embed.py"), *map(str, arguments)]
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        assert "Traceback" not in done.stderr
        return done

    return run


def sentence(done):
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("embed.py: ")]
    return line


def expected_embedding(trajectory, names):
    return [2 * np.nansum(getattr(trajectory, name), dtype=float) for name in sorted(names)]


def test_the_command_writes_every_trajectorys_outputs_labels_and_split(command, model, small_data, tmp_path):
    done = command("--model", model, "--data", small_data.path, "--out", "embeddings.parquet", "--batch-size", "7")
    assert done.returncode == 0, done.stderr
    count = sum(small_data.count(split) for split in ("train", "validation", "test"))
    assert f"embeddings.parquet: {count} trajectories, embedding Array(Float32, shape=(3,)), probability" in done.stdout
    found = pl.read_parquet(tmp_path / "embeddings.parquet")
    tasks = [f"task/{task.name}" for task in small_data.spec.tasks]
    assert found.columns == ["trajectory", "patient", "split", *tasks, "embedding", "probability"]
    assert found.schema["embedding"] == pl.Array(pl.Float32, 3)
    rows = iter(found.iter_rows(named=True))
    for split in ("train", "validation", "test"):
        for trajectory in read_trajectories(small_data, split):
            row = next(rows)
            assert (row["trajectory"], row["patient"], row["split"]) == (trajectory.name, trajectory.patient, split)
            for task, label in trajectory.labels.items():
                assert row[f"task/{task}"] == (None if np.isnan(label) else label)
            np.testing.assert_allclose(row["embedding"], expected_embedding(trajectory, SHAPES), rtol=1e-3, atol=0.05)
    assert next(rows, None) is None
    assert found[tasks].null_count().sum_horizontal().item() > 0
    assert os.listdir(tmp_path) == ["embeddings.parquet"]


def test_a_model_without_ecg_reads_no_signals(no_ecg_model, small_data, monkeypatch):
    monkeypatch.setattr("tfmmcl.records.schema.dequantise", lambda *_: pytest.fail("a signal was decoded"))
    found = embed(no_ecg_model, small_data, ["test"])
    trajectories = list(read_trajectories_without_signals(small_data))
    assert found["trajectory"].to_list() == [trajectory.name for trajectory in trajectories]
    assert set(found["split"]) == {"test"}
    expected = [expected_embedding(trajectory, ["statics", "structured"]) for trajectory in trajectories]
    np.testing.assert_allclose(found["embedding"].to_numpy(), expected, rtol=1e-4)


def read_trajectories_without_signals(data):
    from tfmmcl.evaluation.tabular import without_signals

    return read_trajectories(without_signals(data), "test")


def test_a_damaged_record_leaves_no_file(repository, no_ecg_model, small_data, tmp_path, monkeypatch):
    data = shutil.copytree(small_data.path, tmp_path / "data")
    shard = sorted(data.glob("test-*.tfrecord"))[-1]
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    main = runpy.run_path(str(repository / "tools" / "embed.py"))["main"]
    arguments = ["--model", no_ecg_model, "--data", data, "--out", tmp_path / "embeddings.parquet"]
    monkeypatch.setattr(sys, "argv", ["embed.py", *map(str, arguments)])
    with pytest.raises(InputError, match=r"is damaged \(checksum mismatch\)"):
        main()
    assert os.listdir(tmp_path) == ["data"]


def test_what_is_there_or_cannot_be_written_is_said_at_once(command, small_data, tmp_path):
    (tmp_path / "there.parquet").write_text("precious")
    arguments = ("--model", "no", "--data", small_data.path, "--out")
    assert sentence(command(*arguments, "there.parquet")).startswith("embed.py: there.parquet: already exists;")
    assert (tmp_path / "there.parquet").read_text() == "precious"
    assert sentence(command(*arguments, "no/new.parquet")).startswith("embed.py: no: no such folder;")
    assert sentence(command(*arguments, "new.parquet", "--batch-size", "0")).startswith("embed.py: --batch-size: found")
    assert sentence(command("--model", "no", "--data", "no", "--out", "x")).startswith("embed.py: no: no such data set")


def test_what_is_no_model_is_refused(small_data, model, tmp_path):
    with pytest.raises(InputError, match=r"none: holds no saved_model\.pb; expected a SavedModel"):
        embed(tmp_path / "none", small_data)
    damaged = shutil.copytree(model, tmp_path / "damaged")
    (damaged / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="damaged: cannot be loaded as a SavedModel"):
        embed(damaged, small_data)
    (damaged / "saved_model.pb").write_bytes((model / "saved_model.pb").read_bytes())
    shutil.rmtree(damaged / "variables")
    with pytest.raises(InputError, match="damaged: cannot be loaded as a SavedModel"):
        embed(damaged, small_data)
    with pytest.raises(InputError, match="other: has no signature serving_default"):
        embed(save_model(tmp_path / "other", {"statics": STATICS}, signature="other"), small_data)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"structured": (None, 4, 9)}, r"takes 'structured' of shape \(4, 9\), expected \(3, 9\) as"),
        ({"statics": (None, 2)}, r"takes 'statics' of shape \(2,\), expected \(9,\) as"),
        ({"notes": (None, 2)}, "takes an input 'notes'; expected none but structured, statics, signals"),
    ],
)
def test_a_model_of_other_inputs_is_refused(shapes, says, small_data, tmp_path):
    with pytest.raises(InputError, match=says):
        embed(save_model(tmp_path / "model", shapes), small_data)


def test_a_model_with_ecg_needs_signals(model, small_data):
    from tfmmcl.evaluation.tabular import without_signals

    with pytest.raises(InputError, match=r"takes signals, which .* does not have; expected a No-ECG model"):
        embed(model, without_signals(small_data))


def test_without_trajectories_there_is_nothing_to_embed(no_ecg_model, small_data):
    shards = [shard for shard in small_data.manifest.shards if shard.split != "test"]
    data = DataSet(small_data.path, small_data.manifest.model_copy(update={"shards": shards}))
    with pytest.raises(InputError, match="has no trajectories in test"):
        embed(no_ecg_model, data, ["test"])
    assert set(embed(no_ecg_model, data)["split"]) == {"train", "validation"}
