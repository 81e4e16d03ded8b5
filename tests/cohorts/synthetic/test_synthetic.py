import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import neurokit2 as nk
import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort, SyntheticSettings
from tfmmcl.cohorts.synthetic.physiology import latent_auroc
from tfmmcl.cohorts.trajectory import Trajectory
from tfmmcl.config import dump, load, validate
from tfmmcl.errors import InputError

pytestmark = pytest.mark.xdist_group("synthetic")  # the population is made once
CONFIGS = Path(__file__).parents[3] / "configs" / "cohorts"
SMALL = {
    "name": "small",
    "patients": 6,
    "windows": 2,
    "window_seconds": 2,
    "sampling_rate_hz": 100,
    "leads": ("II", "V1"),
}


def cohort(**kw):
    return SyntheticCohort(SyntheticSettings(**(SMALL | kw)))


def everything(made):
    return [trajectory for patient in made.patients() for trajectory in made.trajectories(patient)]


def content(trajectory):
    arrays = (trajectory.signals, trajectory.structured, trajectory.statics)
    return (trajectory.patient, trajectory.name, *(a.tobytes() for a in arrays), sorted(trajectory.labels.items()))


def auroc(score, label):
    positive = score[label > 0]
    return mannwhitneyu(positive, score[label == 0]).statistic / len(positive) / (label == 0).sum()


@pytest.fixture(scope="module")
def population():
    """Last-window latents, nuisance factors and labels of many patients whose signals are never drawn."""
    made = cohort(patients=2500, leads=(), elevated_mpap={"labelled_fraction": 1})
    rows = []
    for patient in made.patients():
        truth = made.latent(patient)
        a = truth.anatomy
        nuisance = [a.gain, a.noise, a.rotation[0, 1], a.rotation[0, 2], *a.waves, *a.expression, *a.timing]
        for j, trajectory in enumerate(made.trajectories(patient)):
            states = [truth.strain[j, -1], truth.decompensation[j, -1]]
            rows.append([trajectory.labels["elevated_mpap"], trajectory.labels["mortality_24h"], *states, *nuisance])
    return np.array(rows), made.settings


@pytest.mark.parametrize("leads", [(), ("V4",), ("I", "II", "III", "V1"), ("aVR", "V6", "I")])
def test_trajectories_fit_the_spec_and_are_named_once(leads):
    made = cohort(leads=leads)
    trajectories = everything(made)
    for trajectory in trajectories:
        trajectory.check(made.spec)
        assert all(a.dtype == np.float32 for a in (trajectory.signals, trajectory.structured, trajectory.statics))
        assert set(trajectory.labels.values()) <= {0.0, 1.0}
    assert len({trajectory.name for trajectory in trajectories}) == len(trajectories)
    assert {trajectory.patient for trajectory in trajectories} == set(made.patients())
    assert made.sources() == {}


def test_the_same_seed_gives_the_same_bytes_in_any_order_and_process():
    first = [content(t) for t in everything(cohort())]
    copy = pickle.loads(pickle.dumps(cohort(patients=9)))
    again = {p: [content(t) for t in copy.trajectories(p)] for p in reversed(copy.patients()[:6])}
    assert first == [row for patient in copy.patients()[:6] for row in again[patient]]
    assert first != [content(t) for t in everything(cohort(seed=1))]


def test_other_leads_and_rates_leave_labels_numbers_and_beats_alone():
    one, other = cohort(leads=("II",)), cohort(leads=("V1", "V2", "II"), sampling_rate_hz=250)
    for a, b in zip(everything(one), everything(other)):
        assert content(a)[3:] == content(b)[3:]
    for patient in one.patients():
        np.testing.assert_array_equal(one.latent(patient).heart_rate, other.latent(patient).heart_rate)


def test_trajectories_hold_no_latent_state():
    assert set(Trajectory.__dataclass_fields__) == {"patient", "name", "signals", "structured", "statics", "labels"}
    made = cohort()
    assert {f.name for f in made.spec.structured + made.spec.statics}.isdisjoint({"strain", "decompensation"})


def test_patients_have_the_mean_number_of_trajectories_asked_for():
    made = cohort(patients=1500, windows=1, leads=(), trajectories_per_patient=4.7)
    counts = [made.latent(patient).strain.shape[0] for patient in made.patients()]
    assert min(counts) == 1
    assert np.mean(counts) == pytest.approx(4.7, abs=5 * np.sqrt(4.7 * 3.7 / 1500))


def test_prevalences_are_the_papers_within_sampling_error(population):
    rows, settings = population
    # Trajectories of a patient are correlated; a design effect of 4 covers it.
    for column, task in enumerate((settings.elevated_mpap, settings.mortality_24h)):
        p = task.prevalence
        assert rows[:, column].mean() == pytest.approx(p, abs=4 * np.sqrt(4 * p * (1 - p) / len(rows)))


def test_each_label_follows_its_latent_as_far_as_computed_and_no_nuisance_factor(population):
    rows, settings = population
    for column, task in enumerate((settings.elevated_mpap, settings.mortality_24h)):
        expected = latent_auroc(task.prevalence, task.correlation)
        assert auroc(rows[:, 2 + column], rows[:, column]) == pytest.approx(expected, abs=0.03)
    for nuisance in rows[:, 4:].T:
        assert auroc(nuisance, rows[:, 0]) == pytest.approx(0.5, abs=0.05)
        assert auroc(nuisance, rows[:, 1]) == pytest.approx(0.5, abs=0.15)


def test_only_the_labelled_fraction_has_the_catheters_label():
    made = cohort(patients=1000, leads=(), windows=1, trajectories_per_patient=1)
    labels = [t.labels for t in everything(made)]
    assert np.mean(["elevated_mpap" in row for row in labels]) == pytest.approx(0.3, abs=0.06)
    assert all("mortality_24h" in row for row in labels)


@pytest.mark.parametrize("rate", [240, 500])
def test_neurokits_heart_rate_is_within_2_bpm_of_the_truth_at_normal_noise(rate):
    made = cohort(patients=15, trajectories_per_patient=1, window_seconds=30, sampling_rate_hz=rate, leads=("I", "II"))
    compared = 0
    for patient in made.patients():
        trajectory, truth = next(made.trajectories(patient)), made.latent(patient)
        for signal, expected in zip(trajectory.signals, truth.heart_rate[0]):
            if np.isfinite(signal).all():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    peaks = nk.ecg_peaks(nk.ecg_clean(signal[:, 1], rate), rate)[1]["ECG_R_Peaks"]
                assert 60 * rate * (len(peaks) - 1) / (peaks[-1] - peaks[0]) == pytest.approx(expected, abs=2)
                compared += 1
    assert compared >= 25


def test_the_ecgs_rate_is_one_of_the_minutes_that_the_monitor_summarised():
    made = cohort(patients=40, window_seconds=30, leads=(), trajectories_per_patient=1)
    for patient in made.patients():
        truth, trajectory = made.latent(patient), next(made.trajectories(patient))
        for expected, row in zip(truth.heart_rate[0], trajectory.structured):
            if np.isfinite(row[0]):
                assert row[2] - 2 <= expected <= row[3] + 2


def test_strain_can_be_read_from_v1():
    made = cohort(
        patients=80, trajectories_per_patient=1, windows=1, window_seconds=8, sampling_rate_hz=250, leads=("V1",)
    )
    score, strain = [], []
    for patient in made.patients():
        signal, truth = next(made.trajectories(patient)).signals[0, :, 0], made.latent(patient)
        centres = np.rint(truth.beats[0][0] * 250).astype(int)
        beats = [signal[c - 15 : c + 15] - signal[c - 15] for c in centres if 20 < c < 1970]
        if np.isfinite(beats).all():
            mean = np.mean(beats, 0)
            score.append(mean.max() + mean.min())
            strain.append(truth.strain[0, 0])
    assert 0.4 < np.corrcoef(score, strain)[0, 1] < 0.95


@pytest.mark.parametrize("patient", ["synthetic-000006", "synthetic-6", "synthetic-00000x", "someone"])
def test_an_unknown_patient_is_named(patient):
    with pytest.raises(InputError, match=f"no patient '{patient}'; expected synthetic-000000 to synthetic-000005"):
        next(cohort().trajectories(patient))


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("leads", ["II", "V9"], "unknown lead 'V9'"),
        ("leads", ["II", "II"], "twice"),
        ("elevated_mpap", {"prevalence": 1.5}, "less than 1"),
        ("noise", {"powerline_hz": 55}, "50 or 60"),
        ("seed", -1, "greater than or equal to 0"),
        ("sampling_rate", 240, "did you mean 'sampling_rate_hz'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(key, value, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        validate(SMALL | {key: value}, SyntheticSettings, "cohort.yaml")
    assert str(error.value).startswith("cohort.yaml: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["demo", "paper_synthetic"])
def test_the_shipped_configurations_work_and_survive_a_round_trip(name, tmp_path):
    settings = load(CONFIGS / f"{name}.yaml", SyntheticSettings)
    made = SyntheticCohort(settings)
    next(made.trajectories(made.patients()[-1])).check(made.spec)
    (tmp_path / "copy.yaml").write_text(dump(settings))
    assert load(tmp_path / "copy.yaml", SyntheticSettings) == settings


def test_setting_one_effect_or_one_label_figure_leaves_its_siblings_at_their_defaults():
    made = validate(
        SMALL | {"mortality_24h": {"prevalence": 0.1}, "tabular_effects": {"strain": {"heart_rate": 0}}},
        SyntheticSettings,
        "cohort.yaml",
    )
    default = SyntheticSettings(**SMALL)
    assert made.mortality_24h == default.mortality_24h.model_copy(update={"prevalence": 0.1})
    strain = default.tabular_effects.strain.model_copy(update={"heart_rate": 0.0})
    assert made.tabular_effects == default.tabular_effects.model_copy(update={"strain": strain})


def test_workers_need_no_tensorflow():
    code = (
        "import sys, tfmmcl.cohorts.synthetic.cohort; sys.exit(any(m in sys.modules for m in ('tensorflow', 'scipy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
