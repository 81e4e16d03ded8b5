"""The harnesses beside this file, briefly; README's table is from their longer runs."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
SEED = random.randrange(2**32)


def harness(name, *arguments):
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--seed", str(SEED), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5000:]}"
    return done.stdout


@pytest.mark.slow
def test_mutated_files_are_read_or_refused_in_one_sentence():
    table = harness("mutations", "--inputs", "50")
    assert f"seed {SEED}" in table
    assert "| all | 350 |" in table


@pytest.mark.slow
@pytest.mark.parametrize("command", ["prepare", "pretrain"])
def test_killed_commands_end_like_undisturbed_ones(command):
    table = harness("kills", "--kills", "2", "--only", command)
    assert f"| `{command}.py` | " in table


def test_mutations_are_found_out_if_a_reader_fails(monkeypatch, tmp_path):
    import mutations

    file = tmp_path / "file"
    file.write_text("sound")

    def check():
        if file.read_text(errors="replace") != "sound":
            raise RuntimeError("a traceback")

    monkeypatch.setattr(mutations, "readers", lambda folder: {"file": (file, check)})
    assert any("a traceback" in problem for problem in mutations.run(20, 1, show=False))
