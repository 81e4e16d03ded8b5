import neurokit2 as nk
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmmcl.cohorts.synthetic.ecg import Anatomy, AnatomySettings, EcgEffects, NoiseSettings, render
from tfmmcl.cohorts.synthetic.leads import LEADS
from tfmmcl.cohorts.synthetic.rhythm import Rhythm
from tfmmcl.errors import InputError

QUIET = NoiseSettings(wander_mv=0, respiration_mv=0, powerline_mv=0, muscle_mv=0, off=0, gap=0)
TYPICAL = Anatomy(1.0, np.eye(3), np.ones(6), np.zeros(6), np.ones(2), 1.0)


def rhythm(heart_rate=70.0, windows=1, seconds=10.0, variability=0.03, seed=0):
    filled = np.full(windows, heart_rate)
    return Rhythm.draw(np.random.default_rng(seed), filled, filled * 0 + variability, filled * 0 + 0.27, seconds)


def record(
    leads=LEADS,
    rate=500.0,
    seconds=10.0,
    strain=0.0,
    decompensation=0.0,
    beats=None,
    noise=QUIET,
    anatomy=TYPICAL,
    **kw,
):
    beats = beats or rhythm(seconds=seconds)
    latents = (np.full(len(beats.rr), value) for value in (strain, decompensation))
    generator = kw.pop("generator", lambda electrode: np.random.default_rng([7, electrode]))
    return render(beats, *latents, anatomy, leads, round(seconds * rate), rate, generator, noise=noise, **kw)


def beat(strain, lead, **kw):
    """One beat of a noiseless lead as (seconds from R, millivolts)."""
    rate, beats = 1000.0, rhythm(variability=0.0, heart_rate=kw.pop("heart_rate", 70.0))
    signal = record((lead,), rate, strain=strain, beats=beats, **kw)[0, :, 0]
    peak = beats.times[0][(beats.times[0] > 2) & (beats.times[0] < 8)][0]
    time = np.arange(len(signal)) / rate - peak
    near = (time > -0.3) & (time < 0.5)
    return time[near], signal[near]


def extremes(strain, lead, start, stop):
    time, signal = beat(strain, lead)
    part = signal[(time >= start) & (time <= stop)]
    return part.min(), part.max()


def frontal_axis(strain):
    """The QRS axis in degrees, as clinicians take it: net deflection in I and aVF."""
    one, foot = (sum(extremes(strain, lead, -0.06, 0.06)) for lead in ("I", "aVF"))
    return np.degrees(np.arctan2(foot * 2 / np.sqrt(3), one))


@settings(max_examples=40, deadline=None)
@given(
    leads=st.lists(st.sampled_from(LEADS), unique=True),
    rate=st.floats(10, 1000),
    seconds=st.floats(0.2, 5),
    heart_rate=st.floats(38, 170),
    windows=st.integers(1, 3),
)
def test_any_leads_at_any_rate_have_the_shape_asked_for_and_finite_plausible_voltages(
    leads, rate, seconds, heart_rate, windows
):
    beats = rhythm(heart_rate, windows, seconds)
    signals = record(tuple(leads), rate, seconds, strain=0.5, beats=beats, noise=NoiseSettings(off=0, gap=0))
    assert signals.shape == (windows, round(seconds * rate), len(leads))
    assert signals.dtype == np.float32
    assert np.isfinite(signals).all()
    assert np.abs(signals).max(initial=0) < 4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gap=st.floats(0, 0.5), strain=st.floats(-4, 4))
def test_limb_leads_obey_einthoven_and_goldberger_to_rounding_with_noise_and_gaps(seed, gap, strain):
    generator = lambda electrode: np.random.default_rng([seed, electrode])  # noqa: E731
    anatomy = Anatomy.draw(np.random.default_rng(seed), AnatomySettings(), 0.5)
    noise = NoiseSettings(wander_mv=0.5, gap=gap, off=0.1)
    beats = rhythm(windows=4, seconds=3.0)
    x = record(LEADS[:6], 240.0, 3.0, strain, 0.0, beats, noise, anatomy, generator=generator, shift=0.1)
    one, two, three, avr, avl, avf = np.moveaxis(x, -1, 0)
    for found, expected in (
        (three, two - one),
        (avr, -(one + two) / 2),
        (avl, (one - three) / 2),
        (avf, (two + three) / 2),
    ):
        both = np.isfinite(found) & np.isfinite(expected)
        np.testing.assert_allclose(found[both], expected[both], atol=5e-6)


def test_a_lead_is_the_same_whichever_leads_it_is_asked_for_with():
    noise = NoiseSettings(gap=0.3)
    beats = rhythm(windows=6)
    full = record(noise=noise, beats=beats)
    for leads in (("V1",), ("V6", "II"), ("aVF", "I", "V3")):
        part = record(leads, noise=noise, beats=beats)
        np.testing.assert_allclose(part, full[..., [LEADS.index(lead) for lead in leads]], atol=5e-6)


def test_an_unknown_lead_is_named_with_the_known_ones():
    with pytest.raises(InputError, match=r"unknown lead 'V11'; did you mean 'V1'\?; the known leads are I, II, III"):
        record(("II", "V11"))


def test_an_electrode_off_takes_exactly_the_leads_that_use_it():
    assert np.isnan(record(noise=NoiseSettings(off=1))).all()
    off = np.isnan(record(rate=20.0, beats=rhythm(windows=300), noise=NoiseSettings(off=0.2, gap=0))).all(1)
    one, two, three, avr, avl, avf, *chest = off.T
    # Two limb leads share each arm or leg: losing one electrode leaves the lead between the other two.
    for kept, lost in ((one, (two, three)), (two, (one, three)), (three, (one, two))):
        assert (lost[0] & lost[1] & ~kept).any()
        assert not (kept & ~lost[0] & ~lost[1]).any()
    for goldberger in (avr, avl, avf):
        np.testing.assert_array_equal(goldberger, one | two | three)
    for lead in chest:
        assert (avr <= lead).all()
        assert lead.mean() == pytest.approx(1 - 0.8**4, abs=0.12)


def test_gaps_are_contiguous_and_as_frequent_as_asked():
    beats = rhythm(windows=400, seconds=1.0)
    x = record(("I",), 100.0, 1.0, beats=beats, noise=NoiseSettings(off=0.1, gap=0.2))[..., 0]
    missing = np.isnan(x)
    whole, part = missing.all(1).mean(), (missing.any(1) & ~missing.all(1)).mean()
    # Lead I is lost with either of two electrodes.
    assert whole == pytest.approx(1 - 0.9**2, abs=0.06)
    assert part == pytest.approx(0.9**2 - 0.7**2, abs=0.08)
    edges = np.abs(np.diff(missing.astype(int), axis=1)).sum(1)
    assert edges.max() <= 4


def test_a_healthy_heart_has_a_normal_axis_and_rs_in_v1_with_r_growing_across_the_chest():
    assert -30 < frontal_axis(-2.5) < 90
    low, high = extremes(-2.5, "V1", -0.06, 0.06)
    assert 0.05 < high < 0.6
    assert -1.8 < low < -2 * high
    ratio = [high / -low for low, high in (extremes(-2.5, lead, -0.06, 0.06) for lead in ("V1", "V3", "V5"))]
    assert ratio[0] < ratio[1] < ratio[2]
    assert ratio[2] > 1
    assert all(0 < extremes(-2.5, lead, 0.15, 0.4)[1] < 0.8 for lead in ("I", "II", "V2", "V5"))
    assert 0.05 < extremes(-2.5, "II", -0.25, -0.09)[1] < 0.2


def test_strain_turns_the_axis_right_raises_r_in_v1_peaks_p_and_inverts_t():
    assert frontal_axis(2.5) > 90
    low, high = extremes(2.5, "V1", -0.06, 0.06)
    assert high > -low
    assert extremes(2.5, "II", -0.25, -0.09)[1] > 1.5 * extremes(-2.5, "II", -0.25, -0.09)[1]
    assert extremes(2.5, "V1", 0.15, 0.4)[0] < -0.1
    assert extremes(2.5, "V2", 0.15, 0.4)[1] < 0.1
    assert sum(extremes(2.5, "V6", -0.06, 0.06)) < 0


def test_decompensation_flattens_t_alone_and_effects_can_be_switched_off():
    time, well = beat(0.0, "II", decompensation=-2.5)
    _, ill = beat(0.0, "II", decompensation=2.5)
    t_wave = (time > 0.15) & (time < 0.45)
    assert ill[t_wave].max() < 0.7 * well[t_wave].max()
    np.testing.assert_allclose(ill[time < 0.05], well[time < 0.05], atol=0.01)
    none = EcgEffects(right_ventricle=0, p_pulmonale=0, t_inversion=0, t_flattening=0)
    np.testing.assert_array_equal(
        record(strain=2.0, decompensation=2.0, effects=none), record(strain=-2.0, decompensation=0.0, effects=none)
    )


def test_qrs_keeps_its_width_while_qt_follows_the_square_root_of_the_cycle():
    peaks, widths = [], []
    for heart_rate in (50.0, 110.0):
        time, signal = beat(-1.0, "II", heart_rate=heart_rate)
        qrs = np.abs(time) < 0.06
        t_wave = (time > 0.15) & (time < 0.45)
        widths.append((signal[qrs] > signal[qrs].max() / 2).sum())
        peaks.append(time[t_wave][signal[t_wave].argmax()])
    assert widths[0] == pytest.approx(widths[1], abs=1)
    assert peaks[0] / peaks[1] == pytest.approx(np.sqrt(110 / 50), rel=0.03)


@pytest.mark.parametrize("hz", [50, 60])
def test_mains_hum_is_at_its_frequency_and_absent_where_it_cannot_be_sampled(hz):
    hum = QUIET.model_copy(update={"powerline_mv": 0.5, "powerline_hz": hz})
    difference = (record(("II",), noise=hum) - record(("II",)))[0, :, 0]
    assert np.abs(np.fft.rfft(difference)).argmax() / 10.0 == hz
    np.testing.assert_array_equal(record(("II",), rate=2.0 * hz, noise=hum), record(("II",), rate=2.0 * hz))


def test_noise_levels_are_the_root_mean_squares_they_say():
    beats = rhythm(windows=200)
    none = Anatomy(0.0, np.eye(3), np.ones(6), np.zeros(6), np.ones(2), 1.0)
    for name in ("wander_mv", "respiration_mv", "powerline_mv", "muscle_mv"):
        x = record(("I",), 200.0, beats=beats, noise=QUIET.model_copy(update={name: 1.0}), anatomy=none)
        # A difference of two electrodes, whose levels vary log-normally from window to window.
        assert np.sqrt(np.mean(x**2) / 2 / np.exp(2 * 0.3**2)) == pytest.approx(1, rel=0.2), name


@pytest.mark.parametrize("heart_rate", [40, 75, 120, 165])
def test_neurokit_finds_the_true_beats(heart_rate):
    beats = rhythm(float(heart_rate), seconds=20.0)
    signal = record(("II",), 250.0, 20.0, beats=beats, noise=NoiseSettings(off=0, gap=0))[0, :, 0]
    found = nk.ecg_peaks(nk.ecg_clean(signal, 250), 250)[1]["ECG_R_Peaks"] / 250
    true = beats.times[0][(beats.times[0] > 0.5) & (beats.times[0] < 19.5)]
    assert np.abs(found[:, None] - true).min(0).max() < 0.03
    assert 60 * (len(found) - 1) / (found[-1] - found[0]) == pytest.approx(beats.heart_rate(20.0)[0], abs=1)


def test_beats_keep_the_rate_and_variability_asked_for_and_follow_the_breath():
    n = 200
    beats = Rhythm.draw(np.random.default_rng(1), np.full(n, 75.0), np.full(n, 0.05), np.full(n, 0.25), 60.0)
    assert np.abs(beats.heart_rate(60.0) - 75).max() < 2
    intervals = np.diff(beats.times, axis=1)
    assert (intervals.std(1) / intervals.mean(1)).mean() == pytest.approx(0.05, rel=0.1)
    breath = np.sin(2 * np.pi * 0.25 * beats.times[:, 1:] + beats.breath[:, 1:])
    assert np.corrcoef(breath.ravel(), intervals.ravel())[0, 1] > 0.4
