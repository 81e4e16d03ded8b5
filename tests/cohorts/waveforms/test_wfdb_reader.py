import functools
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from real_data import real
from small_records import WFDB, records_of, settings, write_record

from tfmmcl.cohorts.waveforms.recording import Record, choose
from tfmmcl.cohorts.waveforms.wfdb_reader import read
from tfmmcl.errors import InputError

ANY = settings(leads=("II", "I", "V", "V1"), channels={"pulse": ("PLETH",)})
ARCHIVE = {
    "a103l": "a103l.hea",
    "s0010_re": "s0010_re.hea",
    "041s": "multi-segment/041s/041s.hea",
    "s25047-2704-05-04-10-44": "multi-segment/s25047/s25047-2704-05-04-10-44.hea",
}


def seconds(record, wanted, start, stop, root, of=WFDB):
    """Reads [start, stop), in seconds from the record's start; returns the only channel of each wanted name."""
    found = read(root, record, of, wanted, record.start + round(start * 1e6), record.start + round(stop * 1e6))
    return {want: channel for want, (channel,) in found.items()}


def test_aliases_are_taken_in_order_and_no_signal_twice():
    wanted = {"II": ["II", "MLII"], "V": ["V", "V5"], "W": ["V5", "V9"]}
    assert choose(["v5", "MLII ", "RESP", "mlii"], wanted) == {"II": 1, "V": 0}


def test_reading_gives_names_units_rates_and_values(tmp_path):
    x = np.random.default_rng(0).normal(size=(1000, 3))
    write_record(tmp_path, {"v5": ("mV", x[:, 0]), "MLII": ("uV", 1000 * x[:, 1]), "RESP": ("NU", x[:, 2])})
    (record,) = records_of(tmp_path, settings(leads={"II": ("II", "MLII")}))
    assert (record.seconds, record.names, record.start) == (4.0, ("v5", "MLII", "RESP"), 0)
    found = seconds(record, {"II": ["II", "MLII"], "V": ["V5"]}, 1.0, 2.0, tmp_path)
    assert [(c.name, c.unit, c.rate_hz, c.first) for c in found.values()] == [
        ("MLII", "uV", 250, 1.0),
        ("v5", "mV", 250, 1.0),
    ]
    np.testing.assert_allclose(found["V"].values, x[250:500, 0], atol=1e-3)
    np.testing.assert_allclose(found["II"].values, 1000 * x[250:500, 1], atol=1)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_the_sign_for_micro_is_not_lost(tmp_path, encoding):
    x = np.random.default_rng(0).normal(size=(1000, 2))
    header = write_record(tmp_path, {"II": ("uV", 1000 * x[:, 0]), "V": ("V", x[:, 1] / 1000)}).with_suffix(".hea")
    header.write_text(header.read_text().replace("uV", "µV"), encoding=encoding)
    (record,) = records_of(tmp_path, settings())
    found = seconds(record, {"II": ["II"], "V": ["V"]}, 1.0, 2.0, tmp_path)
    assert [found["II"].unit, found["V"].unit] == ["uV", "V"]
    np.testing.assert_allclose(found["II"].values, 1000 * x[250:500, 0], atol=1)


@functools.cache
def archived(name):
    import wfdb

    root = real("fixtures/wfdb")
    whole = wfdb.rdrecord(str((root / ARCHIVE[name]).with_suffix("")), smooth_frames=False)
    return root, next(r for r in records_of(root, ANY, subject=name)), whole


@pytest.mark.parametrize("name", ARCHIVE)
@hypothesis_settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_interval_of_an_archived_record_is_what_wfdb_reads_of_the_whole(name, data):
    root, record, whole = archived(name)
    start = data.draw(st.floats(-1, record.seconds))
    stop = start + data.draw(st.floats(0.01, min(record.seconds, 600)))
    found = seconds(record, {**ANY.leads, **ANY.channels}, start, stop, root)
    for channel in found.values():
        place = whole.sig_name.index(channel.name)
        rate = whole.fs * whole.samps_per_frame[place]
        # Times are whole microseconds.
        at = np.arange(len(whole.e_p_signal[place])) / rate
        expected = whole.e_p_signal[place][round(channel.first * rate) :][: channel.values.size]
        np.testing.assert_array_equal(channel.values, expected)
        assert channel.rate_hz == rate
        inside = np.count_nonzero((at >= start + 1e-6) & (at < stop - 1e-6))
        assert channel.values.size >= inside
        assert channel.first + (channel.values.size - 1) / rate < stop + 1e-6
        assert channel.first <= max(start, 0) + 1e-6
    lacking = (ANY.leads.keys() | ANY.channels.keys()) - found.keys()
    stretch = slice(max(0, round(start * whole.fs)), max(0, round(stop * whole.fs)))
    for want in lacking & set(whole.sig_name):
        per_frame = whole.samps_per_frame[whole.sig_name.index(want)]
        values = whole.e_p_signal[whole.sig_name.index(want)].reshape(-1, per_frame)[stretch]
        assert np.isnan(values[1:-1]).all()


def test_several_samples_per_frame_are_read_at_their_own_rate():
    root, record, _ = archived("041s")
    found = seconds(record, {"I": ["I"], "pulse": ["PLETH"]}, 7.0, 9.0, root)
    assert {want: (c.rate_hz, c.values.size) for want, c in found.items()} == {"I": (500, 1000), "pulse": (125, 250)}
    # A stop between two samples of a frame.
    assert seconds(record, {"I": ["I"]}, 0.0, 0.003, root)["I"].values.size == 2


def test_segments_missing_on_disk_are_missing_samples():
    import wfdb

    root = real("fixtures/wfdb")
    (record,) = records_of(root, ANY, subject="p000878-2137-10-26-16-57")
    assert record.seconds == 52725000 / 125
    assert seconds(record, {"II": ["II"]}, 20_000.0, 20_010.0, root) == {}
    found = seconds(record, {"II": ["II"], "pulse": ["PLETH"]}, 28.0, 80.0, root)
    present = wfdb.rdrecord(str((root / record.path).with_name("3269321_0002")))
    expected = np.full((80 - 28) * 125, np.nan)
    expected[3750 + 2000 - 28 * 125 :][:1750] = present.p_signal[:, present.sig_name.index("II")]
    assert np.isfinite(expected).any()
    np.testing.assert_array_equal(found["II"].values, expected)
    pulse = np.isfinite(found["pulse"].values)
    assert not pulse[: 2 * 125].any()
    assert pulse[2 * 125 :][:2000].any()
    assert not pulse[3750 + 2000 + 1750 - 28 * 125 :].any()


def test_aliases_and_units_are_chosen_segment_by_segment(tmp_path):
    x = np.random.default_rng(0).normal(size=1000)
    write_record(tmp_path, {"II": ("mV", x), "MLII": ("mV", -x)}, name="s1")
    write_record(tmp_path, {"MLII": ("mV", 2 * x), "ABP": ("mmHg", x)}, name="s2")
    write_record(tmp_path, {"MLII": ("uV", 1000 * x)}, name="s3")
    (tmp_path / "rec.hea").write_text("rec/4 3 250 3500\ns1 1000\n~ 500\ns2 1000\ns3 1000\n")
    wanted = {"II": ("II", "MLII")}
    (record,) = records_of(tmp_path, settings(leads=wanted))
    found = read(tmp_path, record, WFDB, wanted, 0, 14_000_000)["II"]
    assert [(c.name, c.unit, c.values.size) for c in found] == [("II", "mV", 3500), ("MLII", "uV", 3500)]
    expected = np.full(3500, np.nan)
    expected[:1000], expected[1500:2500] = x, 2 * x
    np.testing.assert_allclose(found[0].values, expected, atol=1e-3)
    np.testing.assert_allclose(found[1].values[2500:], 1000 * x, atol=1)
    assert np.isnan(found[1].values[:2500]).all()


def test_invalid_samples_are_missing(tmp_path):
    x = np.random.default_rng(0).normal(size=500)
    x[100:120] = np.nan
    write_record(tmp_path, {"II": ("mV", x)})
    (record,) = records_of(tmp_path, settings())
    values = seconds(record, {"II": ["II"]}, 0, 2, tmp_path)["II"].values
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(values)), np.arange(100, 120))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "record rec: file rec.hea is missing"),
        ("", "record rec: malformed or truncated"),
        ("not a header\n", "record rec: malformed or truncated"),
        ("rec 1 250 600\nrec.dat 16 200/mV 16 0 0 0 0 II\n", "record rec: .*(holds 500 samples|truncated)"),
        ("rec 1 250 500\ngone.dat 16 200/mV 16 0 0 0 0 II\n", "record rec: file gone.dat is missing"),
        ("rec 1 250\nrec.dat 16 200/mV 16 0 0 0 0 II\n", None),  # the length follows from the file
    ],
)
def test_damaged_records_are_one_sentence(tmp_path, header, message):
    x = np.random.default_rng(0).normal(size=500)
    path = write_record(tmp_path, {"II": ("mV", x)}).with_suffix(".hea")
    path.unlink()
    if header is not None:
        path.write_text(header)
    record = Record("rec", "rec.hea", 0, 0, 2.4, ("II",))
    if message is None:
        found = seconds(record, {"II": ["II"]}, 1.0, 2.0, tmp_path)["II"].values * 200
        np.testing.assert_allclose(found, 1000 * x[250:], atol=1)
        return
    with pytest.raises(InputError, match=message) as raised:
        seconds(record, {"II": ["II"]}, 0, 2.4, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_short_signal_file_can_be_read_up_to_its_end(tmp_path):
    path = write_record(tmp_path, {"II": ("mV", np.arange(1000) / 1000)}).with_suffix(".dat")
    path.write_bytes(path.read_bytes()[:1000])
    (record,) = records_of(tmp_path, settings())
    assert seconds(record, {"II": ["II"]}, 0, 2, tmp_path)["II"].values.size == 500
    with pytest.raises(InputError, match="record rec"):
        seconds(record, {"II": ["II"]}, 0, 2.004, tmp_path)


def test_a_damaged_segment_is_named(tmp_path):
    write_record(tmp_path, {"II": ("mV", np.arange(500) / 1000)}, name="s1")
    (tmp_path / "s2.hea").write_text("s2 1 250 500\ns2.dat 16 200/mV 16 0 0 0 0 II\n")
    (tmp_path / "s2.dat").write_bytes(bytes(100))
    (tmp_path / "rec.hea").write_text("rec/2 1 250 1000\ns1 500\ns2 500\n")
    (record,) = records_of(tmp_path, settings())
    assert seconds(record, {"II": ["II"]}, 0, 2, tmp_path)["II"].values.size == 500
    with pytest.raises(InputError, match="record rec"):
        seconds(record, {"II": ["II"]}, 0, 4, tmp_path)
    (tmp_path / "s2.dat").unlink()
    assert np.isnan(seconds(record, {"II": ["II"]}, 0, 4, tmp_path)["II"].values[500:]).all()


def test_times_on_the_subjects_axis_are_relative_to_the_records_start(tmp_path):
    write_record(tmp_path, {"II": ("mV", np.arange(1000) / 1000)}, base=datetime(2104, 1, 2, 3, 4, 5, 250_000))
    (record,) = records_of(tmp_path, settings(), [WFDB.model_copy(update={"start": "header"})])
    values = read(tmp_path, record, WFDB, {"II": ["II"]}, record.start + 400_000, record.start + 800_000)["II"][
        0
    ].values
    np.testing.assert_allclose(values, np.arange(100, 200) / 1000, atol=1e-6)
