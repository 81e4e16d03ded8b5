"""Checks that TensorFlow 2.15, the last one for tensorflow-addons, gives what this TensorFlow gives, for a SavedModel.

    python tests/export/old_tensorflow.py runs/demo-001/saved_model --python python3.11

builds a virtual environment for it (a minute; Python 3.9 to 3.11), or uses the one that --venv names, and prints the
largest difference over trajectories that are made up, with values missing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REQUIREMENT = "tensorflow-cpu==2.15.*"
CODE = """
import sys
sys.modules["tfmmcl"] = None  # importing it fails
import numpy as np, tensorflow as tf
assert not sys.argv[4] or tf.__version__.startswith(sys.argv[4]), tf.__version__
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serving_default"]
inputs = dict(np.load(sys.argv[2]))
np.savez(sys.argv[3], **serve(**{name: tf.constant(value) for name, value in inputs.items()}))
try:
    serve(**{name: tf.constant(value[:, :-1]) for name, value in inputs.items()})
except tf.errors.InvalidArgumentError as error:
    assert "expected (batch, " in str(error), error
else:
    raise SystemExit("inputs that are too short were taken")
assert any("statics" in name for name in model.signatures["describe"]())
"""


def environment(folder: Path, python: str) -> Path:
    """Returns the Python of an environment with the old TensorFlow, which is made if it is not there."""
    interpreter = folder / "bin" / "python"
    if not interpreter.exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", REQUIREMENT], check=True)
    return interpreter


def made_up(shapes: dict[str, list[int]], number: int = 5) -> dict[str, np.ndarray]:
    """Returns a batch of noise in which a tenth is missing."""
    rng = np.random.default_rng(0)
    batch = {name: 50 * rng.standard_normal((number, *shape)) for name, shape in shapes.items()}
    if "signals" in batch:
        batch["signals"] /= 50  # millivolts
    for values in batch.values():
        values[rng.random(values.shape) < 0.1] = np.nan
    return {name: values.astype(np.float32) for name, values in batch.items()}


def difference(model: Path, old: Path) -> float:
    """Returns the largest difference between the outputs of two TensorFlows; `old` is the other one's Python."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(model)).signatures["serving_default"].structured_input_signature[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "inputs.npz", **made_up({key: spec.shape[1:] for key, spec in signature.items()}))
        outputs = []
        for python, version in ((sys.executable, ""), (old, "2.15.")):
            out = folder / f"out{len(outputs)}.npz"
            subprocess.run([python, "-c", CODE, model, folder / "inputs.npz", out, version], check=True)
            outputs.append(dict(np.load(out)))
    new, before = outputs
    assert new.keys() == before.keys()
    assert all(np.isfinite(values).all() and values.std() > 0 for values in new.values())
    return max(float(np.abs(new[key] - before[key]).max()) for key in new)


def main() -> None:
    """Parses the command line and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the SavedModel's folder")
    parser.add_argument("--venv", type=Path, help="where the environment is, or is to be made and kept")
    parser.add_argument("--python", default=sys.executable, help="what makes it (default: this Python)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = difference(arguments.model, environment(arguments.venv or Path(folder) / "venv", arguments.python))
    print(f"TensorFlow 2.15 and this one differ by at most {found:.2g}")
    if not found <= 1e-5:
        sys.exit("expected at most 1e-05")


if __name__ == "__main__":
    main()
