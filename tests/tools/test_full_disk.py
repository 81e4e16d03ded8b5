"""A disk that takes no more: one sentence, nothing half-written, and --resume goes on when there is room."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

OWN_MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]
SMALL_DISK = """
mkdir disk && mount -t tmpfs -o size=$SIZE tmpfs disk || exit 99
"$@" $START 2> stopped.txt
echo $? > stopped_with.txt
find disk > left.txt
mount -o remount,size=100m disk
"$@" --resume || exit 98
cp -r disk kept
"""


@pytest.fixture
def command(repository, small_data, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"path": str(small_data.path)}}))
    return [sys.executable, str(repository / "tools" / "pretrain.py"), "--out"]


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).returncode,
    reason="nothing can be mounted here",
)
@pytest.mark.parametrize(
    ("size", "file"),
    [("8k", "events.out"), ("700k", r"\.partial-epoch-\d+-step-\d+\.weights\.h5")],
)
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(command, small_overrides, tmp_path, size, file):
    start = " ".join(["--config", "config.yaml", *small_overrides])
    shell = [*OWN_MOUNTS, "sh", "-c", SMALL_DISK, "sh", *command, "disk/run"]
    done = subprocess.run(shell, cwd=tmp_path, env={**os.environ, "SIZE": size, "START": start}, timeout=300)
    stopped = (tmp_path / "stopped.txt").read_text()
    assert (tmp_path / "stopped_with.txt").read_text() == "2\n", stopped
    assert "Traceback" not in stopped
    assert re.search(rf"^pretrain\.py: \S*{file}\S*: No space left on device\.$", stopped.splitlines()[-1])
    assert ".partial-" not in (tmp_path / "left.txt").read_text()
    assert done.returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "kept" / "run" / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]


@pytest.mark.slow
def test_a_folder_that_vanishes_is_one_sentence(command, small_overrides, tmp_path):
    arguments = [*command, "run", "--config", "config.yaml", *small_overrides, "training.epochs=1000"]
    process = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "run" / "checkpoints").glob("epoch-*.json")):
        pass
    (tmp_path / "run").rename(tmp_path / "gone")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in errors
    assert re.search(r"^pretrain\.py: \S*run/\S+: No such file or directory\.$", errors.splitlines()[-1])
    newest = max((tmp_path / "gone" / "checkpoints").glob("epoch-*.json"))
    weights = newest.with_suffix(".weights.h5").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == json.loads(newest.read_text())["sha256"]
