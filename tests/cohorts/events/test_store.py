import gzip
import hashlib
import pickle
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from real_data import DATA, real

from tfmmcl.cohorts.events import store as module
from tfmmcl.cohorts.events.settings import EventInput, Variable
from tfmmcl.cohorts.events.store import EventStore, stage_events
from tfmmcl.cohorts.events.timeline import ALWAYS
from tfmmcl.cohorts.splits import position
from tfmmcl.cohorts.tables import unpack
from tfmmcl.errors import InputError

LONG = {
    "format": "long",
    "path": "*.csv",
    "subject": {"column": "id"},
    "time": {"column": "t"},
    "code": "c",
    "value": "v",
}
HR = {"hr": Variable(codes=("HR",), unit="bpm", plausible=(20, 300))}
SECOND = 1_000_000


def stage(root, folder, *inputs, variables=HR, zone=None, patient=None, seed=0):
    return stage_events(
        root,
        [TypeAdapter(EventInput).validate_python(item) for item in inputs or (LONG,)],
        variables,
        zone,
        folder,
        lambda subjects: {subject: patient(subject) if patient else subject for subject in subjects},
        lambda patient: position(patient, seed),
    )


def content(store, patients=None):
    """Returns subject → variable → [(time, value)]."""
    found = {}
    for patient in patients or store.subjects():
        for subject, timeline in store.read(patient).items():
            assert timeline.subject == subject
            for series in timeline.series.values():
                assert (series.times.dtype, series.values.dtype) == (np.int64, np.float64)
                assert (np.diff(series.times) > 0).all()
            found[subject] = {
                name: list(zip(series.times.tolist(), [None if np.isnan(x) else x for x in series.values]))
                for name, series in timeline.series.items()
            }
    return found


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "id,t,c,v\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.fixture
def root(tmp_path):
    """Unsorted events of three subjects, the third without any that is wanted."""
    write(
        tmp_path / "raw/a.csv",
        ("s2", "1970-01-01 00:00:05", "HR", 0),
        ("s1", "1970-01-01 00:00:09", "HR", 70),
        ("s1", "1970-01-01 00:00:01", "HR", 80),
        ("s3", "1970-01-01 00:00:01", "other", 1),
    )
    write(
        tmp_path / "raw/b.csv",
        ("s1", "1970-01-01 00:00:09", "HR", 72),
        ("s1", "", "HR", 1),
        ("", "1970-01-01", "HR", 1),
    )
    return tmp_path / "raw"


EXPECTED = {"s1": {"hr": [(SECOND, 80), (9 * SECOND, 71)]}, "s2": {"hr": [(5 * SECOND, None)]}, "s3": {}}


def test_events_are_read_by_patient_in_order_of_time(root, tmp_path):
    store = stage(root, tmp_path / "staged")
    assert store.subjects() == ["s1", "s2", "s3"]
    assert content(store) == EXPECTED
    assert len(store.read("s1")["s1"].get("absent").times) == 0
    assert store.read("nobody") == {}
    assert store.notes() == [
        "1 events without a subject's id left out.",
        "hr: 2 of 5 values below the plausible 20 to 300 bpm became missing.",
        "hr: 2 of 5 events share their time with another; the mean of their values is kept.",
        "hr: 1 of 5 events left out for want of a readable time.",
    ]
    assert sorted(path.name for path in (tmp_path / "staged").iterdir()) == [
        "bucket-00000.parquet",
        "staged.json",
        "subjects.parquet",
    ]


def test_a_patient_may_have_several_subjects(root, tmp_path):
    store = stage(root, tmp_path / "staged", patient=lambda subject: "both" if subject != "s2" else "s2")
    assert store.subjects() == ["s1", "s2", "s3"]
    assert content(store, ["both"]) == {key: EXPECTED[key] for key in ("s1", "s3")}


def test_a_store_pickles_small(root, tmp_path):
    store = stage(root, tmp_path / "staged")
    store.read("s1")
    copy = pickle.dumps(store)
    assert len(copy) < 500
    assert content(pickle.loads(copy)) == EXPECTED


def test_sources_are_hashed_without_the_files_names(root, tmp_path):
    hashes = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in root.iterdir())
    expected = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    assert stage(root, tmp_path / "staged").sources() == {"*.csv (2 files)": expected}


events = st.lists(
    st.tuples(
        st.sampled_from(["p1", "p2", "p3", "p4", "p5"]),
        st.integers(0, 20),
        st.sampled_from(["HR", "SpO2", "x"]),
        st.sampled_from(["", "50", "60.5", "70", "0.1", "0.2", "0.3", "999"]),
    ),
    min_size=1,
    max_size=40,
)
BOTH = {"hr": HR["hr"], "all": Variable(codes=("*",))}


@settings(deadline=None, max_examples=20)
@given(events, st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.randoms())
def test_timelines_do_not_depend_on_order_files_chunks_or_buckets(
    tmp_path_factory, rows, parts, chunk, subjects, shuffle
):
    folder = tmp_path_factory.mktemp("shuffled")
    timed = {**LONG, "path": "*.csv*", "time": {"column": "t", "unit": "s"}}
    write(folder / "one/0.csv", *rows)
    expected = stage(folder / "one", folder / "staged one", timed, variables=BOTH)
    frame = pd.DataFrame(rows, columns=["id", "t", "c", "v"]).assign(v=lambda frame: pd.to_numeric(frame["v"]))
    by_hand = {subject: {} for subject in frame["id"]}
    for name, chosen in (("hr", frame[frame["c"] == "HR"]), ("all", frame)):
        if name == "hr":
            chosen = chosen.assign(v=chosen["v"].where(chosen["v"].between(20, 300)))
        distinct = chosen.drop_duplicates(["id", "t", "v"])
        for (subject, seconds), value in distinct.groupby(["id", "t"])["v"].mean().items():
            at = by_hand[subject].setdefault(name, [])
            at.append((seconds * SECOND, None if np.isnan(value) else pytest.approx(value)))
    assert content(expected) == by_hand

    rows = list(rows)
    shuffle.shuffle(rows)
    for part in range(parts):
        write(folder / "many" / (f"{part}.csv", f"{part}.csv.gz")[part % 2], *rows[part::parts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_ROWS", chunk)
        patch.setattr(module, "BUCKET_ROWS", chunk)
        patch.setattr(module, "BUCKET_SUBJECTS", subjects)
        found = stage(folder / "many", folder / "staged many", timed, variables=BOTH, seed=3)
    assert content(found) == content(expected)
    assert found.notes() == expected.notes()


def test_a_complete_staging_of_the_same_is_used_again(root, tmp_path):
    folder = tmp_path / "staged"

    def again(**changes):
        before = (folder / "staged.json").stat().st_mtime_ns if (folder / "staged.json").exists() else None
        time.sleep(0.01)
        store = stage(root, folder, **changes)
        assert content(store)["s1"]["hr"]
        return (folder / "staged.json").stat().st_mtime_ns == before

    assert [again(), again()] == [False, True]
    wider = {"hr": HR["hr"].model_copy(update={"plausible": (0, 300)})}
    assert [again(variables=wider), again(variables=wider)] == [False, True]
    assert [again(zone="Europe/Berlin"), again()] == [False, False]
    assert [again(seed=1), again(seed=1)] == [False, True]
    (root / "a.csv").touch()
    assert [again(seed=1), again(seed=1)] == [False, True]
    (folder / "staged.json").unlink()
    assert not again(seed=1)


def test_no_event_of_any_variable_is_one_sentence(root, tmp_path):
    with pytest.raises(
        InputError, match=r"^\*\.csv: no event has a code of any variable, expected some, such as 'HRR'\.$"
    ):
        stage(root, tmp_path / "staged", variables={"hr": Variable(codes=("HRR",))})
    assert stage(root, tmp_path / "staged", variables={}).subjects() == ["s1", "s2", "s3"]


def test_a_damaged_file_is_one_sentence(root, tmp_path):
    write(root / "c.csv.gz", *[("s1", "1970-01-01", "HR", i) for i in np.random.default_rng(0).random(20_000)])
    path = root / "c.csv.gz"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: cannot be read \(unexpected end of file\)\.$"):
        stage(root, tmp_path / "staged", {**LONG, "path": "*.csv*"})


def test_times_that_carry_a_zone_are_one_sentence_unless_expected(root, tmp_path):
    write(root / "a.csv", ("s1", "1970-01-01T02:00:00+01:00", "HR", 80), ("s1", "1970-01-01T02:00:00", "HR", 90))
    message = "*.csv: times carry a zone, expected times without one, or inputs.time_zone set."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        stage(root, tmp_path / "staged")
    hour = 3600 * SECOND
    found = content(stage(root, tmp_path / "staged", zone="America/New_York"))["s1"]["hr"]
    assert found[0] == (hour, 80)
    assert (7 * hour, 90) in found


def test_several_inputs_make_one_timeline(root, tmp_path):
    (root / "s1.txt").write_text("Age: 90+\nGender: M\n")
    (root / "s4.txt").write_text("Age: 30\n")
    text = {
        "format": "text",
        "path": "*.txt",
        "subject": r"(\w+)\.txt",
        "fields": {"age": "Age: (.*)", "sex": "Gender: (.*)"},
    }
    male = Variable(codes=({"code": "sex//M", "value": 1}, {"code": "sex//F", "value": 0}))
    store = stage(
        root, tmp_path / "staged", LONG, text, variables={**HR, "age": Variable(codes=("age",)), "male": male}
    )
    found = content(store)
    assert found["s1"] == {**EXPECTED["s1"], "age": [(ALWAYS, 90)], "male": [(ALWAYS, 1)]}
    assert found["s4"] == {"age": [(ALWAYS, 30)]}
    assert "age: 1 of 2 values, such as '90+', read as the number before the plus sign." in store.notes()
    assert sorted(store.sources()) == ["*.csv (2 files)", "*.txt (2 files)"]


def test_mimic_iv_and_its_meds_release_give_the_same_timelines(tmp_path):
    variables = {
        name: Variable(codes=codes, plausible=limits)
        for name, codes, limits in (
            ("heart_rate", ("LAB//220045//bpm",), (20, 300)),
            ("mean_pap", ("LAB//220061//mmHg",), (0, 150)),
            ("map", ("LAB//220052//mmHg",), (0, 300)),
            ("creatinine", ("LAB//50912//*",), None),
            ("icu", ("ICU_ADMISSION//*",), None),
            ("death", ("MEDS_DEATH",), None),
            ("female", ({"code": "GENDER//F", "value": 1}, {"code": "GENDER//M", "value": 0}), None),
        )
    }
    meds = stage(real("fixtures/meds_demo"), tmp_path / "meds", {"format": "meds"}, variables=variables)
    tables = stage(real("fixtures/mimic_iv_demo"), tmp_path / "tables", {"format": "mimic_iv"}, variables=variables)
    assert (len(meds.subjects()), len(tables.subjects())) == (10, 100)
    assert content(meds) == content(tables, meds.subjects())
    pressures = [item for found in content(tables).values() for item in found.get("mean_pap", [])]
    assert len(pressures) == 314
    assert [note for note in tables.notes() if "plausible" in note] == [
        "heart_rate: 3 of 13,913 values below the plausible 20 to 300 became missing.",
        "map: 7 of 5,560 values below the plausible 0 to 300 became missing.",
        "map: 7 of 5,560 values above the plausible 0 to 300 became missing.",
    ]


@pytest.mark.slow
def test_challenge_2012_stages_in_seconds(tmp_path):
    archive = DATA / "challenge2012-set-a.tar.gz"
    if not archive.is_file():
        pytest.skip(f"needs the real recordings in {archive}")
    folder = unpack(archive, tmp_path / "unpacked")
    long = {
        **LONG,
        "path": "**/set-a/*.txt",
        "subject": {"pattern": r"(\d+)\.txt$"},
        "time": {"column": "Time", "unit": "clock"},
        "code": "Parameter",
        "value": "Value",
    }
    variables = {"hr": Variable(codes=("HR",)), "age": Variable(codes=("Age",))}
    store = stage(folder, tmp_path / "staged", long, variables=variables)
    assert len(store.subjects()) == 4000
    assert isinstance(store, EventStore)
    for stay in store.subjects()[::400]:
        table = pd.read_csv(next(Path(folder).rglob(f"{stay}.txt")))
        table = table[table["Parameter"] == "HR"].drop_duplicates().groupby("Time", sort=False)["Value"].mean()
        minutes = [int(time[:-3]) * 60 + int(time[-2:]) for time in table.index]
        found = store.read(stay)[stay].get("hr")
        assert (found.times // (60 * SECOND)).tolist() == minutes
        np.testing.assert_allclose(found.values, table)
