"""Raw files to trajectories: the engine's seams, with files on disk."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_hospital import KEY, TREE, changed, items, prepared, write_events, write_record

from tfmmcl.cohorts.identity import keyed_hash
from tfmmcl.cohorts.recorded.cohort import RecordedCohort
from tfmmcl.cohorts.splits import position
from tfmmcl.errors import InputError
from tfmmcl.records.shards import plan_shards

HOUR = 3600

EVENTS = [
    ("7", 0, "IN", None),
    ("7", 10, "Na", 140),
    ("7", 30 * 60, "HR", 60),
    ("7", 41 * 60, "HR", 80),
    ("7", 44 * 60, "HR", 90),
    ("7", 49 * 60, "HR", 0),  # not plausible
    ("7", 59 * 60, "HR", 100),
    ("7", HOUR, "mPAP", 25),
    ("7", HOUR, "HR", 250),  # at the anchor
    ("7", 3 * HOUR, "OUT", None),
]


def test_a_patient_by_hand(tmp_path):
    write_events(tmp_path / "raw", EVENTS)
    kept, excluded, seen = items(changed(), tmp_path / "raw", tmp_path / "stage")
    assert not excluded
    assert seen == {"stays": 1, "anchors": 1}
    (trajectory,) = kept
    assert trajectory.patient == keyed_hash(KEY, "7")
    assert trajectory.name == f"{trajectory.patient}-00000"
    # 30 to 40, 40 to 50 and 50 to 60 minutes; mean, last, count of each
    np.testing.assert_allclose(trajectory.structured, [[60, 60, 1], [85, 90, 2], [100, 100, 1]])
    np.testing.assert_allclose(trajectory.statics, [140])
    assert trajectory.labels == {"elevated": 1.0, "dies": 0.0}


def inputs_of(root, stage, rows, **changes):
    write_events(root, rows)
    (trajectory,), _, _ = items(changed(**changes), root, stage)
    return trajectory


@pytest.mark.parametrize("code", ["HR", "Na"])
def test_an_event_reaches_the_inputs_until_one_second_before_the_anchor_and_not_from_it_on(tmp_path, code):
    """The boundary that decides whether results can be believed."""
    base = [row for row in EVENTS if row[1] != HOUR or row[2] == "mPAP"]
    plain = inputs_of(tmp_path / "raw0", tmp_path / "stage0", base)
    for shift, changes in ((-1, True), (0, False), (1, False)):
        moved = inputs_of(tmp_path / f"raw{shift}", tmp_path / f"stage{shift}", [*base, ("7", HOUR + shift, code, 123)])
        same = np.array_equal(moved.structured, plain.structured, equal_nan=True)
        same &= np.array_equal(moved.statics, plain.statics, equal_nan=True)
        assert same is not changes, f"{code} at {shift:+d} s"


def test_nothing_in_the_future_reaches_the_inputs(tmp_path):
    """All that happens at or after the anchor is replaced; nothing changes but the labels."""
    before = [row for row in EVENTS if row[1] < HOUR]
    plain = inputs_of(tmp_path / "raw0", tmp_path / "stage0", EVENTS)
    rng = np.random.default_rng(0)
    after = [
        ("7", HOUR + time, code, rng.normal(100, 50)) for code in ("HR", "Na") for time in rng.integers(0, 7200, 50)
    ]
    ends = [("7", HOUR, "mPAP", 15), ("7", HOUR + 60, "DEATH", None), ("7", 3 * HOUR, "OUT", None)]
    other = inputs_of(tmp_path / "raw1", tmp_path / "stage1", [*before, *after, *ends])
    np.testing.assert_array_equal(other.structured, plain.structured)
    np.testing.assert_array_equal(other.statics, plain.statics)
    assert other.labels == {"elevated": 0.0, "dies": 1.0}


SIGNALS = {
    "inputs": {
        **TREE["inputs"],
        "waveforms": [{"format": "wfdb", "path": "*.hea", "subject": r"p(\d+)_", "start": "header"}],
    },
    "signals": {"leads": {"II": ["II"], "V1": ["V1"]}, "length": "5 s", "sampling_rate_hz": 100},
    "windows": {"count": 3, "length": "10 s"},
    "require": {"structured_windows": 0, "within_stay": True},
}


def test_signals_are_cut_where_the_events_say(tmp_path):
    raw = tmp_path / "raw"
    samples = write_record(raw, "p7_1", 120, start_seconds=HOUR - 60)
    trajectory = inputs_of(raw, tmp_path / "stage", EVENTS, **SIGNALS)
    # Windows of 10 s that end at the anchor, which is 60 s into the record; the first 5 s of each are complete.
    expected = [samples[start * 100 : (start + 5) * 100] for start in (30, 40, 50)]
    np.testing.assert_allclose(trajectory.signals, expected, atol=1e-4)


@pytest.mark.parametrize("rate_hz", [100, 250])
def test_no_sample_at_or_after_the_anchor_reaches_the_inputs(tmp_path, rate_hz):
    for name, future in (("a", 0.0), ("b", 5.0)):
        raw = tmp_path / name
        write_record(raw, "p7_1", 60, start_seconds=HOUR - 60, rate_hz=rate_hz, seed=1)
        # From the anchor on the two hospitals record different things.
        write_record(raw, "p7_2", 60, start_seconds=HOUR, rate_hz=rate_hz, seed=int(future))
    changes = SIGNALS | {"signals": SIGNALS["signals"] | {"length": "10 s"}}
    a = inputs_of(tmp_path / "a", tmp_path / "stage_a", EVENTS, **changes)
    b = inputs_of(tmp_path / "b", tmp_path / "stage_b", EVENTS, **changes)
    assert not np.isnan(a.signals).any()
    np.testing.assert_array_equal(a.signals, b.signals)


def test_what_is_lost_is_listed_with_its_reason(tmp_path):
    rows = [
        *EVENTS,
        ("7", 100, "mPAP", 30),  # its windows begin before the stay
        ("7", 5 * HOUR, "mPAP", 30),  # after the stay
        ("7", 2 * HOUR, "mPAP", 30),  # no heart rate in the half hour before
        ("8", 0, "HR", 70),  # no stay at all
        ("9", 0, "IN", None),  # a stay without an anchor
    ]
    write_events(tmp_path / "raw", rows)
    kept, excluded, seen = items(changed(), tmp_path / "raw", tmp_path / "stage")
    assert len(kept) == 1
    assert seen == {"stays": 2, "anchors": 4}
    assert sorted((item.level, item.reason) for item in excluded) == [
        ("anchors", "it lies outside every stay"),
        ("anchors", "its first window begins before the stay"),
        ("anchors", "too few windows have a structured value"),
        ("patients", "it has no stay"),
        ("stays", "no anchor falls into it"),
    ]


def test_names_stay_when_other_trajectories_are_left_out(tmp_path):
    write_events(tmp_path / "raw", [*EVENTS, ("7", 2 * HOUR, "mPAP", 30)])
    strict, _, _ = items(changed(), tmp_path / "raw", tmp_path / "a")
    lenient, _, _ = items(changed(require={"structured_windows": 0}), tmp_path / "raw", tmp_path / "b")
    assert [item.name for item in strict] == [item.name for item in lenient][:1]
    assert len({item.name for item in lenient}) == 2


def test_subjects_of_one_patient_stay_together(tmp_path):
    write_events(tmp_path / "raw", [(name, *row[1:]) for name in ("a", "b", "c") for row in EVENTS])
    for name, patient in (("a", "X"), ("b", "Y"), ("c", "X")):
        (tmp_path / "raw" / f"{name}.txt").write_text(f"Age: 7\nPatient: {patient}\n")
    by_file = changed(patients={"file": "{subject}.txt", "pattern": r"Patient: (\S+)"})
    cohort = prepared(by_file, tmp_path / "raw", tmp_path / "stage1")
    assert cohort.patients() == ["X", "Y"]
    assert len([item for item in cohort.trajectories("X") if hasattr(item, "signals")]) == 2
    assert prepared(changed(patients={"same": [["a", "c"]]}), tmp_path / "raw", tmp_path / "stage2").patients() == [
        "a",
        "b",
    ]
    (tmp_path / "raw" / "b.txt").unlink()
    with pytest.raises(InputError, match=r"b\.txt: no such file; expected it to name the patient of 'b'"):
        prepared(by_file, tmp_path / "raw", tmp_path / "stage3")


def test_a_table_may_give_the_splits(tmp_path):
    write_events(tmp_path / "raw", [(name, *row[1:]) for name in ("a", "b", "c") for row in EVENTS])
    (tmp_path / "raw" / "splits.csv").write_text("subject_id,split\na,train\nb,tuning\nc,held_out\nd,train\n")
    table = {"table": {"path": "splits.csv"}}
    cohort = prepared(changed(split=table), tmp_path / "raw", tmp_path / "stage")
    given_splits = cohort.given_splits()
    assert {name: given_splits[name] for name in "abc"} == {"a": "train", "b": "validation", "c": "test"}
    (tmp_path / "raw" / "splits.csv").write_text("subject_id,split\na,train\nb,holdout\nc,\n")
    with pytest.raises(InputError, match=r"splits\.csv: gives no split for 2 of 3 patients, expected one for each"):
        prepared(changed(split=table), tmp_path / "raw", tmp_path / "stage2")


def test_an_archive_is_as_good_as_a_folder(tmp_path):
    import shutil

    write_events(tmp_path / "raw", EVENTS)
    archive = shutil.make_archive(str(tmp_path / "raw"), "gztar", tmp_path / "raw")
    one, _, _ = items(changed(), tmp_path / "raw", tmp_path / "a")
    two, _, _ = items(changed(), archive, tmp_path / "b")
    assert [item.name for item in one] == [item.name for item in two]
    again = RecordedCohort(changed(), archive, KEY)
    for _ in range(2):  # staged anew in an emptied folder, as where the sources turn out to differ
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        (tmp_path / "c").mkdir()
        again.stage(tmp_path / "c")
    assert again.patients() == ["7"]


@settings(deadline=None, max_examples=15)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_and_files_does_not_matter(tmp_path_factory, random):
    folder = tmp_path_factory.mktemp("shuffled")
    rows = [(name, *row[1:]) for name in ("a", "b") for row in EVENTS]
    write_events(folder / "one", rows)
    expected, _, _ = items(changed(), folder / "one", folder / "stage1")
    random.shuffle(rows)
    cut = random.randrange(len(rows) + 1)
    write_events(folder / "two", rows[:cut], "events1.csv")
    write_events(folder / "two", rows[cut:], "events2.csv")
    inputs = {"events": [TREE["inputs"]["events"][0] | {"path": "events*.csv"}]}
    found, _, _ = items(changed(inputs=inputs), folder / "two", folder / "stage2")
    assert [item.name for item in found] == [item.name for item in expected]
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.structured, two.structured)
        np.testing.assert_array_equal(one.statics, two.statics)
        assert one.labels == two.labels


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"anchors": [{"each": "mpab"}]},
            r"anchors\[0\].each is 'mpab', which is not one of the variables; did you mean 'mpap'",
        ),
        ({"statics": {"sodium": {"look_back": "0 s"}}}, "greater than 0"),
        ({"statics": {"soduim": {}}}, "statics.soduim is 'soduim'.*did you mean 'sodium'"),
        ({"structured": [{"rate_of": "ecg"}]}, "rate_of 'ecg', expected one of"),
        ({"signals": {"leads": {"II": ["II"]}}}, "'signals' and 'inputs.waveforms' go together"),
        ({"inputs": {}}, "names neither events nor waveforms"),
    ],
)
def test_settings_that_do_not_fit_together(change, says):
    with pytest.raises(ValueError, match=says):
        changed(**change)


def test_two_features_of_one_name_are_refused(tmp_path):
    twice = changed(structured=[{"variable": "hr", "statistics": ["mean", "mean"]}])
    with pytest.raises(InputError, match="cohort 'small': structured names a feature twice: hr_mean, hr_mean"):
        RecordedCohort(twice, tmp_path, KEY)


def test_raw_ids_and_dates_are_nowhere_in_a_trajectory(tmp_path):
    write_events(tmp_path / "raw", [("patient-4711", *row[1:]) for row in EVENTS])
    kept, excluded, _ = items(changed(), tmp_path / "raw", tmp_path / "stage")
    assert kept
    assert "4711" not in repr(kept) + repr([item.reason for item in excluded])
    other = RecordedCohort(changed(), tmp_path / "raw", b"another key, just as long")
    other.stage(tmp_path / "stage")
    assert other.resume_token() != RecordedCohort(changed(), tmp_path / "raw", KEY).resume_token()
    assert {item.patient for item in other.trajectories("patient-4711") if hasattr(item, "patient")} != {
        kept[0].patient
    }


def test_the_order_in_the_shards_says_nothing_of_the_ids(tmp_path):
    patients = [str(number) for number in range(1000, 1040)]
    write_events(tmp_path / "raw", [(patient, *row[1:]) for patient in patients for row in EVENTS])
    settings = changed(split={"test": 0, "validation": 0})
    orders = []
    for key in (KEY, b"another key, just as long"):
        cohort = RecordedCohort(settings, tmp_path / "raw", key)
        cohort.stage(tmp_path / "stage")
        orders.append([patient for plan in plan_shards(cohort, settings) for patient in plan.patients])
    by_id_alone = sorted(patients, key=lambda patient: position(patient, settings.split.seed))
    assert sorted(orders[0]) == sorted(orders[1]) == patients
    assert by_id_alone != orders[0] != orders[1] != by_id_alone


def test_an_id_is_the_same_as_text_number_and_fraction(tmp_path):
    write_events(tmp_path / "raw", [("12", *row[1:]) for row in EVENTS])
    ids = [12.0, float("nan"), None]
    pl.DataFrame({"patient": ids, "weight": [70.0, 1.0, 1.0]}).write_parquet(tmp_path / "raw" / "facts.parquet")
    pl.DataFrame({"patient": ids, "died": [1, 0, 0]}).write_parquet(tmp_path / "raw" / "died.parquet")
    facts = {"format": "wide", "path": "facts.parquet", "subject": {"column": "patient"}}
    died = {"rule": "column", "path": "died.parquet", "subject": {"column": "patient"}, "column": "died"}
    settings = changed(
        inputs={"events": [TREE["inputs"]["events"][0], facts]},
        variables={**TREE["variables"], "weight": {"codes": ["weight"], "unit": "kg"}},
        statics={"weight": {}},
        tasks={"died": died},
    )
    assert prepared(settings, tmp_path / "raw", tmp_path / "stage").patients() == ["12"]
    kept, _, _ = items(settings, tmp_path / "raw", tmp_path / "stage")
    assert kept
    assert all(item.statics == [70] and item.labels == {"died": 1} for item in kept)


def test_ids_that_no_other_source_has_are_noted(tmp_path):
    write_events(tmp_path / "raw", [("7", *row[1:]) for row in EVENTS])
    write_record(tmp_path / "raw", "007", 60)
    (tmp_path / "raw" / "died.csv").write_text("patient,died\n007,1\n")
    died = {"rule": "column", "path": "died.csv", "subject": {"column": "patient"}, "column": "died"}
    inputs = {**TREE["inputs"], "waveforms": [{"format": "wfdb"}]}
    labelled = prepared(changed(tasks={"died": died}), tmp_path / "raw", tmp_path / "one").notes()
    assert "task 'died': no subject has a label in died.csv." in labelled
    both = changed(inputs=inputs, signals={"leads": {"II": ["II"]}}, tasks={"died": died})
    # The record's subject has a label.
    notes = prepared(both, tmp_path / "raw", tmp_path / "two").notes()
    assert "no subject has both events and records; expected ids that both write alike." in notes
    assert not any("died" in note and "label" in note for note in notes)


@pytest.mark.parametrize("pattern", [r"P: (\S*)", r"P:|(\d)"])
def test_a_patient_without_a_name_is_refused(tmp_path, pattern):
    write_events(tmp_path / "raw", EVENTS)
    for subject in {row[0] for row in EVENTS}:
        (tmp_path / "raw" / f"{subject}.txt").write_text("P: ")
    with pytest.raises(InputError, match=r"nothing matches .*, expected the patient of"):
        prepared(changed(patients={"file": "{subject}.txt", "pattern": pattern}), tmp_path / "raw", tmp_path / "stage")


def test_a_number_too_large_to_be_stored_is_missing(tmp_path):
    far = [(row[0], row[1] - 1, "HR", 1e39) for row in EVENTS if row[2] == "mPAP"]
    write_events(tmp_path / "raw", [*EVENTS, *far])
    settings = changed(variables={**TREE["variables"], "hr": {"codes": ["HR"], "unit": "bpm"}})
    kept, _, _ = items(settings, tmp_path / "raw", tmp_path / "stage")
    assert kept
    assert not any(np.isinf(item.structured).any() for item in kept)
