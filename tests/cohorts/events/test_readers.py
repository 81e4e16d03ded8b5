import csv
import gzip
import math
import re
from datetime import timedelta

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from real_data import real

from tfmmcl.cohorts.events.canonical import SCHEMA
from tfmmcl.cohorts.events.readers import read
from tfmmcl.cohorts.events.settings import EventInput
from tfmmcl.cohorts.events.timeline import ALWAYS
from tfmmcl.errors import InputError

HOUR = 3_600_000_000


def events(root, codes=("*",), zone=None, **settings):
    """Returns canonical rows, sorted, and the subjects."""
    source = read(root, TypeAdapter(EventInput).validate_python(settings), codes, zone)
    found = source.events.collect(engine="streaming")
    assert dict(found.schema) == SCHEMA
    rows = found.drop("zoned").rows()
    return sorted(rows, key=str), sorted(set(source.subjects.collect()["subject"]) - {None})


def row(subject, time, code, value=None, capped=False):
    return subject, time, code, value, capped


LONG = {
    "format": "long",
    "path": "*.csv",
    "subject": {"column": "id"},
    "time": {"column": "t", "unit": "h"},
    "code": "c",
    "value": "v",
}


def test_long_tables_have_an_event_per_row(tmp_path):
    (tmp_path / "a.csv").write_text("id,t,c,v\n1, 2 , HR ,80\n1,2,HR,\n 2,,HR,90+\n2,1,Note,fine+\n,1,HR,1\n3,1,,5\n")
    (tmp_path / "b.csv").write_text("v,c,t,id\n-1e1,HR,0,4\ninf,HR,0,4\n 7 + ,HR,0,4\n")
    found, subjects = events(tmp_path, **LONG)
    assert found == sorted(
        [
            row("1", 2 * HOUR, "HR", 80.0),
            row("1", 2 * HOUR, "HR"),
            row("2", None, "HR", 90.0, True),
            row("2", HOUR, "Note"),
            row(None, HOUR, "HR", 1.0),
            row("3", HOUR, None, 5.0),
            row("4", 0, "HR", -10.0),
            row("4", 0, "HR"),
            row("4", 0, "HR", 7.0, True),
        ],
        key=str,
    )
    assert subjects == ["1", "2", "3", "4"]


def test_without_a_time_column_events_hold_from_the_start(tmp_path):
    (tmp_path / "a.csv").write_text("id,c,v\n1,age,80\n")
    assert events(tmp_path, **{**LONG, "time": None})[0] == [row("1", ALWAYS, "age", 80.0)]


def test_subjects_may_stand_in_the_path(tmp_path):
    for name in ("s1", "s2"):
        (tmp_path / f"{name}.csv").write_text("id,t,c,v\n" + ("9,1,HR,80\n" if name == "s1" else ""))
    by_path = {**LONG, "subject": {"pattern": r"s(\d)\.csv$"}}
    assert events(tmp_path, **by_path) == ([row("1", HOUR, "HR", 80.0)], ["1", "2"])
    (tmp_path / "other.csv").write_text("id,t,c,v\n")
    with pytest.raises(InputError, match=r"^\*\.csv: the path 'other\.csv' has no subject's id"):
        events(tmp_path, **by_path)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"subject": {"column": "idd"}}, "'idd', found id, t, c, v; did you mean 'id'?"),
        ({"time": {"column": "tt"}}, "'tt', found id, t, c, v; did you mean 't'?"),
        ({"code": "cc"}, "'cc', found id, t, c, v; did you mean 'c'?"),
        ({"value": "value"}, "'value', found id, t, c, v"),
    ],
)
def test_a_missing_column_is_one_sentence(tmp_path, change, missing):
    (tmp_path / "a.csv").write_text("id,t,c,v\n")
    with pytest.raises(InputError, match=f"^{re.escape(f'*.csv: no column {missing}.')}$"):
        events(tmp_path, **{**LONG, **change})


WIDE = {"format": "wide", "path": "w.*", "subject": {"column": "id"}, "time": {"column": "t", "unit": "s"}}


def test_wide_tables_have_an_event_per_cell(tmp_path):
    (tmp_path / "w.csv").write_text("t,id,hr,sex,age\n-0,1,80,F,90+\n1,1,NaN, ,nan\n2,1,inf,x y,\n")
    found, subjects = events(tmp_path, **WIDE)
    assert found == sorted(
        [
            row("1", 0, "hr", 80.0),
            row("1", 0, "sex//F"),
            row("1", 0, "age", 90.0, True),
            row("1", 2_000_000, "hr"),
            row("1", 2_000_000, "sex//x y"),
        ],
        key=str,
    )
    assert subjects == ["1"]


def test_wide_parquet_keeps_numbers_and_splits_texts(tmp_path):
    frame = {"id": [1, 2], "t": [0, 1], "hr": [80, None], "x": [float("nan"), float("inf")], "sex": ["F", None]}
    pl.DataFrame({**frame, "on": [True, False]}).write_parquet(tmp_path / "w.parquet")
    assert events(tmp_path, **WIDE)[0] == sorted(
        [
            row("1", 0, "hr", 80.0),
            row("1", 0, "sex//F"),
            row("1", 0, "on", 1.0),
            row("2", 1_000_000, "x"),
            row("2", 1_000_000, "on", 0.0),
        ],
        key=str,
    )


def test_only_columns_that_may_be_wanted_are_read(tmp_path):
    (tmp_path / "w.csv").write_text("t,id,hr,sex,h\n0,1,80,F,1\n")
    codes = {row[2] for row in events(tmp_path, codes=("hr", "sex//M"), **WIDE)[0]}
    assert codes == {"hr", "sex//F"}
    assert events(tmp_path, codes=("other",), **WIDE)[0] == []
    assert [row[2] for row in events(tmp_path, codes=(), measurements=("h",), **WIDE)[0]] == ["h"]
    with pytest.raises(InputError, match="no column 'hrr'"):
        events(tmp_path, measurements=("hrr",), **WIDE)


def test_columns_may_be_named_like_ours(tmp_path):
    names = ["time", "subject", "code", "value", "zoned", "capped"]
    (tmp_path / "w.csv").write_text(f"t,id,{','.join(names)}\n0,1,2,3,4,5,6,7\n")
    found = events(tmp_path, **WIDE)[0]
    assert {row[2]: row[3] for row in found} == {name: i for i, name in enumerate(names, 2)}
    assert {row[:2] for row in found} == {("1", 0)}


def test_text_files_give_each_fields_first_match(tmp_path):
    (tmp_path / "p1.txt").write_text("Age: 90+ \nSex: F\nAge: 3\n")
    (tmp_path / "p2.txt").write_bytes(b"Sex: \xff\nAge: NaN\nWard: \n")
    fields = {"age": r"Age: (.*)", "sex": "^Sex: (.*)$", "ward": "Ward: (.*)"}
    found, subjects = events(tmp_path, format="text", path="*.txt", subject=r"p(\d)", fields=fields)
    expected = [row("1", ALWAYS, "age", 90.0, True), row("1", ALWAYS, "sex//F"), row("2", ALWAYS, "sex//\ufffd")]
    assert found == sorted(expected, key=str)
    assert subjects == ["1", "2"]


def test_meds_events_without_a_time_hold_from_the_start(tmp_path):
    (tmp_path / "data/train").mkdir(parents=True)
    frame = {"subject_id": [1, 2], "time": [None, pd.Timestamp("1970-01-01 01:00")], "code": ["GENDER//F", "A "]}
    pl.DataFrame({**frame, "numeric_value": pl.Series([None, 0.1], dtype=pl.Float32)}).write_parquet(
        tmp_path / "data/train/0.parquet"
    )
    found, subjects = events(tmp_path, format="meds")
    tenth = 0.10000000149011612  # the nearest float32
    assert found == sorted([row("1", ALWAYS, "GENDER//F"), row("2", HOUR, "A ", tenth)], key=str)
    assert subjects == ["1", "2"]


cell = st.sampled_from(["", "1", "-2.5", "90+", "inf", "nan", "male", " 7 ", "1e3"])
cells = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 100), cell, cell), min_size=1, max_size=10)


def number_by_hand(text):
    try:
        value = float(text.strip().removesuffix("+"))
    except ValueError:
        return None, False
    return (value, text.strip().endswith("+")) if math.isfinite(value) else (None, False)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells, st.randoms())
def test_wide_and_long_tables_read_as_plain_python_reads_them(tmp_path, table, shuffle):
    with open(tmp_path / "w.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id", "t", "a", "b"), *table])
    expected_wide, expected_long = [], []
    for subject, time, *values in table:
        for code, text in zip("ab", values):
            value, capped = number_by_hand(text)
            stripped = text.strip()
            expected_long.append(row(str(subject), time * HOUR, code, value, capped))
            if stripped not in ("", "nan"):
                is_word = stripped == "male"
                name = f"{code}//{stripped}" if is_word else code
                expected_wide.append(row(str(subject), time * 1_000_000, name, value, capped))
    assert events(tmp_path, **WIDE)[0] == sorted(expected_wide, key=str)

    lines = [(subject, time, code, text) for subject, time, *values in table for code, text in zip("ab", values)]
    shuffle.shuffle(lines)
    for index in range(2):
        with gzip.open(tmp_path / f"{index}.csv.gz", "wt", newline="") as file:
            csv.writer(file).writerows([("id", "t", "c", "v"), *lines[index::2]])
    assert events(tmp_path, **{**LONG, "path": "*.csv.gz"})[0] == sorted(expected_long, key=str)


def test_challenge_2012_reads_as_plain_python_reads_it():
    root = real("fixtures/challenge2012")
    found, subjects = events(
        root,
        format="long",
        path="set-a/*.txt",
        subject={"pattern": r"(\d+)\.txt$"},
        time={"column": "Time", "unit": "clock"},
        code="Parameter",
        value="Value",
    )
    expected = []
    for path in sorted((root / "set-a").iterdir()):
        for line in list(csv.DictReader(path.open())):
            hours, minutes = map(int, line["Time"].split(":"))
            time = (hours * 60 + minutes) * 60_000_000
            expected.append(row(path.stem, time, line["Parameter"] or None, float(line["Value"])))
    assert found == sorted(expected, key=str)
    assert len(subjects) == 25


def test_bidmc_numerics_read_as_pandas_reads_them():
    root = real("bidmc")
    path = "bidmc_*_Numerics.csv"
    found, subjects = events(
        root, format="wide", path=path, subject={"pattern": r"bidmc_(\d+)_"}, time={"column": "Time [s]", "unit": "s"}
    )
    expected = []
    for file in root.glob(path):
        table = pd.read_csv(file, skipinitialspace=True).rename(columns=str.strip)
        long = table.melt("Time [s]").dropna()
        expected += [
            row(file.name[6:8], round(time * 1_000_000), code, float(value))
            for time, code, value in long.itertuples(index=False)
        ]
    assert found == sorted(expected, key=str)
    assert len(subjects) == 16
    assert min(row[1] for row in found) == 0  # written "-0"


def test_bidmc_fixed_values_are_read_from_their_texts():
    root = real("bidmc")
    fields = {"age": r"Age: (.*)", "sex": r"Gender: (.*)", "id": r"matched wdb ID: (.*)"}
    found, _ = events(root, format="text", path="*_Fix.txt", subject=r"bidmc_(\d+)_", fields=fields)
    texts = {path.name[6:8]: path.read_text() for path in root.glob("*_Fix.txt")}
    ages = {subject: re.search("Age: (.*)", text)[1].strip() for subject, text in texts.items()}
    expected = {subject: number_by_hand(age) for subject, age in ages.items() if age != "NaN"}
    assert {row[0]: row[3:] for row in found if row[2] == "age"} == expected
    assert len(expected) == 16
    sexes = {subject: re.search("Gender: ([MF])", text)[1] for subject, text in texts.items()}
    assert {row[0]: row[2] for row in found if row[2].startswith("sex")} == {k: f"sex//{v}" for k, v in sexes.items()}


def test_yaib_tables_read_as_plain_python_reads_them():
    root = real("fixtures/yaib/mortality24/mimic_demo")
    found, subjects = events(
        root, **{**WIDE, "path": "dyn.parquet", "subject": {"column": "stay_id"}, "time": {"column": "time"}}
    )
    expected = [
        row(str(line["stay_id"]), line["time"] // timedelta(microseconds=1), name, value)
        for line in pl.read_parquet(root / "dyn.parquet").iter_rows(named=True)
        for name, value in line.items()
        if name not in ("stay_id", "time") and value is not None
    ]
    assert found == sorted(expected, key=str)
    assert len(subjects) == 99
    static, _ = events(root, format="wide", path="sta.parquet", subject={"column": "stay_id"})
    assert {row[2] for row in static} == {"age", "height", "weight", "sex//Male", "sex//Female"}
    assert {row[1] for row in static} == {ALWAYS}
