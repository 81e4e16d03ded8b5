"""Whatever stops a preparation, the same call continues it, and nothing shows in the end."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_cohorts import TinyCohort, make_settings, make_spec

import tfmmcl.records.writer
from tfmmcl.errors import InputError
from tfmmcl.records.partial import Partial
from tfmmcl.records.shards import finished, plan_shards, read_sidecar
from tfmmcl.records.verify import verify
from tfmmcl.records.writer import write_dataset

CONTINUING = "shards were made before"


def write(cohort, out, workers=1, **changes):
    return write_dataset(cohort, make_settings(**changes), out, workers)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of a data set whose making nothing stopped."""
    return files(write(TinyCohort(), tmp_path_factory.mktemp("undisturbed") / "data").path)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def partial(out):
    return out.with_name(".data.partial")


def stop(out, at="patient7", fault="interrupt", error=KeyboardInterrupt, **changes):
    with pytest.raises(error):
        write(TinyCohort(at=at, fault=fault), out, **changes)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("fault", "error"),
    [("error", RuntimeError), ("interrupt", KeyboardInterrupt), ("bad data", InputError), ("full", OSError)],
)
def test_what_stops_it_midway_leaves_the_finished_shards(undisturbed, out, partial, capsys, workers, fault, error):
    last = [plan.patients[-1] for plan in plans(out.parent)][3]
    stop(out, at=last, fault=fault, error=error)
    assert len(finished(partial)) == 3
    assert capsys.readouterr().err.endswith("keeps 3 finished shards; the same command continues\n")
    made = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.tfrecord")}
    assert len(made) == 3
    assert list(partial.rglob("*.draft")) == []
    assert not out.exists()

    data = write(TinyCohort(), out, workers)
    assert f"continuing: 3 of {len(data.manifest.shards)} {CONTINUING}" in capsys.readouterr().err
    assert {name: (out / name).stat().st_mtime_ns for name in made} == made  # not made again
    assert files(out) == undisturbed
    assert list(out.parent.iterdir()) == [out]


def plans(folder):
    folder = folder / "scratch"
    folder.mkdir()
    cohort = TinyCohort()
    cohort.stage(folder)
    found = plan_shards(cohort, make_settings())
    shutil.rmtree(folder)
    return found


KILLED = """
import sys
from pathlib import Path
from small_cohorts import TinyCohort, make_settings
from tfmmcl.records.writer import write_dataset
write_dataset(TinyCohort(at=sys.argv[2], fault="killed"), make_settings(), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("at", ["patient0", "patient3", "patient8", "patient11"])
def test_a_kill_cannot_be_told_from_no_kill(undisturbed, out, partial, at):
    done = subprocess.run([sys.executable, "-c", KILLED, out, at], cwd=Path(__file__).parent, capture_output=True)
    assert done.returncode == -9
    assert partial.is_dir()
    write(TinyCohort(), out)
    assert files(out) == undisturbed
    assert list(out.parent.iterdir()) == [out]


def test_a_worker_that_is_killed_is_one_sentence_and_the_rest_continues(undisturbed, out, partial):
    with pytest.raises(InputError, match=r"a preparation worker was killed \(out of memory\?\); the same command cont"):
        write(TinyCohort(at="patient7", fault="killed"), out, workers=2)
    assert not list(partial.glob("*.tfrecord")) or finished(partial)
    assert files(write(TinyCohort(), out).path) == undisturbed


def test_a_disk_that_is_full_leaves_the_finished_shards(tmp_path, out, partial):
    spec = make_spec(samples=20_000)
    whole = write(TinyCohort(spec=spec), tmp_path / "whole")
    sizes = sorted(shard.bytes for shard in whole.manifest.shards)
    script = """
import resource, sys
from small_cohorts import TinyCohort, make_settings, make_spec
from tfmmcl.records.writer import write_dataset
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_dataset(TinyCohort(spec=make_spec(samples=20_000)), make_settings(), sys.argv[1])
except OSError as error:
    print(error.strerror)
"""
    command = [sys.executable, "-c", script, str(out), str(sizes[-1] - 1)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.stdout == "File too large\n"
    assert "the same command continues" in done.stderr
    assert list(partial.rglob("*.draft")) == []
    assert files(write(TinyCohort(spec=spec), out).path) == files(whole.path)


@pytest.mark.parametrize(
    ("cohort", "changes"),
    [
        ({}, {"split": {"seed": 1}}),
        ({}, {"description": "other"}),
        ({"token": "another key"}, {}),
        ({"source": "1" * 64}, {}),
        ({"ids": tuple(f"patient{i}" for i in range(11))}, {}),
        ({"spec": make_spec(scale=0.002)}, {}),
    ],
    ids=["split", "settings", "key", "sources", "patients", "spec"],
)
def test_anything_else_begins_anew(tmp_path, out, capsys, cohort, changes):
    stop(out)
    expected = files(write(TinyCohort(**cohort), tmp_path / "fresh", **changes).path)
    capsys.readouterr()
    assert files(write(TinyCohort(**cohort), out, **changes).path) == expected
    assert CONTINUING not in capsys.readouterr().err


def test_another_version_begins_anew(out, capsys, monkeypatch):
    stop(out)
    monkeypatch.setattr(tfmmcl.records.writer, "__version__", "9")
    assert write(TinyCohort(), out).manifest.provenance.tfmmcl == "9"
    assert CONTINUING not in capsys.readouterr().err


def test_what_was_staged_is_used_again_unless_the_sources_are_others(undisturbed, out, partial):
    stop(out, at="", fault="interrupted staging")
    staged = partial / "stage" / "source"
    assert staged.exists()
    stop(out, at="patient7")
    staged.write_text("stale")  # as a cohort would leave it that does not look whether its sources changed
    data = write(TinyCohort(source="1" * 64), out)  # asserts that it reads what was staged from the new source
    assert data.manifest.provenance.sources == {"raw.csv": "1" * 64}


def test_a_damaged_sidecar_or_a_lost_shard_is_made_again(undisturbed, out, partial, capsys):
    stop(out, at=plans(out.parent)[4].patients[0])
    shards = sorted(finished(partial))
    (partial / shards[0]).unlink()
    (partial / shards[1]).write_bytes(b"")
    sidecar = partial / "sidecars" / f"{shards[2]}.npz"
    sidecar.write_bytes(sidecar.read_bytes()[:100])
    capsys.readouterr()
    assert files(write(TinyCohort(), out).path) == undisturbed
    assert f"continuing: 1 of {len(plans(out.parent))} {CONTINUING}" in capsys.readouterr().err


def test_only_the_user_may_look_into_what_names_patients(out, partial):
    stop(out)
    for folder in ("stage", "sidecars"):
        assert (partial / folder).stat().st_mode & 0o777 == 0o700


def test_a_second_run_for_the_same_folder_is_one_sentence_and_disturbs_nothing(undisturbed, out, partial):
    stop(out)
    before = {path: path.read_bytes() for path in partial.rglob("*") if path.is_file()}
    with Partial(out).locked(), pytest.raises(InputError, match=r"data: another run is preparing it; wait"):
        write(TinyCohort(), out)
    assert {path: path.read_bytes() for path in partial.rglob("*") if path.is_file()} == before
    assert files(write(TinyCohort(), out).path) == undisturbed


def test_two_runs_at_once_make_one_data_set(undisturbed, out):
    script = """
import sys
from small_cohorts import TinyCohort, make_settings
from tfmmcl.errors import InputError
from tfmmcl.records.writer import write_dataset
try:
    write_dataset(TinyCohort(), make_settings(), sys.argv[1])
    print("made")
except InputError as error:
    print(str(error).split(": ")[1].split(";")[0])
"""
    command = [sys.executable, "-c", script, str(out)]
    runs = [subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [run.communicate(timeout=60)[0].strip() for run in runs]
    assert said.count("made") == 1
    assert set(said) <= {"made", "another run is preparing it", "already exists"}
    assert files(out) == undisturbed
    assert list(out.parent.iterdir()) == [out]


def test_a_sidecar_says_what_became_of_its_shard(out, partial):
    stop(out, at=plans(out.parent)[2].patients[0])
    for plan in plans(out.parent)[:2]:
        written = read_sidecar(plan, partial)
        assert written.facts["bytes"] == (partial / plan.file).stat().st_size
        assert written.facts["count"]["patients"] == len(plan.patients)
    assert read_sidecar(plans(out.parent)[2], partial) is None


def test_the_ranks_of_samples_differ_between_shards_and_uses(out, partial):
    stop(out, at=plans(out.parent)[5].patients[0])
    sidecars = [read_sidecar(plan, partial) for plan in plans(out.parent)[:5]]
    ranks = [rank for item in sidecars for part in (item.statistics, item.profile) for rank in part["ranks"]]
    assert len(set(ranks)) == len(ranks) > 10


def test_a_continued_data_set_is_sound(out):
    stop(out)
    assert verify(write(TinyCohort(), out)) == []
