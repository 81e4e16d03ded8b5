import warnings

import numpy as np
import pytest
from real_data import real
from small_records import settings

from tfmmcl.cohorts.waveforms.beats import STATISTICS, pulse_peaks, r_peaks, rate_statistics, window_rates
from tfmmcl.cohorts.waveforms.windows import Windows

MEAN, STD, MEDIAN = (STATISTICS.index(name) for name in ("mean", "std", "median"))


@pytest.mark.parametrize("bpm", [60, 90, 120])
def test_rates_of_a_simulated_ecg(bpm):
    import neurokit2 as nk

    ecg = nk.ecg_simulate(60, sampling_rate=240, heart_rate=bpm, heart_rate_std=0, random_state=0)
    found = rate_statistics(r_peaks(ecg, 240), np.zeros((2, 7200), bool), 240)
    assert found[:, MEAN] == pytest.approx([bpm, bpm], abs=1)
    assert (found[:, STD] < 1).all()


@pytest.mark.parametrize("bpm", [60, 90, 120])
def test_rates_of_a_simulated_pulse(bpm):
    t = np.arange(60 * 240) / 240
    pulse = np.exp(-0.5 * (((t * bpm / 60) % 1 - 0.4) / 0.1) ** 2)
    found = rate_statistics(pulse_peaks(pulse, 240), np.zeros((2, 7200), bool), 240)
    assert found[:, MEAN] == pytest.approx([bpm, bpm], abs=1)


def test_statistics_by_hand():
    rate = 10.0
    peaks = np.array([0, 10, 30, 50, 51, 100, 140])  # intervals 1, 2, 2, 0.1 (too short), 4.9 and 4 s (too long)
    found = rate_statistics(peaks, np.zeros((3, 50), bool), rate)
    np.testing.assert_allclose(found[0], [45, np.std([60, 30], ddof=1), 30, 60, 45])
    np.testing.assert_allclose(found[1], [30, np.nan, 30, 30, 30])  # the interval that ends at sample 50
    assert np.isnan(found[2]).all()


def test_an_interval_across_a_gap_is_not_counted():
    missing = np.zeros((1, 100), bool)
    missing[0, 25] = True
    found = rate_statistics(np.array([0, 10, 20, 30, 50]), missing, 10.0)
    np.testing.assert_allclose(found[0, [0, 2, 3]], [50, 30, 60], rtol=1e-12)


@pytest.mark.parametrize("detect", [r_peaks, pulse_peaks])
@pytest.mark.parametrize(
    "signal",
    [np.zeros(0), np.full(7200, np.nan), np.zeros(7200), np.r_[np.full(7000, np.nan), np.ones(200)], np.ones(10)],
    ids=["empty", "missing", "flat", "mostly missing", "short"],
)
def test_signals_without_beats_have_no_peaks_and_no_warnings(detect, signal):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert detect(signal, 240).size == 0


def test_no_peak_is_found_in_a_gap():
    import neurokit2 as nk

    ecg = nk.ecg_simulate(60, sampling_rate=240, heart_rate=80, random_state=0)
    ecg[4000:6000] = np.nan
    peaks = r_peaks(ecg, 240)
    assert not ((peaks >= 4000) & (peaks < 6000)).any()
    found = rate_statistics(peaks, np.isnan(ecg).reshape(2, -1), 240)
    assert found[:, MEDIAN] == pytest.approx([80, 80], abs=2)


def windows(leads, starts, pulse=None):
    """Lays `(T, Z)` leads out as windows that start at these seconds."""
    channels = {} if pulse is None else {"pulse": pulse}
    return Windows(np.stack(leads, axis=-1).astype(np.float32), channels, (np.array(starts) * 1e6).astype(np.int64))


def simulated(bpm, seconds=60):
    import neurokit2 as nk

    return nk.ecg_simulate(seconds, sampling_rate=240, heart_rate=bpm, heart_rate_std=0, random_state=0)


def test_windows_that_abut_are_searched_together_and_others_apart():
    lead = simulated(80).reshape(6, 2400)
    wanted = settings(length="10 s")
    starts = [0, 10, 20, 100, 110, 200]
    expected = [
        rate_statistics(r_peaks(lead[run].ravel(), 240), np.isnan(lead[run]), 240)
        for run in (slice(0, 3), slice(3, 5), slice(5, 6))
    ]
    found = window_rates(windows([lead], starts), "ecg", wanted)
    np.testing.assert_allclose(found, np.concatenate(expected), atol=0.5)
    assert found[:, MEAN] == pytest.approx([80] * 6, abs=1)
    # An interval that begins in one window and ends in the next counts where the two abut.
    counts = {n: _intervals(window_rates(windows([lead[:2]], [0, n]), "ecg", wanted)[1], lead[:2]) for n in (10, 50)}
    assert counts[10]
    assert not counts[50]


def _intervals(found, lead):
    """Returns whether the second window's rates include the interval that reaches back into the first."""
    peaks = r_peaks(lead.ravel(), 240)
    with_it = rate_statistics(peaks, np.isnan(lead), 240)[1]
    return np.allclose(found, with_it, atol=1e-9)


def test_the_next_lead_fills_windows_in_which_the_former_shows_no_beats():
    first, second = simulated(60).reshape(2, 7200).copy(), simulated(100).reshape(2, 7200)
    first[1] = np.nan
    found = window_rates(windows([first, second], [0, 30]), "ecg", settings(length="30 s"))
    assert found[:, MEAN] == pytest.approx([60, 100], abs=1)
    other_way = window_rates(windows([second, first], [0, 30]), "ecg", settings(length="30 s"))
    assert other_way[:, MEAN] == pytest.approx([100, 100], abs=1)


def test_a_channel_gives_the_pulse_except_where_the_sensor_is_off():
    t = np.arange(90 * 240) / 240
    pulse = np.exp(-0.5 * (((t * 1.2) % 1 - 0.4) / 0.1) ** 2).reshape(3, 7200)
    pulse[1] *= 0.005  # of the widest window
    wanted = settings(length="30 s", channels={"pulse": ("PLETH",)})
    nothing = np.full((3, 7200), np.nan)
    for scale in (1, 1000):
        found = window_rates(windows([nothing], [0, 30, 60], scale * pulse), "pulse", wanted)
        assert found[[0, 2], MEAN] == pytest.approx([72, 72], abs=1)
        assert np.isnan(found[1]).all()
    assert np.isnan(window_rates(windows([nothing], [0, 30, 60], nothing), "pulse", wanted)).all()
    assert np.isnan(window_rates(windows([nothing], [0, 30, 60], nothing), "ecg", wanted)).all()


def test_rates_agree_with_an_independent_detector():
    import wfdb
    from wfdb.processing import XQRS

    folder = real("challenge2015")
    differences = []
    for name in (folder / "RECORDS").read_text().split()[5::19]:
        lead = wfdb.rdrecord(str(folder / name), sampto=30_000, channel_names=["II"]).p_signal
        if not lead.size or np.isnan(lead).any():
            continue
        other = XQRS(sig=lead[:, 0], fs=250)
        other.detect(verbose=False)
        whole = np.zeros((4, 7500), bool)
        ours = rate_statistics(r_peaks(lead[:, 0], 250), whole, 250)
        theirs = rate_statistics(np.asarray(other.qrs_inds), whole, 250)
        differences.append(np.abs(ours - theirs)[:, MEAN])
    assert len(differences) >= 8
    assert np.nanmedian(differences) < 1.0
