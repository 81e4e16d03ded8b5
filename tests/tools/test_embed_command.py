import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from tfmmcl.errors import InputError
from tfmmcl.evaluation.embed import embed
from tfmmcl.evaluation.served import Served
from tfmmcl.evaluation.sources import DataSetSource, JsonLines
from tfmmcl.evaluation.tabular import without_signals
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
    def run(*arguments, code=None, start=subprocess.run, **options):
        tool = str(repository / "tools" / "embed.py")
        program = (
            [tool] if code is None else ["-c", f"{code}\nimport runpy\nrunpy.run_path({tool!r}, {{}}, '__main__')"]
        )
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": tmp_path, **options}
        done = start(
            [sys.executable, *program, *map(str, arguments)],
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            **options,
        )
        assert start is not subprocess.run or "Traceback" not in done.stderr
        return done

    return run


def sentence(done):
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("embed.py: ")]
    return line


def embed_data(model, data, out):
    """Embeds a data set, and returns the table."""
    served = Served(model)
    served.check(data)
    embed(served, DataSetSource(data), out, batch_size=16)
    return pl.read_parquet(out)


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


def test_a_model_without_ecg_parses_no_signals(no_ecg_model, small_data, tmp_path, monkeypatch):
    monkeypatch.setattr("tfmmcl.evaluation.sources.dequantise", lambda *_: pytest.fail("a signal was decoded"))
    parsed = []
    real = tf.io.parse_example
    monkeypatch.setattr(tf.io, "parse_example", lambda record, schema: (parsed.append(schema), real(record, schema))[1])
    found = embed_data(no_ecg_model, small_data, tmp_path / "x.parquet").filter(split="test")
    assert parsed
    assert not any(name.startswith("signals") for schema in parsed for name in schema)
    trajectories = list(read_trajectories(without_signals(small_data), "test"))
    assert found["trajectory"].to_list() == [trajectory.name for trajectory in trajectories]
    expected = [expected_embedding(trajectory, ["statics", "structured"]) for trajectory in trajectories]
    np.testing.assert_allclose(found["embedding"].to_numpy(), expected, rtol=1e-4)


def test_a_damaged_record_leaves_no_file_and_once_it_is_repaired_the_rest_is_done(
    repository, no_ecg_model, small_data, tmp_path, monkeypatch
):
    data = shutil.copytree(small_data.path, tmp_path / "data")
    shard = sorted(data.glob("test-*.tfrecord"))[-1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    main = runpy.run_path(str(repository / "tools" / "embed.py"))["main"]
    arguments = ["--model", no_ecg_model, "--data", data, "--out", tmp_path / "embeddings.parquet"]
    monkeypatch.setattr(sys, "argv", ["embed.py", *map(str, arguments)])
    with pytest.raises(InputError, match=rf"{shard.name}: record \d+ is damaged \(checksum mismatch\)"):
        main()
    assert not (tmp_path / "embeddings.parquet").exists()
    shard.write_bytes(content)
    computed = []
    real = Served.__call__
    monkeypatch.setattr(Served, "__call__", lambda self, x: (computed.append(len(x["statics"])), real(self, x))[1])
    main()
    total = DataSetSource(small_data).total
    assert 0 < sum(computed) < total
    embed_data(no_ecg_model, small_data, tmp_path / "whole.parquet")
    assert pl.read_parquet(tmp_path / "embeddings.parquet").height == total
    assert {path.name for path in tmp_path.iterdir()} == {"data", "embeddings.parquet", "whole.parquet"}


def as_line(trajectory, **changes):
    """A trajectory as a line of JSON, with null for what is missing."""

    def plain(values):
        return [plain(value) for value in values] if isinstance(values, list) else None if values != values else values

    row = {"patient": trajectory.patient, "trajectory": trajectory.name}
    row |= {name: plain(getattr(trajectory, name).tolist()) for name in SHAPES}
    return json.dumps(row | changes)


@pytest.fixture(scope="module")
def lines(small_data):
    return [as_line(trajectory, split="test") for trajectory in read_trajectories(small_data, "test")]


@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.slow), True])
def test_lines_of_json_give_what_the_data_set_gives(command, model, small_data, lines, tmp_path, stream):
    (tmp_path / "lines.jsonl").write_text("\n\n".join(lines) + "\n")
    with open(tmp_path / "lines.jsonl") as file:
        done = command("--model", model, "--jsonl", "-" if stream else "lines.jsonl", "--out", "x.parquet", stdin=file)
    assert done.returncode == 0, done.stderr
    found = pl.read_parquet(tmp_path / "x.parquet")
    assert found.columns == ["trajectory", "patient", "split", "embedding", "probability"]
    expected = embed_data(model, small_data, tmp_path / "y.parquet").filter(split="test")
    assert found["trajectory"].to_list() == expected["trajectory"].to_list()
    np.testing.assert_allclose(found["embedding"].to_numpy(), expected["embedding"].to_numpy(), rtol=1e-5, atol=1e-4)
    assert done.stdout.startswith(f"x.parquet: {len(lines)} trajectories, embedding Array(Float32, shape=(3,)), ")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda line: line[:-2], r"cannot be read as JSON \("),
        (lambda line: "[1]", "found a list, expected an object with trajectory, patient, signals, structured, statics"),
        (lambda line: line.replace('"statics"', '"static"'), "has an unknown key 'static'; did you mean 'statics'?"),
        (lambda line: line.replace('"patient"', '"split"', 1), "'patient' is null, expected an id in quotation marks"),
        (lambda line: changed(line, statics=[1.0] * 8), r"'statics' has shape \(8,\), expected \(9,\)"),
        (lambda line: changed(line, statics=["140"] + [1.0] * 8), "'statics' holds \"140\", expected numbers and null"),
        (lambda line: changed(line, statics=[True] + [None] * 8), "'statics' holds true, expected numbers and null"),
        (lambda line: changed(line, statics=[1e300] + [None] * 8), "'statics' holds an infinite value"),
        (lambda line: changed(line, structured=[[1.0], [1.0, 2.0]]), "'structured' has rows of different lengths"),
        (
            lambda line: changed(line, split="training"),
            "'split' is \"training\", expected one of train, validation",
        ),
    ],
)
def test_a_bad_line_is_one_sentence_with_its_number_and_what_came_before_is_kept(model, lines, tmp_path, change, says):
    served, out = Served(model), tmp_path / "x.parquet"
    bad = [*lines[:3], "", change(lines[3]), *lines[4:]]
    with pytest.raises(InputError, match=rf"^lines: line 5: {says}"):
        embed(served, JsonLines([f"{line}\n".encode() for line in bad], "lines"), out, batch_size=2)
    assert not out.exists()
    whole = [f"{line}\n".encode() for line in lines]
    made = embed(served, JsonLines(whole, "lines"), out, batch_size=2)
    assert (made.before, made.trajectories) == (3, len(lines))


def changed(line, **changes):
    return json.dumps(json.loads(line) | changes)


def test_other_lines_than_those_begun_with_are_refused(model, lines, tmp_path):
    served, out = Served(model), tmp_path / "x.parquet"
    encoded = [f"{line}\n".encode() for line in lines]
    with pytest.raises(InputError, match="line 4"):
        embed(served, JsonLines([*encoded[:3], b"?\n"], "lines"), out, batch_size=2)
    with pytest.raises(InputError, match="its first 3 trajectories are not those that were embedded before"):
        embed(served, JsonLines(encoded[::-1], "lines"), out, batch_size=2)
    with pytest.raises(InputError, match="found 2 trajectories, expected the 3 embedded before"):
        embed(served, JsonLines(encoded[:2], "lines"), out, batch_size=2)
    with pytest.raises(InputError, match="there are no trajectories to embed"):
        embed(served, JsonLines([b"\n"], "lines"), tmp_path / "empty.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_stream_goes_on_to_the_same_file(command, model, lines, tmp_path, how):
    arguments = ("--model", model, "--jsonl", "-", "--batch-size", "2", "--out")
    text = "".join(f"{line}\n" for line in lines)
    (tmp_path / "lines.jsonl").write_text(text)
    with open(tmp_path / "lines.jsonl") as file:
        assert command(*arguments, "whole.parquet", stdin=file).returncode == 0
    # Parts of four rows, so that a few lines make some.
    code = "import tfmmcl.evaluation.embed as module\nmodule.PART_ROWS = 4"
    process = command(*arguments, "x.parquet", code=code, start=subprocess.Popen, stdin=subprocess.PIPE)
    process.stdin.write("".join(f"{line}\n" for line in lines[:9]))
    process.stdin.flush()
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob(".x.parquet.partial/0*.parquet"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate()
    assert process.returncode == (130 if how == signal.SIGTERM else -9)
    assert not (tmp_path / "x.parquet").exists()
    with open(tmp_path / "lines.jsonl") as file:
        done = command(*arguments, "x.parquet", stdin=file)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"lines.jsonl", "x.parquet", "whole.parquet"}


def test_a_data_set_is_gone_on_with_in_the_middle_of_a_shard(model, small_data, tmp_path, monkeypatch):
    whole, source = tmp_path / "whole.parquet", DataSetSource(small_data)
    embed(Served(model), source, whole, batch_size=4)
    for calls in (1, 7, 15):
        served, out = Served(model), tmp_path / f"{calls}.parquet"
        real, left = Served.__call__, [calls]

        def stopping(self, inputs, real=real, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(self, inputs)

        with monkeypatch.context() as patch:
            patch.setattr(Served, "__call__", stopping)
            with pytest.raises(KeyboardInterrupt):
                embed(served, source, out, batch_size=4)
        assert embed(served, source, out, batch_size=4).before == 4 * calls
        assert out.read_bytes() == whole.read_bytes()


def test_another_model_begins_anew(model, no_ecg_model, small_data, tmp_path, monkeypatch):
    out = tmp_path / "x.parquet"
    with monkeypatch.context() as patch:
        patch.setattr("tfmmcl.evaluation.parts.Parts.publish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            embed(Served(model), DataSetSource(small_data), out)
    made = embed(Served(no_ecg_model), DataSetSource(small_data), out)
    assert made.before == 0
    assert pl.read_parquet(out)["embedding"].dtype == pl.Array(pl.Float32, 2)


def test_what_is_there_or_cannot_be_written_is_said_at_once(command, small_data, tmp_path):
    (tmp_path / "there.parquet").write_text("precious")
    arguments = ("--model", "no", "--data", small_data.path, "--out")
    assert sentence(command(*arguments, "there.parquet")).startswith("embed.py: there.parquet: already exists;")
    assert (tmp_path / "there.parquet").read_text() == "precious"
    assert sentence(command(*arguments, "no/new.parquet")).startswith("embed.py: no: no such folder;")
    assert sentence(command(*arguments, "new.parquet", "--batch-size", "0")).startswith("embed.py: --batch-size: found")
    assert sentence(command("--model", "no", "--data", "no", "--out", "x")).startswith("embed.py: no: no such data set")
    assert "one of the arguments --data --jsonl is required" in sentence(command("--model", "no", "--out", "x"))
    assert "no.jsonl: No such file" in sentence(command("--model", "no", "--jsonl", "no.jsonl", "--out", "x"))


def test_what_is_no_model_is_refused(small_data, model, tmp_path):
    with pytest.raises(InputError, match=r"none: holds no saved_model\.pb; expected a SavedModel"):
        Served(tmp_path / "none")
    damaged = shutil.copytree(model, tmp_path / "damaged")
    (damaged / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="damaged: cannot be loaded as a SavedModel"):
        Served(damaged)
    (damaged / "saved_model.pb").write_bytes((model / "saved_model.pb").read_bytes())
    shutil.rmtree(damaged / "variables")
    with pytest.raises(InputError, match="damaged: cannot be loaded as a SavedModel"):
        Served(damaged)
    with pytest.raises(InputError, match="other: has no signature serving_default"):
        Served(save_model(tmp_path / "other", {"statics": STATICS}, signature="other"))


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"structured": (None, 4, 9)}, r"takes 'structured' of shape \(4, 9\), expected \(3, 9\) as"),
        ({"statics": (None, 2)}, r"takes 'statics' of shape \(2,\), expected \(9,\) as"),
        ({"notes": (None, 2)}, "takes an input 'notes'; expected none but signals, structured, statics"),
    ],
)
def test_a_model_of_other_inputs_is_refused(shapes, says, small_data, tmp_path):
    with pytest.raises(InputError, match=says):
        Served(save_model(tmp_path / "model", shapes)).check(small_data)


def test_a_model_with_ecg_needs_signals(model, small_data):
    with pytest.raises(InputError, match=r"takes signals, which .* does not have; expected a No-ECG model"):
        Served(model).check(without_signals(small_data))


def test_splits_without_trajectories_are_left_out(no_ecg_model, small_data, tmp_path):
    shards = [shard for shard in small_data.manifest.shards if shard.split != "test"]
    data = DataSet(small_data.path, small_data.manifest.model_copy(update={"shards": shards}))
    assert set(embed_data(no_ecg_model, data, tmp_path / "x.parquet")["split"]) == {"train", "validation"}
    data = DataSet(small_data.path, small_data.manifest.model_copy(update={"shards": []}))
    with pytest.raises(InputError, match="there are no trajectories to embed"):
        embed_data(no_ecg_model, data, tmp_path / "y.parquet")
