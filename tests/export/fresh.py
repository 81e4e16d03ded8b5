"""Processes that have TensorFlow, and neither tfmmcl nor Keras."""

import subprocess
import sys
import textwrap

import numpy as np

BLOCKED = 'import sys\nsys.modules["tfmmcl"] = sys.modules["keras"] = None  # importing either fails\n'
SERVE = """
import numpy as np, tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
inputs = {key: tf.constant(value) for key, value in np.load(sys.argv[2]).items()}
np.savez(sys.argv[3], **serve(**inputs))
"""


def run_fresh(code, *arguments, python=sys.executable):
    """Runs code that can import neither tfmmcl nor Keras, and returns its standard output."""
    command = [str(python), "-c", BLOCKED + textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def served(exported, inputs, folder, code=SERVE):
    """Returns what a model makes of inputs in such a process."""
    np.savez(folder / "inputs.npz", **inputs)
    run_fresh(code, exported, folder / "inputs.npz", folder / "out.npz")
    return np.load(folder / "out.npz")
