import json
import subprocess
import sys

import numpy as np
import pytest
from fresh import served

from tfmmcl.export import export_litert

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("exported")]

LITE = """
import warnings
import numpy as np, tensorflow as tf
warnings.simplefilter("ignore")
interpreter = tf.lite.Interpreter(sys.argv[1])
run = interpreter.get_signature_runner("serving_default")
inputs = np.load(sys.argv[2])
rows = range(len(inputs["statics"]))
made = [run(**{key: inputs[key][row : row + 1] for key in inputs.files})["embedding"][0] for row in rows]
operations = [operation["op_name"] for operation in interpreter._get_ops_details()]
np.savez(sys.argv[3], embedding=made, operations=operations)
"""


@pytest.fixture(scope="module")
def converted(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("litert")
    return {kind: export_litert(trained.run, folder / str(kind), quantize=kind) for kind in (None, "int8")}


def test_in_a_fresh_process_float32_agrees_with_keras(converted, trained, tmp_path):
    found = served(converted[None].path / "model.tflite", trained.inputs, tmp_path, LITE)
    np.testing.assert_allclose(found["embedding"], trained.expected, rtol=0, atol=1e-5)
    assert not [name for name in found["operations"] if name.startswith("Flex")]
    assert "CONV_2D" in found["operations"]


def test_what_int8_costs_is_as_reported(converted, trained, tmp_path):
    int8 = converted["int8"]
    path = int8.path / "model.tflite"
    error = np.abs(served(path, trained.inputs, tmp_path, LITE)["embedding"] - trained.expected)
    assert int8.split == "test"
    assert int8.compared == len(trained.expected)
    largest, share = int8.errors["embedding"]
    assert 1e-5 < error.max() < 0.2
    assert largest == pytest.approx(error.max(), rel=0.02)
    assert share == pytest.approx(error.max() / trained.expected.std(axis=0).mean(), rel=0.02)
    assert int8.size == path.stat().st_size < 0.7 * converted[None].size
    card = (int8.path / "model_card.md").read_text()
    assert f"int8 weights, {int8.size:,} bytes; on {int8.compared} trajectories of the test split" in card


@pytest.mark.slow
def test_the_command_reports_it_and_refuses_what_makes_no_sense(trained, repository, tmp_path):
    def export(*arguments):
        command = [sys.executable, str(repository / "tools" / "export.py"), str(trained.run.path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    done = export("--out", "small", "--format", "litert", "--quantize", "int8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small: int8 weights, ")
    assert {path.name for path in (tmp_path / "small").iterdir()} == {
        *("model.tflite", "model_card.md", "manifest.json", "config.yaml"),
    }
    assert json.loads((tmp_path / "small" / "manifest.json").read_text())["fingerprint"] == trained.data.fingerprint
    for arguments in (("--quantize", "int8"), ("--format", "litert", "--xla")):
        refused = export("--out", "other", *arguments)
        assert refused.returncode == 2
        assert f"{arguments[-1] if '--xla' in arguments else '--quantize'}: needs --format" in refused.stderr
    assert "small: already exists" in export("--out", "small").stderr
    assert not (tmp_path / "other").exists()
