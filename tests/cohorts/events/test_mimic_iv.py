import gzip
import re

import numpy as np
import polars as pl
import pytest
from real_data import real

from tfmmcl.cohorts.events.mimic_iv import read_mimic_iv
from tfmmcl.cohorts.events.readers import read
from tfmmcl.cohorts.events.settings import MedsInput, MimicIvInput
from tfmmcl.cohorts.events.timeline import ALWAYS
from tfmmcl.errors import InputError

TABLES = {
    "hosp/patients": "subject_id,gender,anchor_age,anchor_year,dod\n1,F,60,2150,2151-02-03\n2,M,50,2160,\n",
    "hosp/admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,"
    "admission_type,admission_location,discharge_location\n"
    "1,10,2150-01-01 10:00:00,2150-01-05 11:00:00,,URGENT,PACU,\n"
    "1,11,2151-02-01 10:00:00,2151-02-03 12:00:00,2151-02-03 11:30:00,EW EMER.,,DIED\n",
    "hosp/labevents": "subject_id,itemid,charttime,value,valuenum,valueuom\n1,50971,2150-01-02 00:00:00,4.1,4.1,mEq/L\n"
    "1,50971,2150-01-03 00:00:00,___,,\n1,50983,2150-01-02 00:00:00,140,140,mEq/L\n",
    "icu/chartevents": "subject_id,itemid,charttime,value,valuenum,valueuom\n1,220045,2150-01-02 00:00:00,80,80,bpm\n"
    "2,220045,2160-01-02 00:00:00,0,0,bpm\n",
    "icu/icustays": "subject_id,stay_id,first_careunit,last_careunit,intime,outtime\n"
    "1,20,CCU,MICU,2150-01-01 12:00:00,2150-01-04 00:00:00\n",
}


@pytest.fixture
def root(tmp_path):
    for index, (name, text) in enumerate(TABLES.items()):
        path = tmp_path / "mimic" / (name + (".csv", ".csv.gz")[index % 2])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return tmp_path


def events(root, *codes):
    source = read_mimic_iv(root, MimicIvInput(format="mimic_iv", path="mimic"), codes, None)
    assert sorted(source.subjects.collect()["subject"]) == ["1", "2"]
    frame = source.events.collect()
    assert not frame["capped"].any()
    assert not frame["zoned"].any()
    times = pl.when(pl.col("time") != ALWAYS).then(pl.from_epoch("time", "us").dt.to_string("%Y-%m-%d %H:%M"))
    found = frame.with_columns(times.alias("time")).select("subject", "time", "code", "value").rows()
    return sorted(found, key=str), [table.path for table in source.tables]


PEOPLE = [
    ("1", None, "GENDER//F", None),
    ("2", None, "GENDER//M", None),
    ("1", "2090-01-01 00:00", "MEDS_BIRTH", None),
    ("2", "2110-01-01 00:00", "MEDS_BIRTH", None),
    ("1", "2151-02-03 11:30", "MEDS_DEATH", None),
    ("1", "2150-01-01 10:00", "HOSPITAL_ADMISSION//URGENT//PACU", None),
    ("1", "2151-02-01 10:00", "HOSPITAL_ADMISSION//EW EMER.//UNK", None),
    ("1", "2150-01-05 11:00", "HOSPITAL_DISCHARGE//UNK", None),
    ("1", "2151-02-03 12:00", "HOSPITAL_DISCHARGE//DIED", None),
]
STAYS = [
    ("1", "2150-01-01 12:00", "ICU_ADMISSION//CCU", None),
    ("1", "2150-01-04 00:00", "ICU_DISCHARGE//MICU", None),
]
POTASSIUM = [
    ("1", "2150-01-02 00:00", "LAB//50971//mEq/L", float(np.float32(4.1))),
    ("1", "2150-01-03 00:00", "LAB//50971//UNK", None),
]
OTHERS = [
    ("1", "2150-01-02 00:00", "LAB//50983//mEq/L", 140.0),
    ("1", "2150-01-02 00:00", "LAB//220045//bpm", 80.0),
    ("2", "2160-01-02 00:00", "LAB//220045//bpm", 0.0),
]


@pytest.mark.parametrize(
    ("codes", "expected", "tables"),
    [
        (("*",), PEOPLE + STAYS + POTASSIUM + OTHERS, 5),
        (("LAB//*//bpm",), PEOPLE + POTASSIUM + OTHERS, 4),
        (("LAB//50971//*", "LAB//50971//mEq/L"), PEOPLE + POTASSIUM, 4),
        (("ICU_ADMISSION//*",), PEOPLE + STAYS, 3),
        (("MEDS_DEATH",), PEOPLE, 2),
    ],
)
def test_tables_become_the_codes_of_the_meds_release(root, codes, expected, tables):
    found, read = events(root, *codes)
    assert found == sorted(expected, key=str)
    assert len(read) == tables


def test_a_death_outside_hospital_is_at_the_days_beginning(root):
    path = root / "mimic/hosp/admissions.csv.gz"
    path.write_bytes(gzip.compress(TABLES["hosp/admissions"].replace("2151-02-03 11:30:00", "").encode()))
    assert ("1", "2151-02-03 00:00", "MEDS_DEATH", None) in events(root, "*")[0]


def test_a_table_that_is_needed_and_missing_is_one_sentence(root):
    (root / "mimic/hosp/labevents.csv").unlink()
    events(root, "ICU_ADMISSION//*")
    message = "no mimic/hosp/labevents.csv or mimic/hosp/labevents.csv.gz, which a variable's code needs."
    with pytest.raises(InputError, match=re.escape(message)):
        events(root, "LAB//50971//*")


def test_a_column_that_is_missing_is_one_sentence(root):
    path = root / "mimic/hosp/patients.csv"
    path.write_text(path.read_text().replace("dod", "date_of_death"))
    with pytest.raises(InputError, match=r"^mimic/hosp/patients.csv: no column 'dod', found subject_id, "):
        events(root, "*")


def test_unpacked_files_beside_packed_ones_are_not_read_twice(root):
    path = root / "mimic/hosp/admissions.csv"
    path.write_text(TABLES["hosp/admissions"])
    assert events(root, "MEDS_DEATH")[0] == sorted(PEOPLE, key=str)


def test_the_demo_gives_the_events_of_its_meds_release():
    meds = read(real("fixtures/meds_demo"), MedsInput(format="meds"), ["*"]).events.collect()
    tables = read(real("fixtures/mimic_iv_demo"), MimicIvInput(format="mimic_iv"), ["*"]).events.collect()
    tables = tables.filter(pl.col("subject").is_in(meds["subject"].unique().to_list()))
    meds = meds.filter(pl.col("code").str.contains("^(LAB//|ICU_|HOSPITAL_|MEDS_|GENDER//)"))
    # The demo's chartevents here are derived from MEDS and hold numbers only.
    chart = pl.col("code").str.contains(r"^LAB//2\d{5}//")
    meds = meds.filter(~(chart & pl.col("value").is_null()))
    assert tables.unique().sort(pl.all()).equals(meds.unique().sort(pl.all()))
    # MEDS has left out a row that equals another in all its columns.
    assert (tables.height, meds.height) == (26_241, 26_229)
