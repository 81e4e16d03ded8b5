import pickle
from datetime import datetime, timezone

import numpy as np
import pytest
from real_data import real
from small_records import WFDB, settings, write_record

from tfmmcl.cohorts.waveforms.index import build_index
from tfmmcl.cohorts.waveforms.settings import CsvInput
from tfmmcl.errors import InputError

LEAD = {"II": ("mV", np.arange(500) / 1000)}
DATED = WFDB.model_copy(update={"start": "header"})


def test_every_archived_record_is_listed_or_refused():
    signals = settings(leads=("II", "I", "V"), channels={"pulse": ("PLETH",)})
    index = build_index(real("fixtures/wfdb"), [WFDB], signals)
    listed = {record.subject: record for subject in index.subjects() for record in index.records(subject)}
    assert {name: record.seconds for name, record in listed.items()} == {
        "a103l": 330,
        "s0010_re": 38.4,
        "041s": 16,
        "s25047-2704-05-04-10-44": 543240 / 125,
        "p000878-2137-10-26-16-57": 421_800,
    }
    assert len(listed["s0010_re"].names) == 15
    assert listed["s25047-2704-05-04-10-44"].names == ("II", "V", "ABP")
    refused = {subject: [item.reason for item in index.excluded(subject)] for subject in index.subjects()}
    assert {subject: reasons for subject, reasons in refused.items() if reasons} == {
        subject: ["it holds numerics, not waveforms"]
        for subject in ("s00001-2896-10-09-01-56n", "s00001-2896-10-10-00-31n", "s25047-2704-05-04-10-44n")
    }
    assert index.unassigned == []


def no_header(folder):
    (folder / "rec.hea").write_text("")


def broken_header(folder):
    (folder / "rec.hea").write_text("rec one 250 five\n")


def slashes(folder):
    (folder / "rec.hea").write_text("rec/2 1 250 1000\n../../x/y 500\n/ 500\n")


def no_samples(folder):
    (folder / "rec.hea").write_text("rec 1 250 0\nrec.dat 16 200/mV 16 0 0 0 0 II\n")


def no_rate(folder):
    (folder / "rec.hea").write_text("rec 1 0 500\nrec.dat 16 200/mV 16 0 0 0 0 II\n")


def no_signals(folder):
    (folder / "rec.hea").write_text("rec 0 250 500\n")


def no_lead(folder):
    write_record(folder, {"ABP": ("mmHg", np.arange(500) / 1000)})


def no_file(folder):
    (folder / "rec.dat").unlink()


def no_segment(folder):
    (folder / "rec.hea").write_text("rec/2 1 250 1000\ns1 500\ns2 500\n")


def numerics(folder):
    write_record(folder, LEAD, rate=1)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (no_header, "its header is damaged or missing"),
        (broken_header, "its header is damaged or missing"),
        (slashes, "its header is damaged or missing"),
        (no_samples, "it holds no samples"),
        (no_rate, "it holds no samples"),
        (no_signals, "none of the wanted leads is recorded"),
        (no_lead, "none of the wanted leads is recorded"),
        (no_file, "a signal file is missing"),
        (no_segment, "none of its segments is there"),
        (numerics, "it holds numerics, not waveforms"),
    ],
)
def test_records_left_out_say_why(tmp_path, damage, reason):
    write_record(tmp_path, LEAD)
    damage(tmp_path)
    index = build_index(tmp_path, [WFDB], settings())
    assert index.subjects() == ["rec"]
    assert index.records("rec") == []
    (found,) = index.excluded("rec")
    assert (found.level, found.reason) == ("records", reason)
    assert "rec" not in found.reason.replace("recorded", "")
    assert "rec" in found.detail
    assert "\n" not in found.detail


def test_a_header_without_date_is_left_out_where_dates_are_wanted(tmp_path):
    write_record(tmp_path, LEAD)
    (found,) = build_index(tmp_path, [DATED], settings()).excluded("rec")
    assert found.reason == "its header gives no date and time"
    assert build_index(tmp_path, [WFDB], settings()).records("rec")[0].start == 0


@pytest.mark.parametrize(
    ("zone", "utc"),
    [
        (None, datetime(2110, 7, 1, 23, 30, 0, 123_000)),
        ("America/New_York", datetime(2110, 7, 2, 3, 30, 0, 123_000)),
        ("Asia/Kolkata", datetime(2110, 7, 1, 18, 0, 0, 123_000)),
    ],
)
def test_a_headers_date_and_time_become_the_start(tmp_path, zone, utc):
    write_record(tmp_path, LEAD, base=datetime(2110, 7, 1, 23, 30, 0, 123_000))
    (record,) = build_index(tmp_path, [DATED], settings(), zone).records("rec")
    assert record.start == round(utc.replace(tzinfo=timezone.utc).timestamp() * 1e6)


def test_an_unknown_zone_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="time_zone is 'Mars/Olympus', expected"):
        build_index(tmp_path, [WFDB], settings(), "Mars/Olympus")


def test_records_are_grouped_by_subject_and_sorted_by_start(tmp_path):
    for name, hour in (("b", 5), ("a", 9), ("c", 1)):
        write_record(tmp_path, LEAD, name=name, base=datetime(2110, 7, 1, hour))
    index = build_index(tmp_path, [DATED.model_copy(update={"subject": r"([ab])\.hea$"})], settings())
    assert index.subjects() == ["a", "b"]
    assert [item.reason for item in index.unassigned] == ["its path gives no subject"]
    everybody = build_index(tmp_path, [DATED.model_copy(update={"subject": "(hea)$"})], settings())
    assert [record.path for record in everybody.records("hea")] == ["c.hea", "b.hea", "a.hea"]
    assert index.records("nobody") == index.excluded("nobody") == []


def test_several_inputs_share_an_index(tmp_path):
    write_record(tmp_path, LEAD, name="a")
    (tmp_path / "a.csv").write_text("II\n1\n2\n")
    csv = CsvInput(format="csv", path="*.csv", subject=r"(.)\.csv", sampling_rate_hz=100)
    index = build_index(tmp_path, [csv, WFDB], settings())
    assert [(record.path, record.input) for record in index.records("a")] == [("a.csv", 0), ("a.hea", 1)]
    assert sorted(index.sources()) == ["**/*.hea (1 files)", "*.csv (1 files)"]
    copied = pickle.loads(pickle.dumps(index))
    assert copied.records("a") == index.records("a")


@pytest.mark.parametrize("root", ["empty", "nowhere"])
def test_a_root_without_records_is_one_sentence(tmp_path, root):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as raised:
        build_index(tmp_path / root, [WFDB], settings())
    assert str(tmp_path / root) in str(raised.value)
    assert "**/*.hea" in str(raised.value)


def test_sources_change_with_headers_and_sizes_and_hold_no_name(tmp_path):
    def digest():
        ((source, found),) = build_index(tmp_path, [WFDB], settings()).sources().items()
        assert "patient7" not in source
        return found

    write_record(tmp_path, LEAD, name="patient7")
    first = digest()
    assert digest() == first
    header = tmp_path / "patient7.hea"
    header.write_text(header.read_text() + "# a remark\n")
    second = digest()
    signals = tmp_path / "patient7.dat"
    signals.write_bytes(signals.read_bytes() + bytes(2))
    third = digest()
    header.rename(tmp_path / "patient8.hea")
    assert len({first, second, third, digest()}) == 4
