import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmmcl.cohorts.events.settings import Variable
from tfmmcl.cohorts.events.timeline import ALWAYS
from tfmmcl.cohorts.events.variables import code_table, convert, merge, notes

SCHEMA = {"subject": pl.UInt32, "time": pl.Int64, "code": pl.String, "value": pl.Float64, "capped": pl.Boolean}
HR = Variable(codes=("HR",), unit="bpm", plausible=(20, 300))


def run(rows, **variables):
    """Returns the merged rows, with variables' names, and the notes."""
    events = pl.DataFrame(rows, SCHEMA, orient="row")
    converted = convert(events, code_table(variables, events["code"].unique()))
    merged, counts = merge(converted, variables)
    names = list(variables)
    found = [(subject, names[variable], time, value) for subject, variable, time, value in merged.rows()]
    return found, notes(variables, [counts])


def test_a_code_may_serve_several_variables_and_a_variable_have_several_codes():
    celsius = Variable(codes=("T C", {"code": "T F", "scale": 5 / 9, "offset": -160 / 9}))
    fever = Variable(codes=({"code": "T F", "value": 1}, "T *"))
    found, sentences = run([(0, 1, "T F", 212, False), (0, 2, "T C", 37, False)], celsius=celsius, fever=fever)
    assert found == [
        (0, "celsius", 1, pytest.approx(100)),
        (0, "celsius", 2, 37),
        (0, "fever", 1, 1),
        (0, "fever", 2, 37),
    ]
    assert sentences == []


def test_of_several_codes_that_match_the_first_counts():
    variable = Variable(codes=({"code": "A//*", "value": 7}, {"code": "A//x", "value": 8}))
    assert run([(0, 1, "A//x", None, False)], a=variable) == ([(0, "a", 1, 7)], [])


def test_an_event_without_a_number_is_an_occurrence():
    found, sentences = run([(0, ALWAYS, "HR", None, False)], hr=HR)
    assert found == [(0, "hr", ALWAYS, None)]
    assert sentences == ["hr: 1 of 1 events without a number."]


def test_a_heart_rate_of_zero_and_a_pressure_of_801_became_missing():
    pressure = Variable(codes=("MAP",), unit="mmHg", plausible=(0, 300))
    rows = [(0, 1, "HR", 0, False), (0, 2, "HR", 20, False), (0, 1, "MAP", 801, False), (0, 2, "MAP", 300, False)]
    found, sentences = run(rows, hr=HR, map=pressure)
    assert found == [(0, "hr", 1, None), (0, "hr", 2, 20), (0, "map", 1, None), (0, "map", 2, 300)]
    assert sentences == [
        "hr: 1 of 2 values below the plausible 20 to 300 bpm became missing.",
        "map: 1 of 2 values above the plausible 0 to 300 mmHg became missing.",
    ]


def test_an_age_of_90_or_more_is_read_as_90():
    age = Variable(codes=("age",), unit="1", plausible=(0, 89))
    assert run([(0, ALWAYS, "age", 90, True)], age=age) == (
        [(0, "age", ALWAYS, None)],
        [
            "age: 1 of 1 values, such as '90+', read as the number before the plus sign.",
            "age: 1 of 1 values above the plausible 0 to 89 became missing.",
        ],
    )
    always = Variable(codes=({"code": "age", "value": 1},))
    assert run([(0, ALWAYS, "age", 90, True)], old=always) == ([(0, "old", ALWAYS, 1)], [])


def test_events_at_one_time_become_their_mean():
    rows = [(0, 1, "HR", value, False) for value in (80, 90, 80, None, 0)] + [(0, 2, "HR", 70, False)]
    found, sentences = run(rows, hr=HR)
    assert found == [(0, "hr", 1, 85), (0, "hr", 2, 70)]
    assert sentences[-1] == "hr: 5 of 6 events share their time with another; the mean of their values is kept."


def test_an_event_without_a_readable_time_is_left_out():
    found, sentences = run([(0, None, "HR", 80, False), (0, 1, "HR", 81, False)], hr=HR)
    assert found == [(0, "hr", 1, 81)]
    assert sentences == ["hr: 1 of 2 events left out for want of a readable time."]


def test_a_variable_without_events_is_noted():
    _, sentences = run([(0, 1, "HR", 80, False)], hr=HR, mpap=Variable(codes=("X", "Y//*")))
    assert sentences == ["variable 'mpap': none of its codes (X, Y//*) occurs in the events."]


def test_numbers_that_overflow_are_missing():
    huge = Variable(codes=({"code": "x", "scale": 1e300},))
    assert run([(0, 1, "x", 1e300, False)], x=huge)[0] == [(0, "x", 1, None)]


number = st.one_of(st.none(), st.floats(-1e3, 1e3), st.sampled_from([0.1, 0.2, 0.3, 80.0]))
rows = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(st.none(), st.integers(0, 3)),
        st.sampled_from(["a", "b", "c/1", "c/2"]),
        number,
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)
factor = st.floats(-10, 10)
VARIABLES = {"first": ("a", "c/*"), "second": ("b", "a"), "third": ("c/2",)}


@settings(deadline=None, max_examples=100)
@given(rows, factor, factor, st.randoms())
def test_conversion_and_merging_agree_with_plain_python(events, scale, offset, shuffle):
    variables = {
        name: Variable(
            codes=tuple({"code": code, "scale": scale, "offset": offset} for code in codes), plausible=(-50, 99)
        )
        for name, codes in VARIABLES.items()
    }
    by_key, expected = {}, []
    for subject, time, code, value, _ in events:
        for name, codes in VARIABLES.items():
            if time is not None and (code in codes or (code[0] == "c" and "c/*" in codes)):
                converted = None if value is None else value * scale + offset
                by_key.setdefault((subject, list(VARIABLES).index(name), time), set()).add(converted)
    for (subject, position, time), values in sorted(by_key.items()):
        plausible = [value for value in values if value is not None and -50 <= value <= 99]
        mean = math.fsum(plausible) / len(plausible) if plausible else None
        expected.append((subject, list(VARIABLES)[position], time, mean))
    found, sentences = run(events, **variables)
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    np.testing.assert_allclose(
        [row[3] or 0 for row in found], [row[3] or 0 for row in expected], rtol=1e-12, atol=1e-12
    )
    assert [row[3] is None for row in found] == [row[3] is None for row in expected]
    shuffle.shuffle(events)
    assert run(events, **variables) == (found, sentences)


def test_a_map_says_what_each_value_stands_for_and_any_other_is_missing():
    surgical = Variable(codes=({"code": "ICUType", "map": {1: 0, 2: 1, 4: 1}}, "other"))
    rows = [(0, time, "ICUType", value, False) for time, value in enumerate([1, 2, 3, 4, None])]
    found, _ = run([*rows, (0, 9, "other", 7, False)], surgical=surgical)
    assert [value for *_, value in found] == [0, 1, None, 1, None, 7]
