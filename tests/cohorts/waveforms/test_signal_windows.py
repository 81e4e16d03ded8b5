from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from real_data import real
from small_records import WFDB, bounds, records_of, settings, tone, write_record

from tfmmcl.cohorts.waveforms.settings import ConditioningSettings, CsvInput
from tfmmcl.cohorts.waveforms.signals import resample
from tfmmcl.cohorts.waveforms.source import Source
from tfmmcl.cohorts.waveforms.windows import cut

DATED = WFDB.model_copy(update={"start": "header"})
FILTERS = ConditioningSettings(band_pass_hz=(1, 40), notch_hz=50)


def noise(seconds, rate=250.0, seed=0):
    return np.random.default_rng(seed).normal(size=round(seconds * rate)).round(3)


def windows(folder, at, signals, inputs=(WFDB,)):
    return cut(records_of(folder, signals, inputs), folder, inputs, bounds(*at), signals)


def ecg(seconds, seed=0):
    import neurokit2 as nk

    return nk.ecg_simulate(seconds, sampling_rate=250, heart_rate=75, noise=0, random_state=seed)


def test_windows_of_a_tone_are_the_tone(tmp_path):
    write_record(tmp_path, {"II": ("mV", tone(7, 250, 30)), "V": ("uV", 500 * tone(3, 250, 30))})
    found = windows(tmp_path, [(4, 8), (8, 12), (12, 16), (20, 24)], settings(leads=("V", "II")))
    assert found.signals.shape == (4, 960, 2)
    assert found.signals.dtype == np.float32
    assert found.starts.tolist() == [4_000_000, 8_000_000, 12_000_000, 20_000_000]
    t = np.array([4, 8, 12, 20])[:, None] + np.arange(960) / 240
    np.testing.assert_allclose(found.signals[..., 1], np.sin(2 * np.pi * 7 * t), atol=5e-3)
    np.testing.assert_allclose(found.signals[..., 0], 0.5 * np.sin(2 * np.pi * 3 * t), atol=5e-3)


def test_abutting_windows_are_resampled_as_one_signal(tmp_path):
    write_record(tmp_path, {"II": ("mV", noise(20))})
    found = windows(tmp_path, [(0, 4), (4, 8), (8, 12)], settings())
    np.testing.assert_allclose(found.signals.ravel(), resample(noise(20)[:3000], 250, 240), atol=1e-6)


@pytest.mark.parametrize("conditioning", [ConditioningSettings(), FILTERS])
@hypothesis_settings(deadline=None, max_examples=10)
@given(start=st.integers(3, 30), pieces=st.integers(2, 4))
def test_reading_together_or_apart_gives_the_same(tmp_path_factory, conditioning, start, pieces):
    folder = tmp_path_factory.mktemp("together")
    write_record(folder, {"II": ("mV", noise(60))})
    signals = settings(conditioning=conditioning)
    source = Source(tuple(records_of(folder, signals)), folder, (WFDB,), signals, anchor=60_000_000)
    whole = source.read(start * 1_000_000, pieces * 960)["II"]
    apart = [source.read((start + 4 * piece) * 1_000_000, 960)["II"] for piece in range(pieces)]
    tolerance = 5e-3 if conditioning.band_pass_hz else 1e-12
    np.testing.assert_allclose(whole, np.concatenate(apart), atol=tolerance)


@pytest.mark.parametrize("choose", ["first_complete", "cleanest"])
@pytest.mark.parametrize("conditioning", [ConditioningSettings(), FILTERS])
@pytest.mark.parametrize("anchor", [30.0, 27.333])
def test_nothing_at_or_after_the_anchor_matters(tmp_path, choose, conditioning, anchor):
    signals = settings(channels={"pulse": ("PLETH",)}, choose=choose, conditioning=conditioning)
    at = [(anchor - 16, anchor - 8), (anchor - 8, anchor)]
    first_after = int(np.ceil(anchor * 250))

    def found(name, lead, pulse):
        (tmp_path / name).mkdir()
        write_record(tmp_path / name, {"II": ("mV", lead), "PLETH": ("NU", pulse)})
        return windows(tmp_path / name, at, signals)

    lead, pulse = ecg(40), noise(40, seed=1)
    lead[first_after - 1800 : first_after - 1700] = np.nan  # so that the last window's second piece is kept
    before = found("before", lead, pulse)
    changed = [x.copy() for x in (lead, pulse)]
    for x in changed:
        x[first_after:] = 30 * np.sign(noise(40, seed=2))[first_after:]
    after = found("after", *changed)
    shorter = found("shorter", lead[:first_after], pulse[:first_after])
    for other in (after, shorter):
        np.testing.assert_array_equal(other.signals, before.signals)
        np.testing.assert_array_equal(other.channels["pulse"], before.channels["pulse"])
        np.testing.assert_array_equal(other.starts, before.starts)
    assert not np.isnan(before.signals).any()
    # The last sample before the anchor does matter.
    for x in changed:
        x[first_after - 1] = 5.0
    last = found("last", *changed)
    assert not np.array_equal(last.signals, before.signals)
    assert not np.array_equal(last.channels["pulse"], before.channels["pulse"])


@hypothesis_settings(deadline=None, max_examples=20)
@given(gaps=st.lists(st.tuples(st.integers(0, 2900), st.integers(1, 300)), max_size=4), filtered=st.booleans())
def test_gaps_are_never_interpolated_and_the_rest_is_as_without_them(tmp_path_factory, gaps, filtered):
    folder = tmp_path_factory.mktemp("gaps")
    lead = noise(12)
    gappy = lead.copy()
    for place, (first, length) in enumerate(gaps):
        gappy[first : first + length] = (np.nan, 20.0)[place % 2]  # invalid or implausible
    write_record(folder, {"II": ("mV", gappy)})
    signals = settings(plausible_mv=(-10, 10), conditioning=FILTERS if filtered else ConditioningSettings())
    found = windows(folder, [(0, 4), (4, 8), (8, 12)], signals).signals.ravel()
    hole = ~(np.abs(gappy) <= 10)
    nearest = np.arange(2880) / 240 * 250
    assert np.isnan(
        found[hole[np.floor(nearest).astype(int)] & hole[np.ceil(nearest).astype(int).clip(max=2999)]]
    ).all()
    distance = np.abs(nearest[:, None] - np.append(np.flatnonzero(hole), -1e9)).min(axis=1)
    far = distance > 0.12 * 250
    flat = np.isnan(found.reshape(3, -1)).all(axis=1).repeat(960)
    assert not np.isnan(found[far & ~flat]).any()
    if not filtered:
        np.testing.assert_allclose(found[far & ~flat], resample(lead, 250, 240)[far & ~flat], atol=1e-5)


def test_windows_outside_the_record_are_missing(tmp_path):
    write_record(tmp_path, {"II": ("mV", noise(10))})
    found = windows(tmp_path, [(-8, -4), (-4, 0), (-2, 2), (8, 12), (50, 54)], settings()).signals[..., 0]
    missing = np.isnan(found)
    assert missing[[0, 1, 4]].all()
    np.testing.assert_array_equal(missing[2], np.arange(960) < 480)
    np.testing.assert_array_equal(missing[3], np.arange(960) >= 480)
    assert np.isnan(cut([], tmp_path, (WFDB,), bounds((0, 4)), settings()).signals).all()


def test_records_of_a_subject_are_merged_and_the_earlier_one_wins(tmp_path):
    start = datetime(2110, 1, 1)
    gappy = np.full(2500, 0.5)
    gappy[::2] += 1  # not flat
    late = -gappy
    gappy[1750:2000] = np.nan
    write_record(tmp_path, {"II": ("mV", gappy)}, base=start, name="a")
    write_record(tmp_path, {"II": ("mV", late)}, base=start + timedelta(seconds=6), name="b")
    write_record(tmp_path, {"II": ("uV", 1000 * late[:1250])}, base=start + timedelta(seconds=20), name="c", rate=125)
    one = DATED.model_copy(update={"subject": "(hea)$"})
    signals = settings(length="30 s", sampling_rate_hz=125, plausible_mv=(-3, 3))
    records = records_of(tmp_path, signals, [one], subject="hea")
    at = np.array([[0, 30_000_000]]) + records[0].start
    found = cut(records, tmp_path, (one,), at, signals).signals[0, :, 0]
    sign = np.sign(np.where(np.isnan(found), 0, found)).reshape(30, 125)
    assert [int(x) for x in np.median(sign, axis=1)] == [1] * 7 + [-1] + [1] * 2 + [-1] * 6 + [0] * 4 + [-1] * 10


def test_leads_of_different_rates_keep_their_times(tmp_path):
    (tmp_path / "rec.csv").write_text("V\n" + "\n".join(f"{x:.6f}" for x in tone(3, 100, 20)))
    csv = CsvInput(format="csv", path="*.csv", subject=r"(rec)", sampling_rate_hz=100)
    write_record(tmp_path, {"II": ("mV", tone(3, 500, 20))}, rate=500)
    found = windows(tmp_path, [(6, 10)], settings(leads=("II", "V")), (WFDB, csv)).signals[0]
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=5e-3)


def test_windows_between_recorded_samples_are_off_by_less_than_one(tmp_path):
    write_record(tmp_path, {"II": ("mV", np.arange(5000) / 1000)})
    for start in (4.0011, 4.0039, 4.00399999):
        found = windows(tmp_path, [(start, start + 4)], settings()).signals[0, :, 0]
        expected = (start + np.arange(960) / 240) * 0.25
        shift = (expected - found)[50:-50] / 0.25 * 250  # in recorded samples
        assert -0.1 < shift.min() <= shift.max() < 1.1
        assert not np.isnan(found).any()


def test_a_lead_in_no_unit_of_voltage_is_missing_and_said_once_without_the_records_name(tmp_path, caplog):
    write_record(tmp_path, {"II": ("mmHg", noise(20)), "V": ("mV", noise(20))}, name="rec")
    found = windows(tmp_path, [(4, 8), (12, 16)], settings(leads=("II", "V")))
    assert np.isnan(found.signals[..., 0]).all()
    assert not np.isnan(found.signals[..., 1]).any()
    assert [record.getMessage() for record in caplog.records] == [
        "lead II is in 'mmHg', expected mV, uV, µV or V; it is left out."
    ]


def test_a_flat_lead_is_missing_window_by_window_and_channels_keep_their_unit(tmp_path):
    lead = np.r_[np.full(1000, 0.3), noise(8)]
    write_record(tmp_path, {"II": ("mV", lead), "PLETH": ("NU", 3 + np.zeros(3000))})
    found = windows(tmp_path, [(0, 3.5), (4, 8)], settings(length="3.5 s", channels={"pulse": ("PLETH",)}))
    assert np.isnan(found.signals[0]).all()
    assert not np.isnan(found.signals[1]).any()
    np.testing.assert_allclose(found.channels["pulse"], 3, atol=1e-3)


@hypothesis_settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_the_first_complete_piece_is_kept_or_the_one_with_fewest_missing(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("pieces")
    pieces = 9
    leads = {}
    for name in ("II", "V"):
        values = noise(pieces * 4 + 8)
        for piece in data.draw(st.sets(st.integers(0, pieces - 1))):
            first = (4 + 4 * piece) * 250 + 400
            values[first : first + data.draw(st.integers(1, 300))] = np.nan
        leads[name] = ("mV", values)
    write_record(folder, leads)
    # A lead that no record has can be complete nowhere, and does not count.
    signals = settings(leads=data.draw(st.sampled_from([("II", "V"), ("II", "V", "aVR")])))
    found = windows(folder, [(4, 4 + 4 * pieces + 3.9)], signals)
    every = [windows(folder, [(4 + 4 * i, 8 + 4 * i), (60, 64)], signals).signals[0] for i in range(pieces)]
    missing = [int(np.isnan(piece).sum()) for piece in every]
    best = missing.index(min(missing))
    assert found.starts[0] == (4 + 4 * best) * 1_000_000
    np.testing.assert_array_equal(found.signals[0], every[best])


@pytest.mark.parametrize("clean", [0, 2, 4])
def test_the_cleanest_piece_is_kept(tmp_path, clean):
    lead = 3 * noise(60)
    lead[clean * 2500 :][:2500] = ecg(10)
    lead[::997] += 0.001
    write_record(tmp_path, {"II": ("mV", lead)})
    found = windows(tmp_path, [(0, 50)], settings(length="10 s", choose="cleanest"))
    assert found.starts[0] == clean * 10_000_000
    assert windows(tmp_path, [(0, 50)], settings(length="10 s")).starts[0] == 0


def test_of_equally_clean_pieces_the_one_with_fewest_missing_then_the_earliest_is_kept(tmp_path):
    lead, other = noise(50), noise(50)
    other[300:400] = other[2800:3100] = other[5300:5320] = other[7800:7820] = np.nan
    write_record(tmp_path, {"II": ("mV", lead), "V": ("mV", other)})
    found = windows(tmp_path, [(0, 40)], settings(leads=("II", "V"), length="10 s", choose="cleanest"))
    assert found.starts[0] == 20_000_000


def test_pieces_without_a_complete_lead_or_without_beats_are_no_error(tmp_path):
    lead = np.zeros(10_000)
    lead[::1000] = np.nan
    lead[5000:7500] = 0
    write_record(tmp_path, {"II": ("mV", lead)})
    found = windows(tmp_path, [(0, 40)], settings(length="10 s", choose="cleanest"))
    assert found.starts[0] == 20_000_000
    assert np.isnan(found.signals).all()  # flat


def test_filters_and_clipping_are_applied(tmp_path):
    write_record(tmp_path, {"II": ("mV", 2 * tone(10, 250, 30) + 3)})
    at = [(10, 14), (25, 29)]  # the filters have settled long before the first one's end
    plain = windows(tmp_path, at, settings()).signals[0]
    band = windows(tmp_path, at, settings(conditioning=FILTERS)).signals[0]
    clip = FILTERS.model_copy(update={"clip_mv": 1.5})
    clipped = windows(tmp_path, at, settings(conditioning=clip)).signals[0]
    np.testing.assert_allclose(band, plain - 3, atol=0.01)
    np.testing.assert_allclose(clipped, np.clip(band, -1.5, 1.5), atol=1e-6)


def test_real_windows_are_the_records_samples_resampled_up_to_the_anchor():
    import wfdb

    folder = real("challenge2015")
    signals = settings(leads=("II", "V"), channels={"pulse": ("PLETH",)}, length="30 s")
    at = [(30 * i, 30 * (i + 1)) for i in range(10)]
    for name in (folder / "RECORDS").read_text().split()[::40]:
        inputs = (WFDB.model_copy(update={"path": f"{Path(name).name}.hea"}),)
        found = cut(records_of(folder, signals, inputs, subject=name), folder, inputs, bounds(*at), signals)
        whole = wfdb.rdrecord(str(folder / name), sampto=75_000)
        columns = {"II": found.signals[..., 0], "V": found.signals[..., 1], "PLETH": found.channels["pulse"]}
        for lead, values in columns.items():
            if lead in whole.sig_name:
                expected = resample(whole.p_signal[:, whole.sig_name.index(lead)], 250, 240).reshape(10, 7200)
                there = ~np.isnan(values)
                np.testing.assert_allclose(values[there], expected[there], rtol=1e-6, atol=1e-6)
                flat = ~(np.nanmax(np.nan_to_num(expected), axis=1) - np.nanmin(np.nan_to_num(expected), axis=1) > 0.02)
                np.testing.assert_array_equal(np.isnan(expected) | (flat[:, None] & (lead != "PLETH")), ~there)
