"""prepare.py on raw files: what a user sees, and what must never leave."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from small_hospital import TREE, write_events, write_record

HOUR = 3600


def rows(patients):
    for number in range(patients):
        name = f"patient-{4711 + number}"
        yield name, 0, "IN", None
        yield name, 60, "Na", 140 + number % 5
        for minute in range(0, 180, 5):
            yield name, minute * 60 + number, "HR", 0 if minute == 10 else 60 + (minute + number) % 40
        yield name, HOUR, "mPAP", 15 + number % 12
        yield name, 5, "mPAP", 30  # too early
        yield name, 3 * HOUR, "OUT", None


@pytest.fixture
def hospital(tmp_path):
    write_events(tmp_path / "raw", rows(30))
    for number in range(30):
        write_record(tmp_path / "raw", f"p{4711 + number}_1", 120, start_seconds=HOUR - 90, seed=number)
    tree = {
        **TREE,
        "inputs": {
            **TREE["inputs"],
            "waveforms": [{"format": "wfdb", "path": "*.hea", "subject": r"p(\d+)_", "start": "header"}],
        },
        "signals": {"leads": {"II": ["II"], "V1": ["V1"]}, "length": "5 s", "sampling_rate_hz": 100},
        "windows": {"count": 3, "length": "30 s"},
        "require": {"structured_windows": 0},
    }
    tree["inputs"]["events"] = [{**tree["inputs"]["events"][0], "subject": {"column": "patient"}}]
    tree["inputs"]["waveforms"][0]["subject"] = r"p(\d+)_"
    (tmp_path / "key").write_text("a key that nobody would guess")
    return tree


@pytest.fixture
def prepare(repository, tmp_path, hospital):
    def run(*arguments, tree=None, env=None):
        (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(tree or hospital))))
        command = [sys.executable, repository / "tools" / "prepare.py", "--cohort", "cohort.yaml", *arguments]
        environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), **(env or {})}
        environment.pop("TFMMCL_ID_KEY", None)
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, timeout=120, env=environment
        )
        assert "Traceback" not in done.stderr
        return done

    return run


def plain(tree):
    """The cohort without signals."""
    return {**tree, "inputs": {"events": tree["inputs"]["events"]}, "signals": None, "windows": TREE["windows"]}


def test_from_raw_files_to_a_verified_data_set(prepare, hospital, repository, tmp_path):
    done = prepare("--root", "raw", "--out", "data", "--id-key", "key", "--workers", 2, tree=plain(hospital))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^30 patients$", done.stdout, re.M)
    assert re.search(r"^60 anchors\n30   lost: its first window begins before the stay$", done.stdout, re.M)
    assert re.search(r"^30 trajectories$", done.stdout, re.M)
    assert "note: hr: 30 of 1,080 values below the plausible 10 to 300 bpm became missing." in done.stdout
    assert done.stdout.endswith("report: data/report.html\n")
    verify = [sys.executable, str(repository / "tools" / "verify.py"), "data"]
    assert "verified" in subprocess.run(verify, capture_output=True, text=True, cwd=tmp_path, check=True).stdout


def test_no_raw_id_and_no_date_is_in_any_file(prepare, hospital, tmp_path):
    done = prepare("--root", "raw", "--out", "data", "--id-key", "key", tree=plain(hospital))
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".npz", ".tfrecord", ".html"}
    for path in files:
        content = path.read_bytes()
        for secret in (b"patient-47", b"2150-01-01", b"2150", b"nobody would guess"):
            if secret == b"2150" and path.suffix in (".tfrecord", ".npz", ".html"):
                continue  # four bytes may occur by chance among numbers and pictures
            assert secret not in content, f"{secret!r} in {path.name}"


@pytest.mark.slow
def test_the_same_key_gives_the_same_ids_and_another_key_others(prepare, hospital, tmp_path):
    (tmp_path / "other").write_text("another key that nobody would guess")
    for out, key in (("a", "key"), ("b", "key"), ("c", "other")):
        assert prepare("--root", "raw", "--out", out, "--id-key", key, tree=plain(hospital)).returncode == 0
    contents = {out: [path.read_bytes() for path in sorted((tmp_path / out).glob("*.tfrecord"))] for out in "abc"}
    assert contents["a"] == contents["b"] != contents["c"]


def test_without_a_key_one_is_made_and_said_once(prepare, hospital, tmp_path):
    first = prepare("--root", "raw", "--out", "a", tree=plain(hospital))
    own = tmp_path / "config" / "tfmmcl" / "id.key"
    assert f"{own}: made; ids are hashed with this key" in first.stderr
    assert len(own.read_text().strip()) == 64
    assert "id.key" not in prepare("--root", "raw", "--out", "b", tree=plain(hospital)).stderr


def test_signals_and_events_of_one_patient_meet(prepare, hospital, tmp_path):
    events = hospital["inputs"]["events"][0]
    tree = {**hospital, "inputs": {**hospital["inputs"], "events": [events]}}
    write_events(tmp_path / "raw", [(name.removeprefix("patient-"), *row) for name, *row in rows(30)])
    done = prepare("--root", "raw", "--out", "data", "--id-key", "key", tree=tree)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^30 records$", done.stdout, re.M)
    assert re.search(r"^30 trajectories$", done.stdout, re.M)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"root": "nowhere"}, r"nowhere: .*expected"),
        ({"events": {"path": "absent*.csv"}}, r"absent\*\.csv"),
        ({"events": {"value": "valu"}}, r"'valu'.*did you mean 'value'"),
        (
            {"events": {"time": {"column": "time", "unit": "parsec"}}},
            r"cohort\.yaml: key 'inputs\.events\.0\.time\.unit'",
        ),
        ({"events": {"colour": "red"}}, r"unknown key 'inputs\.events\.0\.colour'"),
        ({"windows": {"length": 30}}, r"windows\.length': found 30, expected a number with its unit"),
        ({"key": "absent"}, r"absent: No such file or directory; expected the key"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_left(prepare, hospital, tmp_path, change, says):
    tree = plain(hospital)
    tree["inputs"] = {"events": [{**tree["inputs"]["events"][0], **change.get("events", {})}]}
    tree["windows"] = change.get("windows", tree["windows"])
    done = prepare(
        "--root", change.get("root", "raw"), "--out", "data", "--id-key", change.get("key", "key"), tree=tree
    )
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert re.search(says, sentence), sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cohort.yaml", "key", "raw"]


@pytest.mark.slow
def test_a_truncated_signal_file_costs_its_trajectory_and_is_named_on_the_terminal_only(prepare, hospital, tmp_path):
    write_events(tmp_path / "raw", [(name.removeprefix("patient-"), *row) for name, *row in rows(30)])
    path = tmp_path / "raw" / "p4711_1.dat"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = prepare("--root", "raw", "--out", "data", "--id-key", "key")
    assert done.returncode == 0, done.stderr
    assert "lost: its signals cannot be read" in done.stdout
    assert "p4711_1" in done.stdout
    assert "p4711" not in (tmp_path / "data" / "manifest.json").read_text()
    assert "p4711" not in (tmp_path / "data" / "report.html").read_text()
    np.testing.assert_equal(re.findall(r"^(\d+) trajectories$", done.stdout, re.M), ["29"])
