import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from real_data import real
from small_records import records_of, settings

from tfmmcl.cohorts.waveforms.csv_reader import read
from tfmmcl.cohorts.waveforms.index import build_index
from tfmmcl.cohorts.waveforms.settings import CsvInput
from tfmmcl.errors import InputError

CSV = CsvInput(format="csv", path="*.csv*", subject=r"([^/]+)\.csv", sampling_rate_hz=10)
WANTED = {"II": ("II",), "pulse": ("PLETH",)}
TEXT = "Time [s], PLETH, II\n" + "".join(f"{i / 10},{i},{-i}\n" for i in range(30))


@pytest.mark.parametrize("zipped", [False, True])
def test_columns_are_found_by_name_and_rows_counted(tmp_path, zipped):
    path = tmp_path / ("rec.csv.gz" if zipped else "rec.csv")
    path.write_bytes(gzip.compress(TEXT.encode()) if zipped else TEXT.encode())
    (record,) = records_of(tmp_path, settings(), [CSV])
    assert (record.start, record.seconds, record.names) == (0, 3.0, ("Time [s]", "PLETH", "II"))
    found = {want: channel for want, (channel,) in read(tmp_path, record, CSV, WANTED, 950_000, 2_000_000).items()}
    assert {want: (c.name, c.unit, c.rate_hz, c.first) for want, c in found.items()} == {
        "II": ("II", "mV", 10, 0.9),
        "pulse": ("PLETH", "mV", 10, 0.9),
    }
    np.testing.assert_array_equal(found["II"].values, -np.arange(9, 20.0))
    np.testing.assert_array_equal(found["pulse"].values, np.arange(9, 20.0))


def test_fields_that_are_no_number_are_missing(tmp_path):
    (tmp_path / "rec.csv").write_text("II;V\n 1.5 ;2\n;\n-;NaN\n4e-1;inf\n")
    of = CSV.model_copy(update={"separator": ";"})
    (record,) = records_of(tmp_path, settings(), [of])
    found = read(tmp_path, record, of, {"II": ["II"], "V": ["V"]}, 0, 10_000_000)
    np.testing.assert_array_equal(found["II"][0].values, [1.5, np.nan, np.nan, 0.4])
    np.testing.assert_array_equal(found["V"][0].values, [2, np.nan, np.nan, np.inf])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its file is empty or damaged"),
        (b"\x1f\x8b\x08\x00broken", "its file is empty or damaged"),
        (b"II,V\n", "it holds no samples"),
        (b"Time,ABP\n0,1\n", "none of the wanted leads is recorded"),
    ],
)
def test_files_left_out_say_why(tmp_path, content, reason):
    (tmp_path / "rec.csv.gz").write_bytes(content if content[:1] == b"\x1f" else gzip.compress(content))
    index = build_index(tmp_path, [CSV], settings())
    assert index.records("rec") == []
    assert [(item.level, item.reason) for item in index.excluded("rec")] == [("records", reason)]
    assert "rec.csv.gz" in index.excluded("rec")[0].detail


def test_a_file_damaged_or_gone_is_one_sentence(tmp_path):
    path = tmp_path / "rec.csv.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    (record,) = records_of(tmp_path, settings(), [CSV])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"file rec\.csv\.gz: malformed") as raised:
        read(tmp_path, record, CSV, {"II": ["II"]}, 0, 10_000_000)
    assert "\n" not in str(raised.value)
    path.unlink()
    with pytest.raises(InputError, match=r"file rec\.csv\.gz"):
        read(tmp_path, record, CSV, {"II": ["II"]}, 0, 10_000_000)


BIDMC = CsvInput(format="csv", path="*_Signals.csv.gz", subject=r"bidmc_(\d+)_", sampling_rate_hz=125)


@pytest.fixture(scope="module")
def bidmc():
    folder = real("bidmc")
    return folder, build_index(folder, [BIDMC], settings())


def test_bidmc_is_listed_whole(bidmc):
    _, index = bidmc
    assert len(index.subjects()) == 16
    for subject in index.subjects():
        (record,) = index.records(subject)
        assert record.seconds == pytest.approx(480, abs=0.1)
        assert {"II", "PLETH", "RESP"} <= set(record.names)


@hypothesis_settings(deadline=None, max_examples=10)
@given(start=st.integers(0, 480_000_000), length=st.integers(1, 60_000_000), number=st.integers(0, 1))
def test_any_interval_of_bidmc_is_what_pandas_reads(bidmc, start, length, number):
    import pandas as pd

    folder, index = bidmc
    (record,) = index.records(index.subjects()[number])
    table = pd.read_csv(folder / record.path, skipinitialspace=True)
    found = read(folder, record, BIDMC, WANTED, start, start + length)
    at = np.arange(len(table)) * 8000  # microseconds
    inside = (at >= start // 8000 * 8000) & (at < start + length)
    np.testing.assert_array_equal(found["II"][0].values, table["II"].to_numpy()[inside])
    np.testing.assert_array_equal(found["pulse"][0].values, table["PLETH"].to_numpy()[inside])
