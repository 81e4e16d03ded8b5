import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from tfmmcl.cohorts.synthetic.physiology import (
    STATICS,
    STRUCTURED,
    LabelSettings,
    LatentSettings,
    MissingSettings,
    TabularEffects,
    VitalEffects,
    draw_labels,
    draw_latents,
    draw_statics,
    draw_vitals,
    latent_auroc,
)

NO_EFFECTS = TabularEffects.model_validate(
    {latent: dict.fromkeys(VitalEffects.model_fields, 0) for latent in ("strain", "decompensation")}
)
COMPLETE = MissingSettings(heart_rate=0, spo2=0, panel=0, pressure=0, value=0)
STATIC = {feature.name: i for i, feature in enumerate(STATICS)}
VITAL = {feature.name: i for i, feature in enumerate(STRUCTURED)}


def latents(patients, trajectories=2, windows=4, **kw):
    rng = np.random.default_rng(0)
    return np.stack([draw_latents(rng, trajectories, windows, LatentSettings(**kw)) for _ in range(patients)])


def statics(patients=1500, effects=None, missing=COMPLETE):
    rng = np.random.default_rng(1)
    states = latents(patients)
    return states, np.stack([draw_statics(rng, state, effects or TabularEffects(), missing) for state in states])


def vitals(patients=600, effects=None, missing=COMPLETE):
    rng = np.random.default_rng(2)
    states = latents(patients)
    return states, [draw_vitals(rng, state, effects or TabularEffects(), missing) for state in states]


def auroc(score, label):
    positive = score[label > 0]
    return mannwhitneyu(positive, score[label == 0]).statistic / len(positive) / (label == 0).sum()


def test_latents_are_standard_normal_and_correlated_as_asked():
    states = latents(3000, patient=0.5, drift=0.05, correlation=0.3)
    for window in (0, -1):
        strain, decompensation = states[:, 0, 0, window], states[:, 1, 0, window]
        for latent in (strain, decompensation):
            assert latent.mean() == pytest.approx(0, abs=0.07)
            assert latent.std() == pytest.approx(1, abs=0.05)
        assert np.corrcoef(strain, decompensation)[0, 1] == pytest.approx(0.3, abs=0.06)
    # Two trajectories share the patient's half and half of the rest, as neighbours do.
    assert np.corrcoef(states[:, 0, 0, 0], states[:, 0, 1, 0])[0, 1] == pytest.approx(0.95 * 0.75, abs=0.05)
    assert np.corrcoef(states[:, 0, 0, 0], states[:, 0, 0, -1])[0, 1] > 0.95


@settings(max_examples=15, deadline=None)
@given(prevalence=st.floats(0.02, 0.98), correlation=st.floats(0, 0.99), seed=st.integers(0, 1000))
def test_prevalence_is_exact_and_the_latents_auroc_is_the_one_computed(prevalence, correlation, seed):
    rng = np.random.default_rng(seed)
    n = 100_000
    latent = rng.standard_normal(n)
    labels = draw_labels(rng, latent, LabelSettings(prevalence=prevalence, correlation=correlation))
    assert labels.mean() == pytest.approx(prevalence, abs=5 * np.sqrt(prevalence * (1 - prevalence) / n))
    error = 0.5 / np.sqrt(n * min(prevalence, 1 - prevalence))
    assert auroc(latent, labels) == pytest.approx(latent_auroc(prevalence, correlation), abs=5 * error)


def test_the_auroc_has_its_known_values():
    assert latent_auroc(0.3, 0.0) == pytest.approx(0.5, abs=1e-6)
    assert latent_auroc(0.3, 0.9999) > 0.999
    # Turning both signs swaps cases and controls, and the AUROC stays.
    assert latent_auroc(0.2, 0.7) == pytest.approx(latent_auroc(0.8, 0.7), abs=1e-6)


def test_a_patient_is_labelled_whole_or_not_at_all():
    rng = np.random.default_rng(0)
    task = LabelSettings(prevalence=0.5, labelled_fraction=0.3)
    missing = np.array([np.isnan(draw_labels(rng, np.zeros(5), task)) for _ in range(2000)])
    assert (missing.all(1) | ~missing.any(1)).all()
    assert missing.mean() == pytest.approx(0.7, abs=0.04)


def test_laboratory_values_and_pressures_are_plausible():
    _, values = statics()
    values = values.reshape(-1, len(STATICS))
    reference = {  # widest 5th-to-95th percentile range an inpatient population should lie in, and the median's range
        "sodium": (128, 148, 136, 140),
        "potassium": (3.0, 5.8, 3.9, 4.5),
        "chloride": (92, 114, 100, 105),
        "bicarbonate": (15, 35, 23, 27),
        "bun": (5, 80, 15, 30),
        "creatinine": (0.4, 4, 0.8, 1.4),
        "glucose": (65, 260, 105, 140),
        "systolic_bp": (85, 165, 112, 132),
        "diastolic_bp": (45, 95, 60, 78),
    }
    for name, (low, high, least, most) in reference.items():
        column = values[:, STATIC[name]]
        assert low < np.quantile(column, 0.05) < np.quantile(column, 0.95) < high, name
        assert least <= np.median(column) <= most, name
    decimals = [0, 1, 0, 0, 0, 2, 0, 0, 0]
    for column, places in zip(values.T.astype(float), decimals):
        np.testing.assert_allclose(column, np.round(column, places), rtol=1e-6)
    assert (values[:, STATIC["diastolic_bp"]] < values[:, STATIC["systolic_bp"]]).all()


def test_laboratory_values_correlate_as_in_patients():
    states, values = statics()
    values = values[:, 0]
    correlation = np.corrcoef(np.log(values).T)

    def between(a, b):
        return correlation[STATIC[a], STATIC[b]]

    assert between("sodium", "chloride") > 0.4
    assert between("bun", "creatinine") > 0.5
    assert between("chloride", "bicarbonate") < -0.1
    assert between("potassium", "creatinine") > 0.15
    assert between("systolic_bp", "diastolic_bp") > 0.4
    decompensation = states[:, 1, 0, 0]
    for name, sign in (("bun", 1), ("creatinine", 1), ("potassium", 1), ("sodium", -1), ("bicarbonate", -1)):
        assert sign * np.corrcoef(values[:, STATIC[name]], decompensation)[0, 1] > 0.1, name


def test_without_effects_nothing_in_the_tables_follows_the_latents():
    states, values = statics(effects=NO_EFFECTS)
    _, series = vitals(1500, effects=NO_EFFECTS)
    table = np.concatenate([values[:, 0], [v.structured[0, 0] for v in series]], 1)
    for latent in states[:, :, 0, 0].T:
        assert np.abs([np.corrcoef(column, latent)[0, 1] for column in table.T]).max() < 0.1


def test_vitals_are_consistent_and_follow_decompensation():
    states, series = vitals()
    x = np.stack([v.structured for v in series])
    column = {name: x[..., i] for name, i in VITAL.items()}
    for vital in ("heart_rate", "spo2"):
        assert (column[f"{vital}_min"] <= column[f"{vital}_mean"]).all()
        assert (column[f"{vital}_last"] >= column[f"{vital}_min"]).all()
        assert (column[f"{vital}_sd"] >= 0).all()
    assert (column["heart_rate_mean"] <= column["heart_rate_max"]).all()
    assert column["spo2_mean"].max() <= 100
    assert 93 < np.median(column["spo2_mean"]) < 98
    true = np.stack([v.heart_rate for v in series])
    # The ECG is taken in one of the window's minutes; the monitor rounds.
    assert (true >= column["heart_rate_min"] - 0.5).all()
    assert (true <= column["heart_rate_max"] + 0.5).all()
    decompensation = states[:, 1].ravel()
    for values, sign in (
        (column["heart_rate_mean"], 1),
        (column["spo2_mean"], -1),
        (np.stack([v.variability for v in series]), -1),
        (np.stack([v.respiration_hz for v in series]), 1),
    ):
        assert 0.2 < sign * np.corrcoef(values.ravel(), decompensation)[0, 1] < 0.85


def test_values_are_missing_as_often_and_as_jointly_as_asked():
    missing = MissingSettings(heart_rate=0.2, spo2=0.3, panel=0.25, pressure=0.1, value=0)
    gaps = np.isnan(statics(missing=missing)[1]).reshape(-1, len(STATICS))
    assert (gaps[:, :7].all(1) == gaps[:, :7].any(1)).all()
    assert (gaps[:, 7] == gaps[:, 8]).all()
    assert gaps[:, 0].mean() == pytest.approx(0.25, abs=0.04)
    assert gaps[:, 7].mean() == pytest.approx(0.1, abs=0.03)
    gaps = np.isnan([v.structured for v in vitals(missing=missing)[1]])
    assert gaps[..., 0].mean() == pytest.approx(0.2, abs=0.03)
    assert gaps[..., -1].mean() == pytest.approx(0.3, abs=0.03)
