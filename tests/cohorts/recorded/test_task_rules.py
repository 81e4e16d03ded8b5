"""Labels by rule, against what the rules say in words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmmcl.cohorts.events.timeline import ALWAYS, Series, Timeline
from tfmmcl.cohorts.recorded.settings import AboveRule, ColumnRule, ValueRule, WithinRule
from tfmmcl.cohorts.recorded.tasks import label, read_column, task_of
from tfmmcl.cohorts.tables import SubjectSource
from tfmmcl.cohorts.trajectory import Task
from tfmmcl.errors import InputError

SECOND = 1_000_000
DAY = 86_400
ABOVE = AboveRule(rule="above", variable="mpap", threshold=20)
WITHIN = WithinRule(rule="within", event="death", horizon="24 h", follow_up=("seen",))


def timeline(**series):
    return Timeline(
        "s1",
        {
            name: Series(np.array(times, np.int64) * SECOND, np.array(values, float))
            for name, (times, values) in series.items()
        },
    )


def same(found, expected):
    np.testing.assert_equal(found, expected)


@pytest.mark.parametrize(("value", "expected"), [(20, 0), (20.001, 1), (80, 1), (-3, 0), (np.nan, np.nan)])
def test_above_the_threshold(value, expected):
    same(label(ABOVE, timeline(mpap=([100], [value])), 100 * SECOND, {}), expected)


@pytest.mark.parametrize("time", [99, 101])
def test_a_value_a_second_off_the_anchor_is_no_label(time):
    same(label(ABOVE, timeline(mpap=([time], [30])), 100 * SECOND, {}), np.nan)
    same(label(ABOVE, timeline(), 100 * SECOND, {}), np.nan)


@given(
    st.integers(0, 3 * DAY),
    st.lists(st.integers(0, 3 * DAY), max_size=3),
    st.lists(st.integers(0, 3 * DAY), max_size=3),
)
def test_an_event_within_the_horizon(anchor, deaths, seen):
    deaths, seen = sorted(set(deaths)), sorted(set(seen))
    events = timeline(death=(deaths, [np.nan] * len(deaths)), seen=(seen, [1] * len(seen)))
    if any(time < anchor for time in deaths):
        expected = np.nan
    elif any(anchor <= time <= anchor + DAY for time in deaths):
        expected = 1.0
    else:
        expected = 0.0 if any(time >= anchor + DAY for time in deaths + seen) else np.nan
    same(label(WITHIN, events, anchor * SECOND, {}), expected)


@pytest.mark.parametrize(
    ("death", "seen", "expected"),
    [
        ([DAY], [], 1),  # at the horizon itself
        ([DAY + 1], [], 0),  # a second later; the death shows that the patient lived until then
        ([0], [], 1),  # at the anchor
        ([-1], [], np.nan),  # before it
        ([], [DAY - 1], np.nan),  # censored a second before the horizon
        ([], [DAY], 0),
        ([], [], np.nan),
    ],
)
def test_the_ends_of_the_horizon(death, seen, expected):
    at = 10 * DAY
    events = timeline(
        death=([at + time for time in death], [np.nan] * len(death)),
        seen=([at + time for time in seen], [1] * len(seen)),
    )
    same(label(WITHIN, events, at * SECOND, {}), expected)


def test_events_without_a_time_are_neither_deaths_nor_follow_up():
    always = Timeline("s1", {name: Series(np.array([ALWAYS]), np.array([1.0])) for name in ("death", "seen")})
    same(label(WITHIN, always, 0, {}), np.nan)


def rule(**changes):
    return ColumnRule(rule="column", path="out*.csv", subject={"column": "id"}, column="outcome", **changes)


def test_a_column_gives_the_label(tmp_path):
    (tmp_path / "out1.csv").write_text("id,outcome\n a , 1\nb,0.0\nc,?\nd,\n")
    (tmp_path / "out2.csv").write_text("outcome,id\n1,e\n")
    found = read_column(tmp_path, rule())
    assert found == {"a": 1.0, "b": 0.0, "e": 1.0}
    same(label(rule(), Timeline("b", {}), 0, found), 0.0)
    same(label(rule(), Timeline("c", {}), 0, found), np.nan)


def test_the_subject_may_stand_in_the_path(tmp_path):
    (tmp_path / "out_7.csv").write_text("outcome\n1\n")
    by_path = rule().model_copy(update={"subject": SubjectSource(pattern=r"(?<=out_)(\d+)")})
    assert read_column(tmp_path, by_path) == {"7": 1.0}
    (tmp_path / "out_x.csv").write_text("outcome\n1\n")
    with pytest.raises(InputError, match=r"the path 'out_x.csv' has no subject's id"):
        read_column(tmp_path, by_path)


def test_texts_or_a_range_may_mean_the_label(tmp_path):
    (tmp_path / "out.csv").write_text("id,outcome\na,True alarm\nb,False alarm\nc,2.5\nd,-1\n")
    texts = rule(positive=("True alarm",), negative=("False alarm",))
    assert read_column(tmp_path, texts) == {"a": 1.0, "b": 0.0}
    assert read_column(tmp_path, rule(between=(2, 3))) == {"c": 1.0, "d": 0.0}


def test_contradicting_rows_are_refused(tmp_path):
    (tmp_path / "out.csv").write_text("id,outcome\na,1\na,0\n")
    with pytest.raises(InputError, match=r"out\*.csv: column 'outcome' says two different things of one id"):
        read_column(tmp_path, rule())


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "out.csv").write_text("id,outcom\na,1\n")
    with pytest.raises(InputError, match=r"'outcome'.*outcom"):
        read_column(tmp_path, rule())


@pytest.mark.parametrize(("time", "value", "expected"), [(100, 27.5, 27.5), (101, 27.5, np.nan), (100, np.nan, np.nan)])
def test_the_value_at_the_anchor_may_be_the_label(time, value, expected):
    rule = ValueRule(rule="value", variable="mpap")
    same(label(rule, timeline(mpap=([time], [value])), 100 * SECOND, {}), expected)


def test_a_column_may_hold_classes_or_numbers(tmp_path):
    (tmp_path / "out.csv").write_text("id,outcome\na,home\nb,died\nc,3.5\nd,\n")
    classes = rule(classes=("died", "home", "ward"))
    assert read_column(tmp_path, classes) == {"a": 1.0, "b": 0.0}
    assert read_column(tmp_path, rule(number_unit="days")) == {"c": 3.5}
    assert task_of("x", classes, {}) == Task(name="x", kind="multiclass", classes=("died", "home", "ward"))
    assert task_of("x", rule(number_unit="days"), {}) == Task(name="x", kind="regression", unit="days")
    with pytest.raises(ValueError, match="at most one of"):
        rule(classes=("a", "b"), number_unit="days")


@pytest.mark.parametrize(
    ("task", "allowed", "refused"),
    [
        (Task(name="x"), (0, 1, np.nan), (2, 0.5, np.inf)),
        (Task(name="x", kind="multiclass", classes=("a", "b", "c")), (0, 2, np.nan), (3, -1, 1.5)),
        (Task(name="x", kind="regression"), (-7.5, 1e6, np.nan), (np.inf, -np.inf)),
    ],
)
def test_which_labels_a_task_allows(task, allowed, refused):
    assert all(task.allows(value) for value in allowed)
    assert not any(task.allows(value) for value in refused)
