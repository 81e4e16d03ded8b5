import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from small_records import tone

from tfmmcl.cohorts.waveforms.settings import ConditioningSettings
from tfmmcl.cohorts.waveforms.signals import (
    carry_gaps,
    condition,
    fill_gaps,
    mask_flat,
    millivolts_per,
    peak_to_peak,
    plausible,
    resample,
    samples_before,
    settling_seconds,
)
from tfmmcl.errors import InputError


@pytest.mark.parametrize(("rate", "to"), [(250, 240), (1000, 240), (125, 240), (360, 240), (500, 125), (62.4725, 240)])
def test_a_tone_in_the_passband_keeps_amplitude_and_phase(rate, to):
    out = resample(tone(10, rate, 20), rate, to)
    assert out.size == pytest.approx(20 * to, abs=2)
    expected = np.sin(2 * np.pi * 10 * np.arange(out.size) / to)
    inner = slice(to, -to)
    np.testing.assert_allclose(out[inner], expected[inner], atol=2e-3)


@pytest.mark.parametrize(("hz", "rate", "to"), [(118, 250, 125), (63, 250, 125), (124, 250, 240), (180, 1000, 240)])
def test_a_tone_above_the_new_nyquist_is_stopped(hz, rate, to):
    out = resample(tone(hz, rate, 20), rate, to)[to:-to]
    attenuation = -20 * math.log10(out.std() * math.sqrt(2))
    assert attenuation > 70


def test_the_ends_make_no_transient():
    ramp = 5 + np.linspace(0, 3, 5000)
    out = resample(ramp, 250, 240)
    np.testing.assert_allclose(out, 5 + np.arange(out.size) * 3 / 4999 * 250 / 240, atol=2e-3)


def test_the_same_rate_is_not_filtered():
    x = np.random.default_rng(0).normal(size=100)
    x[3] = np.nan
    np.testing.assert_array_equal(resample(x, 240.0, 240.0), x)
    np.testing.assert_array_equal(np.isnan(carry_gaps(x, 240.0, 240.0)), np.isnan(x))


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    rates=st.sampled_from([(250, 240), (125, 240), (500, 240), (1000, 125), (360, 250)]),
    gaps=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 400)), max_size=5),
)
def test_whatever_the_filter_takes_from_a_gap_is_missing_and_nothing_else_changes(rates, gaps):
    rate, to = rates
    x = np.random.default_rng(0).normal(size=3000)
    gappy = x.copy()
    for first, length in gaps:
        gappy[first : first + length] = np.nan
    out = resample(gappy, rate, to)
    # Brute force: the gaps as a signal of their own, through the same filter, leave a trace wherever it reaches them.
    trace = resample(np.isnan(gappy) * 1e9, rate, to)
    missing = np.isnan(out)
    assert missing[np.abs(trace) > 1e-3].all() or np.isnan(gappy).all()
    np.testing.assert_allclose(out[~missing], resample(x, rate, to)[~missing], atol=1e-12)
    present = np.flatnonzero(~np.isnan(gappy)) / rate
    holes = np.flatnonzero(np.isnan(gappy)) / rate
    if holes.size and present.size:
        distance = np.abs(np.flatnonzero(missing)[:, None] / to - holes).min(axis=1)
        assert distance.max() < 26 / min(rate, to)
    np.testing.assert_array_equal(np.isnan(carry_gaps(gappy, rate, to)), missing)


def test_a_signal_without_samples_stays_missing():
    assert np.isnan(resample(np.full(500, np.nan), 250, 240)).all()
    assert resample(np.zeros(0), 250, 240).size == 0


def test_rates_that_make_no_sense_together_are_refused():
    with pytest.raises(InputError, match=r"0\.0167 Hz"):
        resample(np.zeros(3), 0.0167, 240)


@given(rate=st.floats(0.5, 2000), stop=st.floats(0.01, 400))
def test_samples_before_are_those_strictly_before(rate, stop):
    count = samples_before(stop, rate)
    assert count == 0 or (count - 1) / rate < stop
    assert count / rate >= stop - 1e-5 / rate


def test_flat_windows_are_missing():
    windows = np.array([[0, 0.01, 0], [0, 0.03, np.nan], [np.nan] * 3])
    np.testing.assert_allclose(peak_to_peak(windows), [0.01, 0.03, 0])
    np.testing.assert_array_equal(np.isnan(mask_flat(windows, 0.02)).all(axis=1), [True, False, True])


@pytest.mark.parametrize(("unit", "factor"), [("mV", 1), (" uV", 1e-3), ("µV", 1e-3), ("μV", 1e-3), ("V", 1e3)])
def test_units_become_millivolts(unit, factor):
    assert millivolts_per(unit) == factor


def test_other_units_are_none_of_voltage():
    assert millivolts_per("mmHg") is millivolts_per("") is None


def test_implausible_and_non_finite_samples_are_missing():
    found = plausible(np.array([1, -2, 2, 2.1, -2.1, np.inf, -np.inf, np.nan]), (-2, 2))
    np.testing.assert_array_equal(found, [1, -2, 2] + [np.nan] * 5)


BAND = ConditioningSettings(band_pass_hz=(0.5, 40))


def test_conditioning_is_scipys_zero_phase_filter():
    from scipy.signal import butter, filtfilt, iirnotch, sosfiltfilt

    x = np.random.default_rng(0).normal(size=4000)
    sections = butter(4, [0.5, 40], btype="bandpass", fs=240, output="sos")
    np.testing.assert_allclose(condition(x, 240, BAND), sosfiltfilt(sections, x), atol=1e-9)
    notch = ConditioningSettings(notch_hz=50)
    # The padding's length differs, which matters at the ends alone.
    direct = filtfilt(*iirnotch(50, 30, fs=240), x)
    np.testing.assert_allclose(condition(x, 240, notch)[500:-500], direct[500:-500], atol=1e-6)
    np.testing.assert_array_equal(condition(x, 240, ConditioningSettings(clip_mv=1)), np.clip(x, -1, 1))
    assert condition(x, 240, ConditioningSettings()) is x


def test_filters_take_away_what_they_should():
    t = np.arange(7200) / 240
    ecg, wander, hum = np.sin(2 * np.pi * 10 * t), 2 * np.sin(2 * np.pi * 0.05 * t), np.sin(2 * np.pi * 50 * t)
    inner = slice(1500, -1500)
    both = ConditioningSettings(band_pass_hz=(0.5, 60), notch_hz=50, clip_mv=5)
    np.testing.assert_allclose(condition(ecg + wander + hum, 240, both)[inner], ecg[inner], atol=0.02)


def test_gaps_stay_gaps_under_filters_and_the_rest_is_filtered_as_if_they_were_bridged():
    from scipy.signal import butter, sosfiltfilt

    x = np.random.default_rng(0).normal(size=4000)
    x[[*range(100), *range(2000, 2050), 3999]] = np.nan
    found = condition(x, 240, BAND)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
    recorded = slice(100, 3999)
    expected = sosfiltfilt(butter(4, [0.5, 40], btype="bandpass", fs=240, output="sos"), fill_gaps(x[recorded]))
    there = ~np.isnan(x[recorded])
    np.testing.assert_allclose(found[recorded][there], expected[there], atol=1e-9)


@pytest.mark.parametrize("size", [0, 1, 2, 20])
def test_filters_take_signals_of_any_length(size):
    assert condition(np.ones(size), 240, BAND).shape == (size,)
    assert np.isnan(condition(np.full(size, np.nan), 240, BAND)).all()


def test_a_transient_has_settled_after_the_time_given():
    seconds = settling_seconds(240, BAND)
    assert 1 < seconds < 30
    impulse = np.zeros(240 * 120)
    impulse[240 * 60] = 1.0
    response = np.abs(condition(impulse, 240, BAND))
    after = 240 * 60 + round(seconds * 240)
    assert response[after:].max() < 1e-3 * response.max()
    assert settling_seconds(240, ConditioningSettings(clip_mv=1)) == 0
