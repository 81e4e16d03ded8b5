import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmmcl.cohorts.events.codes import matches, may_begin, wanted

code = st.text("ab/*.[\\ü\n$ ", max_size=6)


def by_hand(pattern, code):
    """Tries every way to fill the stars."""
    if not pattern:
        return not code
    if pattern[0] == "*":
        return any(by_hand(pattern[1:], code[i:]) for i in range(len(code) + 1))
    return bool(code) and code[0] == pattern[0] and by_hand(pattern[1:], code[1:])


@settings(deadline=None, max_examples=300)
@given(code, code)
def test_a_star_is_anything_and_all_else_itself(pattern, code):
    assert matches(pattern, code) == by_hand(pattern, code)


@settings(deadline=None, max_examples=200)
@given(st.lists(code, max_size=4), st.lists(code, min_size=1, max_size=6))
def test_a_column_is_filtered_as_its_codes_match(patterns, codes):
    found = pl.DataFrame({"code": codes}).select(wanted(pl.col("code"), patterns)).to_series().to_list()
    assert found == [any(by_hand(pattern, code) for pattern in patterns) for code in codes]


@given(code, st.text("ab/", max_size=4), code)
def test_no_code_is_missed_by_its_beginning(pattern, prefix, rest):
    if by_hand(pattern, prefix + rest):
        assert may_begin(pattern, prefix)


def test_beginnings_that_cannot_match_are_told():
    assert not may_begin("LAB//220045//bpm", "ICU_")
    assert not may_begin("LAB//*", "ICU_")
    assert may_begin("L*", "LAB//")
