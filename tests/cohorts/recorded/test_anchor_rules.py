"""Stays, anchors and windows against brute force over random events."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmmcl.cohorts.events.timeline import ALWAYS, Series, Timeline
from tfmmcl.cohorts.recorded.anchors import Stay, find_anchors, find_stays
from tfmmcl.cohorts.recorded.settings import AnchorSettings, StaySettings, WindowSettings
from tfmmcl.cohorts.recorded.windows import last_before, summarise, window_bounds

SECOND = 1_000_000
STATISTICS = ("mean", "std", "min", "max", "median", "first", "last", "count")


def series(times, values=None, unit=SECOND):
    times = np.array(sorted(times), np.int64) * unit
    return Series(times, np.zeros(len(times)) if values is None else np.array(values, float))


def timeline(**events):
    return Timeline("s", {name: series(times) for name, times in events.items()})


moments = st.sets(st.integers(0, 60), max_size=12)


@given(moments, moments)
def test_stays_pair_each_start_with_the_next_end(starts, ends):
    found = find_stays(timeline(begin=starts, end=ends), StaySettings(start="begin", end="end"), None)
    expected = []
    for time in sorted(starts | ends):
        ending = time in ends
        if expected and expected[-1][1] is None:
            expected[-1][1], ending = time, False
        if time in starts:
            expected.append([time, time if ending else None])
    assert found == [Stay(start * SECOND, None if end is None else end * SECOND) for start, end in expected]


def test_a_transfer_ends_one_stay_and_begins_the_next():
    found = find_stays(timeline(begin=[0, 4], end=[4, 9]), StaySettings(start="begin", end="end"), None)
    assert found == [Stay(0, 4 * SECOND), Stay(4 * SECOND, 9 * SECOND)]


@pytest.mark.parametrize("every", ["1 s", "0.0001 ms"])
def test_a_wrong_date_does_not_make_endless_anchors(every):
    far = 2_000_000 * SECOND
    anchors, lost = find_anchors(timeline(), [Stay(0)], [AnchorSettings(every=every)], 1.0, far)
    assert anchors == []
    assert [(item.level, item.reason) for item in lost] == [
        ("stays", "over a million anchors fall into it, as where a date is wrong")
    ]


def test_without_a_rule_there_is_one_stay_from_the_first_event_on():
    assert find_stays(timeline(), None, 7) == [Stay(7)]
    assert find_stays(timeline(), None, None) == []
    assert find_stays(timeline(x=[5]), StaySettings(start="time_zero"), 5 * SECOND) == [Stay(0)]


def test_values_without_a_time_begin_no_stay_and_anchor_nothing():
    always = Timeline("s", {"x": Series(np.array([ALWAYS]), np.array([1.0]))})
    assert find_stays(always, StaySettings(start="x"), None) == []
    assert find_anchors(always, [Stay(0)], [AnchorSettings(each="x")], 1.0, 10)[0] == []


@given(st.sets(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=5), moments)
def test_anchors_at_each_event_lie_in_the_latest_stay_that_holds_them(spans, events):
    stays = sorted(Stay(start * SECOND, (start + length) * SECOND) for start, length in spans)
    anchors, lost = find_anchors(timeline(x=events), stays, [AnchorSettings(each="x")], 1.0, None)
    inside = {
        time: max(start for start, length in spans if start < time <= start + length)
        for time in events
        if any(start < time <= start + length for start, length in spans)
    }
    assert [anchor.time for anchor in anchors] == [time * SECOND for time in sorted(inside)]
    assert all(anchor.stay.start == inside[anchor.time // SECOND] * SECOND for anchor in anchors)
    assert sum(item.level == "anchors" for item in lost) == len(events) - len(inside)
    used = {(anchor.stay.start, anchor.stay.end) for anchor in anchors}
    assert sum(item.level == "stays" for item in lost) == len(stays) - len(used)


@given(st.integers(0, 20), st.one_of(st.none(), st.integers(0, 60)), st.integers(1, 9), st.integers(0, 30))
def test_anchors_at_an_interval_run_from_the_first_to_the_end_of_the_stay(start, length, every, last):
    stay = Stay(start * SECOND, None if length is None else (start + length) * SECOND)
    rule = AnchorSettings(every=f"{every} s")
    anchors, _ = find_anchors(timeline(), [stay], [rule], 5.0, last * SECOND)
    end = last if length is None else start + length
    expected = [time for time in range(200) if time >= start + 5 and (time - start - 5) % every == 0 and time <= end]
    assert [anchor.time // SECOND for anchor in anchors] == expected


def test_one_anchor_at_a_set_time_only_where_the_stay_lasts_so_long():
    rule = [AnchorSettings(after_start="10 s")]
    stays = [Stay(0, 9 * SECOND), Stay(20 * SECOND, 30 * SECOND), Stay(40 * SECOND)]
    anchors, lost = find_anchors(timeline(), stays, rule, 1.0, None)
    assert [anchor.time // SECOND for anchor in anchors] == [30, 50]
    assert [(item.level, item.reason) for item in lost] == [("stays", "no anchor falls into it")]


def test_anchors_that_coincide_are_one():
    rules = [AnchorSettings(each="x"), AnchorSettings(every="5 s", first="5 s")]
    anchors, _ = find_anchors(timeline(x=[5, 7]), [Stay(0, 10 * SECOND)], rules, 1.0, None)
    assert [anchor.time // SECOND for anchor in anchors] == [5, 7, 10]


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({}, "exactly one of"),
        ({"each": "x", "every": "1 h"}, "exactly one of"),
        ({"each": "x", "first": "1 h"}, "goes with 'every'"),
        ({"every": "0 s"}, "greater than 0"),
        ({"after_start": "0 s"}, "greater than 0"),
        ({"every": "1 h", "first": "0 s"}, "greater than 0"),
        ({"every": 30}, "with its unit"),
    ],
)
def test_anchor_settings_say_what_is_wrong(tree, says):
    with pytest.raises(ValueError, match=says):
        AnchorSettings(**tree)


@given(st.integers(-50, 50), st.integers(1, 8), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 12)))
def test_windows_are_evenly_spaced_and_the_last_ends_at_the_anchor(anchor, count, length, stride):
    settings_ = WindowSettings(count=count, length=f"{length} s", stride=stride and f"{stride} s")
    bounds = window_bounds(anchor * SECOND, settings_) // SECOND
    step = stride or length
    assert bounds.tolist() == [[anchor - k * step - length, anchor - k * step] for k in range(count - 1, -1, -1)]
    assert (anchor - bounds[0, 0]) == settings_.span


events = st.lists(st.tuples(st.integers(0, 40), st.one_of(st.just(np.nan), st.integers(-5, 5).map(float))), max_size=25)


@settings(deadline=None)
@given(events, st.integers(0, 45), st.integers(1, 5), st.integers(1, 12), st.integers(1, 12))
def test_summaries_equal_brute_force(pairs, anchor, count, length, stride):
    pairs = sorted(dict(pairs).items())  # times are unique
    bounds = window_bounds(anchor * SECOND, WindowSettings(count=count, length=f"{length} s", stride=f"{stride} s"))
    found = summarise(series([time for time, _ in pairs], [value for _, value in pairs]), bounds, STATISTICS)
    for window, (start, stop) in enumerate(bounds // SECOND):
        inside = [value for time, value in pairs if start <= time < stop and not np.isnan(value)]
        expected = [np.nan] * 7 + [0.0]
        if inside:
            std = np.std(inside, ddof=1) if len(inside) > 1 else np.nan
            expected = [np.mean(inside), std, min(inside), max(inside), np.median(inside), inside[0], inside[-1]]
            expected.append(len(inside))
        np.testing.assert_allclose(found[window], expected, atol=1e-12)


@given(events, st.integers(0, 45), st.one_of(st.none(), st.integers(1, 30)), st.booleans())
def test_last_value_before_equals_brute_force(pairs, anchor, look_back, from_the_start):
    pairs = sorted(dict(pairs).items())
    known = [v for t, v in pairs if t < anchor and not np.isnan(v) and (look_back is None or t >= anchor - look_back)]
    expected = known[-1] if known else 99.0 if from_the_start else np.nan
    plain = series([time for time, _ in pairs], [value for _, value in pairs])
    if from_the_start:
        plain = Series(np.insert(plain.times, 0, ALWAYS), np.insert(plain.values, 0, 99.0))
    np.testing.assert_equal(last_before(plain, anchor * SECOND, look_back), expected)
