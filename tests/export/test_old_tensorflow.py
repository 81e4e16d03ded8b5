import os
import re
import shutil
import subprocess
import sys

import pytest

from tfmmcl.export import export_run


def suitable_python():
    """Returns a Python that TensorFlow 2.15 can be installed for, or None."""
    for name in (sys.executable, "python3.11", "python3.10", "python3.9"):
        path = shutil.which(name)
        if path is None:
            continue
        done = subprocess.run([path, "-c", "import sys, venv; print(*sys.version_info[:2])"], capture_output=True)
        if done.returncode == 0 and (3, 9) <= tuple(map(int, done.stdout.split())) <= (3, 11):
            return path
    return None


@pytest.mark.slow
@pytest.mark.parametrize("xla", [False, True])
def test_tensorflow_2_15_gives_the_same(trained, repository, tmp_path, tmp_path_factory, xla):
    python = suitable_python()
    if python is None:
        pytest.skip("no Python 3.9 to 3.11, which TensorFlow 2.15 needs")
    exported = export_run(trained.run, tmp_path / "model", xla=xla)
    kept = os.environ.get("TFMMCL_TEST_OLD_TENSORFLOW") or tmp_path_factory.getbasetemp() / "old_tensorflow"
    command = [sys.executable, repository / "tests" / "export" / "old_tensorflow.py", exported]
    done = subprocess.run(
        [*command, "--venv", kept, "--python", python], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"differ by at most (\S+)", done.stdout)[1]) <= 1e-5
