import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from fresh import run_fresh, served

from tfmmcl.export import export_run

pytestmark = pytest.mark.xdist_group("exported")

CLI = Path(sys.executable).with_name("saved_model_cli")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return export_run(trained.run, tmp_path_factory.mktemp("exported") / "model")


def test_inputs_that_do_not_fit_are_refused_in_a_sentence_by_the_file_itself(exported):
    shapes = {
        "leads": {"signals": (1, 3, 400, 4)},
        "rate": {"signals": (1, 3, 1000, 2)},  # the same four seconds at 250 Hz
        "batch": {"signals": (3, 400, 2)},
        "windows": {"structured": (1, 4, 9)},
        "features": {"statics": (1, 8)},
        "count": {"statics": (2, 9)},
    }
    code = """
    import json, tensorflow as tf
    serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
    fits = {"signals": (1, 3, 400, 2), "structured": (1, 3, 9), "statics": (1, 9)}
    said = {}
    for name, shapes in json.loads(sys.argv[2]).items():
        try:
            serve(**{key: tf.zeros(shape) for key, shape in {**fits, **shapes}.items()})
        except tf.errors.InvalidArgumentError as error:
            said[name] = str(error)
    print(json.dumps(said))
    """
    said = json.loads(run_fresh(code, exported, json.dumps(shapes)).splitlines()[-1])
    windows = "3 windows of 400 samples (4 s at 100 Hz) of 2 leads (II, V1) in mV."
    for name, found in {"leads": "3, 400, 4", "rate": "3, 1000, 2", "batch": "400, 2"}.items():
        assert f"signals: found shape (batch, {found}), expected (batch, 3, 400, 2): {windows}" in said[name]
    assert "structured: found shape (batch, 4, 9), expected (batch, 3, 9): 3 windows of 9 features" in said["windows"]
    assert "statics: found shape (batch, 8), expected (batch, 9): 9 features (sodium (mmol/L)," in said["features"]
    assert "found 1, 2, 1 trajectories, expected as many of each." in said["count"]


def test_saved_model_cli_shows_shapes_names_and_units(exported, trained):
    shown = subprocess.run([CLI, "show", "--dir", exported, "--all"], capture_output=True, text=True, check=True).stdout
    assert "shape: (-1, 3, 400, 2)" in shown
    spec = trained.data.spec
    for name, features in (("structured", spec.structured), ("statics", spec.statics)):
        for index, feature in enumerate(features):
            assert f"outputs['{name}[{index}]: {feature.name} ({feature.unit})']" in shown
    assert "outputs['signals[1]: V1 (mV, 100 Hz)']" in shown


@pytest.mark.slow
def test_saved_model_cli_runs_it(exported, trained, tmp_path):
    np.savez(tmp_path / "inputs.npz", **trained.inputs)
    given = ";".join(f"{name}={tmp_path / 'inputs.npz'}[{name}]" for name in trained.inputs)
    command = [CLI, "run", "--dir", exported, "--tag_set", "serve", "--signature_def", "serving_default"]
    done = subprocess.run([*command, "--inputs", given, "--outdir", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "embedding.npy"), trained.expected, rtol=0, atol=1e-5)


def test_describe_gives_training_means_and_the_card(exported, trained):
    described = tf.saved_model.load(exported).signatures["describe"]()
    from tfmmcl.records.verify import read_trajectories

    train = list(read_trajectories(trained.data, "train"))
    sodium = np.nanmean([t.statics[0] for t in train], dtype=float)
    rate = np.nanmean([t.structured[:, 0] for t in train], dtype=float)
    assert described["statics[0]: sodium (mmol/L)"].numpy() == pytest.approx(sodium, rel=1e-5)
    assert described["structured[0]: heart_rate_mean (bpm)"].numpy() == pytest.approx(rate, rel=1e-5)
    card = (exported / "assets.extra" / "model_card.md").read_text()
    assert described["model_card"].numpy().decode() == card


def test_compiled_by_xla_it_agrees_and_still_refuses(trained, tmp_path):
    exported = export_run(trained.run, tmp_path / "compiled", xla=True)
    code = """
    import numpy as np, tensorflow as tf
    model = tf.saved_model.load(sys.argv[1])
    serve = model.signatures["serving_default"]
    inputs = {key: tf.constant(value) for key, value in np.load(sys.argv[2]).items()}
    np.savez(sys.argv[3], **serve(**inputs))
    try:
        serve(**{**inputs, "signals": inputs["signals"][..., :1]})
        raise SystemExit("one lead was taken for two")
    except tf.errors.InvalidArgumentError as error:
        assert "3, 400, 1), expected (batch, 3, 400, 2)" in str(error), error
    """
    found = served(exported, trained.inputs, tmp_path, code)
    np.testing.assert_allclose(found["embedding"], trained.expected, rtol=0, atol=1e-5)
    assert b"_XlaMustCompile" in (exported / "saved_model.pb").read_bytes()
