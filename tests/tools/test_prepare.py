import os
import signal
import subprocess
import sys
import time

import pytest

COHORT = "name: tiny\nsource: synthetic\npatients: 12\nwindows: 2\nwindow_seconds: 2\nsampling_rate_hz: 100\n"
SHARDS = COHORT.replace("patients: 12", "patients: 140").replace("window_seconds: 2", "window_seconds: 30")
SHARDS += "leads: [II]\npatients_per_shard: 5\n"
LONG = "name: long\nsource: synthetic\npatients: 5000\n"  # minutes


@pytest.fixture
def command(repository, tmp_path):
    def build(*arguments):
        return [sys.executable, str(repository / "tools" / "prepare.py"), *map(str, arguments)]

    return build


@pytest.fixture
def prepare(command, tmp_path):
    def run(*arguments, env=None):
        done = subprocess.run(
            command(*arguments), capture_output=True, text=True, cwd=tmp_path, timeout=60, env=os.environ | (env or {})
        )
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def cohort(tmp_path):
    path = tmp_path / "cohort.yaml"
    path.write_text(COHORT)
    return path


@pytest.fixture
def refused(prepare, cohort, tmp_path):
    """Prepares with arguments that are wrong, and returns the one sentence."""

    def run(*arguments):
        before = sorted(tmp_path.iterdir())
        done = prepare(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert sorted(tmp_path.iterdir()) == before
        (sentence,) = done.stderr.splitlines()
        return sentence.removeprefix("prepare.py: ")

    return run


def test_it_writes_a_data_set_and_says_what_it_holds(prepare, cohort, tmp_path):
    done = prepare("--cohort", cohort, "--out", "data", "--workers", 2)
    assert done.returncode == 0
    assert done.stdout.startswith("data: ")
    assert "train: " in done.stdout
    assert done.stdout.endswith("report: data/report.html\n")
    assert (tmp_path / "data" / "manifest.json").is_file()
    assert (tmp_path / "data" / "report.html").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cohort.yaml", "data"]


def test_help_is_fast_and_imports_no_tensorflow(prepare, tmp_path):
    for name in ("tensorflow", "keras", "numpy"):  # whoever imports one of these fails
        (tmp_path / f"{name}.py").write_text("raise AssertionError('imported')")
    started = time.perf_counter()
    done = prepare("--help", env={"PYTHONPATH": str(tmp_path)})
    assert time.perf_counter() - started < 2
    assert done.returncode == 0
    assert "--cohort" in done.stdout


def test_preparing_imports_no_tensorflow(prepare, cohort, tmp_path):
    poison = tmp_path / "poison"
    poison.mkdir()
    for name in ("tensorflow", "keras"):
        (poison / f"{name}.py").write_text("raise AssertionError('imported')")
    done = prepare("--cohort", cohort, "--out", "data", "--workers", 1, env={"PYTHONPATH": str(poison)})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (COHORT + "patiens: 3", "cohort.yaml: unknown key 'patiens'; did you mean 'patients'?"),
        (COHORT + "split: {tets: 0.1}", "cohort.yaml: unknown key 'split.tets'; did you mean 'test'?"),
        (COHORT + "leads: [II, X]", "cohort.yaml: key 'leads': found ['II', 'X'], unknown lead 'X'"),
        (COHORT + "patients: 3", "cohort.yaml: not valid YAML at line 7: key 'patients' appears twice."),
        ("name: a\nsource: sinthetic", "cohort.yaml: key 'source': found 'sinthetic', expected one of synthetic, "),
        ("name: a", "cohort.yaml: key 'source': found None, expected one of synthetic, "),
        ("source: synthetic", "cohort.yaml: key 'name' is missing."),
    ],
)
def test_a_cohort_file_with_a_mistake_is_one_sentence(refused, cohort, text, sentence):
    cohort.write_text(text)
    assert refused("--cohort", "cohort.yaml", "--out", "data").startswith(sentence)


def test_a_missing_cohort_file_is_one_sentence(refused):
    assert refused("--cohort", "no.yaml", "--out", "data") == "no.yaml: no such file; expected a YAML settings file."


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_a_wrong_number_of_workers_is_one_sentence(refused, workers):
    assert f"--workers: {'found' if workers != 'two' else 'invalid int value'}" in refused(
        "--cohort", "cohort.yaml", "--out", "data", "--workers", workers
    )


def test_a_runner_without_apache_beam_is_one_sentence(prepare, cohort, tmp_path):
    poison = tmp_path / "poison"
    (poison / "apache_beam").mkdir(parents=True)
    (poison / "apache_beam" / "__init__.py").write_text("raise ImportError")
    arguments = ("--cohort", cohort, "--out", "data", "--runner", "SparkRunner")
    done = prepare(*arguments, env={"PYTHONPATH": str(poison)})
    assert done.returncode == 2
    sentence = "--runner SparkRunner: Apache Beam is not installed; pip install 'tfmmcl[beam]'."
    assert done.stderr == f"prepare.py: {sentence}\n"


def test_runner_options_without_a_runner_are_one_sentence(refused):
    assert refused("--cohort", "c", "--out", "d", "--runner-options=--x 1").startswith(
        "--runner-options: needs --runner"
    )


@pytest.mark.parametrize("given", [("--out", "data"), ("--cohort", "cohort.yaml")])
def test_a_missing_argument_is_one_sentence(refused, given):
    assert "the following arguments are required" in refused(*given)


def test_a_root_for_a_generated_cohort_is_one_sentence(refused):
    found = refused("--cohort", "cohort.yaml", "--out", "data", "--root", "raw")
    assert found == "--root raw: cohort 'tiny' is generated and reads no raw data."


def test_no_root_for_a_cohort_with_raw_data_is_one_sentence(refused, repository):
    found = refused("--cohort", repository / "configs/cohorts/bidmc.yaml", "--out", "data")
    assert found == "cohort 'bidmc' needs --root, the folder with its raw data."


def test_a_root_that_does_not_exist_is_one_sentence(refused, repository):
    cohort = repository / "configs/cohorts/bidmc.yaml"
    assert refused("--cohort", cohort, "--out", "data", "--root", "no").startswith("no: no such ")


def test_an_id_key_that_is_not_there_is_one_sentence(refused, repository):
    arguments = ("--cohort", repository / "configs/cohorts/bidmc.yaml", "--out", "data", "--root", ".")
    assert refused(*arguments, "--id-key", "no.key").startswith("no.key: No such file or directory; expected the key")


def test_an_existing_out_is_one_sentence(refused, tmp_path):
    (tmp_path / "data").mkdir()
    found = refused("--cohort", "cohort.yaml", "--out", "data")
    assert found == "data: already exists; expected the name of a new folder."


@pytest.fixture
def started(command, tmp_path):
    """Starts to prepare a cohort, waits for a sign, sends a signal, and returns the exit status and what was said."""

    def run(text, workers, sign, number, whole_group=True):
        (tmp_path / "cohort.yaml").write_text(text)
        process = subprocess.Popen(
            command("--cohort", tmp_path / "cohort.yaml", "--out", tmp_path / "data", "--workers", workers),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob(f".data.partial/{sign}")), process)
            mine = children(process.pid) if workers > 1 else []
            (os.killpg if whole_group else os.kill)(process.pid, number)
            stdout, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
        assert stdout == ""
        assert "Traceback" not in stderr
        wait_until(lambda: not any(is_running(pid) for pid in mine))
        return process.returncode, stderr

    return run


@pytest.mark.parametrize(
    ("number", "whole_group", "workers"),
    [(signal.SIGINT, True, 1), (signal.SIGINT, True, 2), (signal.SIGTERM, True, 2), (signal.SIGTERM, False, 2)],
)
def test_a_signal_before_any_shard_is_finished_leaves_nothing_behind(started, tmp_path, number, whole_group, workers):
    code, said = started(LONG, workers, "*.draft", number, whole_group)
    assert code == 130
    assert said.endswith("prepare.py: interrupted.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.yaml"]


@pytest.fixture(scope="module")
def undisturbed(repository, tmp_path_factory):
    """The files of the cohort of many shards, made by a command that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "cohort.yaml").write_text(SHARDS)
    command = [sys.executable, str(repository / "tools" / "prepare.py"), "--cohort", "cohort.yaml", "--out", "data"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "shards were made before" not in done.stderr
    return {path.name: path.read_bytes() for path in (folder / "data").iterdir()}


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
        (signal.SIGKILL, 2),
    ],
)
def test_the_same_command_continues_whatever_stopped_it(started, prepare, undisturbed, tmp_path, number, workers):
    code, said = started(SHARDS, workers, "sidecars/train-00002*.npz", number, whole_group=False)
    if number == signal.SIGKILL:
        assert code == -9
    else:
        assert code == 130
        assert "finished shards; the same command continues\nprepare.py: interrupted.\n" in said
    assert not (tmp_path / "data").exists()
    done = prepare("--cohort", "cohort.yaml", "--workers", workers, "--out", "data")
    assert f" of {sum(name.endswith('.tfrecord') for name in undisturbed)} shards were made before" in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cohort.yaml", "data"]


def test_ctrl_c_while_workers_start_prints_no_traceback(command, cohort, tmp_path):
    cohort.write_text(LONG)
    process = subprocess.Popen(
        command("--cohort", cohort, "--out", tmp_path / "data", "--workers", 2),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: children(process.pid), process)
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == [cohort]


def wait_for(condition, process, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid):
    """Spawned workers of a process, which are its children beside multiprocessing's resource tracker."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()[1:]
