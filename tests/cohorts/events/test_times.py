import re
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tfmmcl.cohorts.events.settings import TimeColumn
from tfmmcl.cohorts.events.times import check_zone, microseconds
from tfmmcl.errors import InputError

UTC = timezone.utc
EPOCH = datetime(1970, 1, 1)
BERLIN = "Europe/Berlin"


def read(values, zone=None, dtype=None, **settings):
    """Returns the times, and whether each carries an unexpected zone."""
    frame = pl.DataFrame({"t": pl.Series(values, dtype=dtype)})
    time, zoned = microseconds(TimeColumn(column="t", **settings), frame.schema["t"], zone, "events.csv")
    found = frame.select(time=time, zoned=zoned)
    return found["time"].to_list(), found["zoned"].to_list()


def since_epoch(time):
    return (time - EPOCH) // timedelta(microseconds=1)


moment = st.datetimes(datetime(1800, 1, 1), datetime(2300, 1, 1))


@settings(deadline=None, max_examples=50)
@given(st.lists(moment, min_size=1, max_size=5), st.sampled_from(["T", " "]))
def test_iso_dates_in_any_order(times, separator):
    texts = [time.isoformat(separator) for time in times]
    assert read([f" {text} " for text in texts])[0] == [since_epoch(time) for time in times]
    minutes = [time.replace(second=0, microsecond=0) for time in times]
    texts = [time.isoformat(separator, "minutes") for time in minutes] + [times[0].date().isoformat()]
    days = datetime.combine(times[0].date(), datetime.min.time())
    assert read(texts)[0] == [since_epoch(time) for time in [*minutes, days]]


def test_a_format_says_how_dates_are_written():
    found, zoned = read(["31.12.2019 23:59", "2019-12-31 23:59", "31.12.2019"], format="%d.%m.%Y %H:%M")
    assert (found, zoned) == ([since_epoch(datetime(2019, 12, 31, 23, 59)), None, None], [False] * 3)
    assert read(["31.12.2019"], format="%d.%m.%Y")[0] == [since_epoch(datetime(2019, 12, 31))]


def test_what_cannot_be_read_is_null():
    assert read(["", None, "soon", "2020-13-01", "2020-01-01 25:00:00", "47:59", "12"])[0] == [None] * 7


@given(st.integers(0, 5000), st.integers(0, 59), st.integers(0, 59), st.sampled_from(["", "-"]))
@settings(deadline=None, max_examples=50)
def test_clock_times_have_hours_without_limit(hours, minutes, seconds, sign):
    factor = -1_000_000 if sign else 1_000_000
    expected = [factor * (hours * 3600 + minutes * 60), factor * (hours * 3600 + minutes * 60 + seconds)]
    texts = [f"{sign}{hours:02d}:{minutes:02d}", f"{sign}{hours}:{minutes:02d}:{seconds:02d}"]
    assert read(texts, unit="clock")[0] == expected


def test_what_is_no_clock_time_is_null():
    assert read(["00:60", "1:2:3:4", "12", "", None, "9" * 400 + ":00"], unit="clock")[0] == [None] * 6


SECONDS = {"ms": Fraction(1, 1000), "s": 1, "min": 60, "h": 3600, "d": 86400}


@settings(deadline=None, max_examples=100)
@example(1001, 3, "ms", True)
@given(st.integers(-(10**6), 10**6), st.integers(0, 3), st.sampled_from(sorted(SECONDS)), st.booleans())
def test_numbers_are_rounded_to_microseconds(digits, places, unit, as_text):
    exact = Fraction(digits, 10**places) * SECONDS[unit] * 1_000_000
    assume(abs(exact) < 10**15)  # 31 years, beyond which a float does not tell microseconds apart
    value = digits / 10**places
    (found,), _ = read([f"{value:.{places}f}" if as_text else value], unit=unit)
    assert found == round(exact)


def test_numbers_that_are_none_are_null():
    assert read(["-0", " 1.5 ", "", "x", "nan", "inf", "1e300", None], unit="s")[0] == [0, 1_500_000] + [None] * 6


def test_columns_that_are_dates_or_durations_need_no_unit():
    hour = 3_600_000_000
    for unit in ("s", "clock", "datetime"):
        assert read([timedelta(hours=1), None], dtype=pl.Duration("ms"), unit=unit)[0] == [hour, None]
        assert read([datetime(1970, 1, 1, 1)], dtype=pl.Datetime("ns"), unit=unit)[0] == [hour]
        assert read([date(1970, 1, 2)], dtype=pl.Date, unit=unit)[0] == [24 * hour]


def test_columns_of_another_type_are_refused():
    for values, unit in (([1], "datetime"), ([1.0], "clock"), ([True], "s")):
        with pytest.raises(InputError, match=rf"^events.csv: column 't' holds \w+, expected times as '{unit}'\.$"):
            read(values, unit=unit)


ZONED = ["2020-01-01T10:00:00Z", "2020-01-01 10:00:00.5+02:00", "2020-01-01 10:00-0530", "2020-01-01T10:00:00 +01"]
IN_UTC = [
    datetime(2020, 1, 1, 10),
    datetime(2020, 1, 1, 8, 0, 0, 500_000),
    datetime(2020, 1, 1, 15, 30),
    datetime(2020, 1, 1, 9),
]


def test_times_with_a_zone_are_told_where_none_is_expected():
    assert read([*ZONED, "2020-01-01", "x"]) == (
        [None] * 4 + [since_epoch(datetime(2020, 1, 1)), None],
        [True] * 4 + [False] * 2,
    )
    message = "events.csv: times carry a zone (UTC), expected times without one, or inputs.time_zone set."
    for values, options in (
        ([datetime(2020, 1, 1, tzinfo=UTC)], {}),
        (["2020-01-01 +0100"], {"format": "%Y-%m-%d %z"}),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            read(values, **options)


def test_times_with_a_zone_become_utc():
    assert read(ZONED, BERLIN) == ([since_epoch(time) for time in IN_UTC], [False] * 4)
    aware = [time.replace(tzinfo=UTC).astimezone(ZoneInfo(BERLIN)) for time in IN_UTC]
    assert read(aware, BERLIN, dtype=pl.Datetime("us", BERLIN))[0] == [since_epoch(time) for time in IN_UTC]


@settings(deadline=None, max_examples=100)
@given(st.one_of(st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)), st.just(datetime(2024, 10, 27, 2, 30))))
def test_times_without_a_zone_are_local_where_one_is_given(time):
    utc = time.replace(tzinfo=ZoneInfo(BERLIN), fold=0).astimezone(UTC).replace(tzinfo=None)
    if utc.replace(tzinfo=UTC).astimezone(ZoneInfo(BERLIN)).replace(tzinfo=None) == time:
        assert read([time.isoformat()], BERLIN)[0] == [since_epoch(utc)]
        assert read([time], BERLIN, dtype=pl.Datetime("us"))[0] == [since_epoch(utc)]


def test_of_a_time_shown_twice_the_first_and_a_skipped_one_an_hour_later():
    found, _ = read(["2024-10-27 02:30:00", "2024-03-31 02:30:00", "2024-03-31 03:30:00"], BERLIN)
    assert found == [since_epoch(time) for time in (datetime(2024, 10, 27, 0, 30), *[datetime(2024, 3, 31, 1, 30)] * 2)]


def test_times_since_zero_are_never_shifted():
    assert read(["01:00"], BERLIN, unit="clock")[0] == read(["1"], BERLIN, unit="h")[0] == [3_600_000_000]


def test_a_zone_is_one_that_exists():
    check_zone(None)
    check_zone(BERLIN)
    with pytest.raises(InputError, match=r"^inputs.time_zone is 'Berlin', expected the IANA name"):
        check_zone("Berlin")
