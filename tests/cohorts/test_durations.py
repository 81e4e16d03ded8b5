from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tfmmcl.cohorts.durations import Duration, microseconds


class Holder(BaseModel):
    length: Duration


UNITS = {"ms": Fraction(1, 1000), "s": 1, "min": 60, "h": 3600, "d": 86400}


@given(st.integers(0, 10**6), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " ", "  "]))
def test_a_text_with_a_unit_is_seconds(number, unit, blank):
    assert Holder(length=f"{number}{blank}{unit}").length == pytest.approx(float(number * UNITS[unit]), rel=1e-15)


@given(st.floats(0, 1e9))
def test_what_is_written_reads_back_the_same(seconds):
    original = Holder.model_construct(length=seconds)
    assert Holder.model_validate(original.model_dump(mode="json")).length == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(1800.0, "30 min"), (30.0, "30 s"), (86400.0, "1 d"), (0.0, "0 s"), (5400.0, "90 min")]
)
def test_lengths_are_written_in_the_largest_unit_that_divides_them(seconds, text):
    assert Holder.model_construct(length=seconds).model_dump(mode="json") == {"length": text}


@pytest.mark.parametrize("value", ["30", 30, 30.0, "min", "-3 s", "3 weeks", "1e s", "", None, "nan s"])
def test_anything_else_is_refused(value):
    with pytest.raises(ValidationError, match="a number with its unit"):
        Holder(length=value)


def test_times_are_whole_microseconds():
    assert microseconds(0.1 + 0.2) == 300_000
    assert microseconds(1e-7) == 0
