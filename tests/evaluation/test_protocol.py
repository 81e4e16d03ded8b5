"""The runner: what is done, what is reused, what the test split may touch."""

import dataclasses
import json

import numpy as np
import pytest

from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort, SyntheticSettings
from tfmmcl.config import validate
from tfmmcl.errors import InputError
from tfmmcl.evaluation.arms import applicable, finetune_settings, pretraining_run
from tfmmcl.evaluation.bootstrap import difference, interval
from tfmmcl.evaluation.cells import Cells, Job
from tfmmcl.evaluation.protocol import all_jobs, chosen_tasks, evaluate
from tfmmcl.evaluation.report import REPORT, write_report
from tfmmcl.evaluation.results import EMBEDDINGS, Results
from tfmmcl.evaluation.settings import EvaluateSettings
from tfmmcl.records.labels import labelled
from tfmmcl.records.writer import write_dataset

# One process runs the evaluation that these tests look at.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("protocol")]

TINY = {
    "fractions": [0.5, 1.0],
    "seeds": 2,
    "tasks": ["elevated_mpap"],
    "arms": ["rand_init_no_ecg", "contrastive"],
    "encoder": {
        "signal": {"stem_filters": 4, "stage_filters": [4], "blocks_per_stage": 1, "kernel_size": 3, "units": 4},
        "structured_units": [4],
        "statics_units": [4],
        "recurrent_layers": 1,
        "recurrent_units": 8,
    },
    "pretraining": {
        "batch_size": 8,
        "augmentation": {"segment": {"seconds": 1}},
        "objective": {"projection_units": [4]},
        "training": {"epochs": 1},
    },
    "finetuning": {"batch_size": 16, "reading": {"seconds": 1}, "training": {"epochs": 2}},
    "resamples": 100,
}


def settings(**changes):
    return validate({**TINY, **changes}, EvaluateSettings, "test")


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """Every trajectory is labelled, so that every split has both labels."""
    made = SyntheticSettings(
        name="labelled",
        patients=60,
        trajectories_per_patient=2,
        windows=3,
        window_seconds=4,
        sampling_rate_hz=100,
        leads=("II", "V1"),
        elevated_mpap={"labelled_fraction": 1.0, "prevalence": 0.5},
    )
    return write_dataset(SyntheticCohort(made), made, tmp_path_factory.mktemp("labelled") / "data")


@pytest.fixture(scope="module")
def done(small_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    return evaluate(settings(), small_data, out, workers=1), out


def test_a_pretrained_encoders_embeddings_are_kept_with_patient_split_and_labels(done, small_data):
    results, out = done
    with np.load(out / results.pretraining[0].run / EMBEDDINGS) as arrays:
        assert arrays["embedding"].shape == (
            sum(split.trajectories for split in small_data.manifest.splits.values()),
            8,
        )
        assert np.isfinite(arrays["embedding"]).all()
        for split in ("train", "validation", "test"):
            rows = arrays["split"] == split
            kept = zip(arrays["patient"][rows], arrays["trajectory"][rows], arrays["task/elevated_mpap"][rows])
            assert list(kept) == [tuple(label) for label in labelled(small_data, split, "elevated_mpap")]


def test_the_report_has_a_map_of_each_pretrained_encoder(done):
    results, out = done
    write_report(results, out)
    page = (out / REPORT).read_text()
    assert page.count("<figcaption>Contrastive, 1 seed: t-SNE of the frozen pre-trained encoder") == 1


def test_every_arm_mode_fraction_and_seed_has_one_result(done):
    results, _ = done
    networks = {(cell.arm, cell.mode) for cell in results.cells if cell.mode != "baseline"}
    assert len(networks) == 2 * 4
    assert len(results.cells) == (2 * 4 + 3) * 2 * 2
    assert len({(c.arm, c.mode, c.fraction, c.seed) for c in results.cells}) == len(results.cells)
    assert {run.arm for run in results.pretraining} == {"contrastive"}


def test_scores_are_those_of_the_predictions_on_disk(done, small_data):
    from sklearn.metrics import roc_auc_score

    results, out = done
    known = {item.trajectory: item.label for item in labelled(small_data, "test", "elevated_mpap")}
    for cell in results.cells:
        with np.load(out / cell.predictions) as arrays:
            assert {str(name) for name in arrays["trajectory"]} == set(known)
            assert all(
                known[str(name)] == label for name, label in zip(arrays["trajectory"], arrays["label"], strict=True)
            )
            assert cell.test["auroc"] == pytest.approx(roc_auc_score(arrays["label"], arrays["prediction"]))


def test_summaries_and_comparisons_are_those_of_the_cells(done):
    results, out = done

    def predictions(arm, mode):
        cells = [c for c in results.cells if (c.arm, c.mode, c.fraction) == (arm, mode, 1.0)]
        rows = []
        for cell in sorted(cells, key=lambda cell: cell.seed):
            with np.load(out / cell.predictions) as arrays:
                order = np.argsort(arrays["trajectory"])
                labels, patients = arrays["label"][order], arrays["patient"][order]
                rows.append(arrays["prediction"][order])
        return labels, patients, np.stack(rows), [cell.test["auroc"] for cell in cells]

    labels, patients, first, scores = predictions("contrastive", "finetune")
    row = next(
        r for r in results.summary
        if (r.arm, r.mode, r.fraction, r.metric) == ("contrastive", "finetune", 1.0, "auroc")
    )  # fmt: skip
    assert row.median == pytest.approx(np.median(scores))
    assert row.half_iqr == pytest.approx((np.percentile(scores, 75) - np.percentile(scores, 25)) / 2)
    found = interval("auroc", labels, first, patients, resamples=100)
    assert (row.low, row.high) == pytest.approx((found.low, found.high), nan_ok=True)
    baselines = {}
    for cell in results.cells:
        if (cell.mode, cell.fraction) == ("baseline", 1.0):
            baselines.setdefault(cell.arm, []).append(cell.validation["auroc"])
    best = max(baselines, key=lambda arm: np.median(baselines[arm]))
    second = predictions(best, "baseline")[2]
    compared = next(
        c for c in results.comparisons
        if (c.first, c.second, c.mode, c.fraction, c.metric) == ("contrastive", best, "finetune", 1.0, "auroc")
    )  # fmt: skip
    assert compared.p_value == pytest.approx(
        difference("auroc", labels, first, second, patients, resamples=100).p_value
    )


def test_nothing_is_done_twice_and_only_what_a_change_touches_again(done, small_data, monkeypatch):
    results, out = done
    computed = []
    original = Cells._compute
    monkeypatch.setattr(Cells, "_compute", lambda self, job, path: computed.append(job) or original(self, job, path))
    again = evaluate(settings(), small_data, out, workers=1)
    assert not computed
    assert again.summary == results.summary
    evaluate(
        settings(seeds=3, modes=["linear"], arms=["contrastive"], baselines=["best_static"]), small_data, out, workers=1
    )
    assert {(job.arm, job.mode, job.seed) for job in computed} == {
        ("contrastive", "linear", 2),
        ("best_static", "baseline", 2),
    }


def test_results_are_the_same_in_several_processes(done, small_data, tmp_path):
    results, _ = done
    chosen = {"arms": ["rand_init_no_ecg"], "modes": ["linear"], "baselines": ["logistic_regression"]}
    other = evaluate(settings(**chosen), small_data, tmp_path, workers=2)
    alike = {(c.arm, c.mode, c.fraction, c.seed): c.test for c in results.cells}
    for cell in other.cells:
        for name, value in cell.test.items():
            assert value == pytest.approx(alike[cell.arm, cell.mode, cell.fraction, cell.seed][name], abs=1e-3)


def test_the_test_split_touches_no_choice(done, small_data, tmp_path, monkeypatch):
    """With every test label turned round, all that is chosen and learnt stays: the predictions are the same."""
    results, out = done
    import tfmmcl.evaluation.cells as cells

    def turned(data, split, task):
        found = labelled(data, split, task)
        return [item._replace(label=1 - item.label) for item in found] if split == "test" else found

    monkeypatch.setattr(cells, "labelled", turned)
    job = Job("gradient_boosting", "elevated_mpap", "baseline", 1.0, 0)
    other = Cells(settings(), small_data, tmp_path).get(job)
    before = next(c for c in results.cells if (c.arm, c.fraction, c.seed) == (job.arm, job.fraction, job.seed))
    with np.load(out / before.predictions) as one, np.load(tmp_path / other.predictions) as two:
        np.testing.assert_array_equal(one["prediction"], two["prediction"])
        np.testing.assert_array_equal(one["label"], 1 - two["label"])


def test_results_come_back_from_disk(done, tmp_path):
    results, _ = done
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)


def test_another_seed_of_pretraining_is_another_run(small_data, tmp_path):
    one = pretraining_run("contrastive", settings(), small_data, tmp_path)
    pretraining = {**TINY["pretraining"], "seed": 1}
    assert pretraining_run("contrastive", settings(pretraining=pretraining), small_data, tmp_path).path != one.path
    assert pretraining_run("rand_init", settings(), small_data, tmp_path) is None


def test_what_does_not_fit_is_said(small_data):
    says = r"has no task 'elevated_mpab', expected one of .*did you mean 'elevated_mpap'"
    with pytest.raises(InputError, match=says):
        chosen_tasks(settings(tasks=["elevated_mpab"]), small_data)
    spec = small_data.spec.model_copy(update={"leads": (), "signal_scale_mv": ()})
    manifest = small_data.manifest.model_copy(update={"spec": spec})
    bare = dataclasses.replace(small_data, manifest=manifest)
    assert applicable(settings(), bare) == ("rand_init_no_ecg",)
    with pytest.raises(InputError, match="has no signals, and every one of the arms rand_init reads them"):
        applicable(settings(arms=["rand_init"]), bare)
    with pytest.raises(InputError, match="names something twice"):
        settings(arms=["contrastive", "contrastive"])


def test_pretrained_encoders_are_fine_tuned_by_settings_of_their_own(small_data, tmp_path):
    plain = settings()
    own = settings(
        finetuning={**TINY["finetuning"], "pretrained": {"epochs": 3, "frozen_epochs": 1, "encoder_rate": 0.1}}
    )
    for arm, epochs, rate in (("rand_init_no_ecg", 2, 1.0), ("contrastive", 3, 0.1)):
        training = finetune_settings(arm, "elevated_mpap", 1.0, 0, own, small_data, None).training
        assert (training.epochs, training.encoder_rate) == (epochs, rate)
        # A result is done again only where the settings are its own.
        job = Job(arm, "elevated_mpap", "finetune", 1.0, 0)
        paths = [Cells(one, small_data, tmp_path).path(job) for one in (plain, own)]
        assert (paths[0] == paths[1]) == (arm == "rand_init_no_ecg")


def test_jobs_cover_the_grid_once():
    jobs = list(all_jobs(settings(), ["rand_init"], ["a", "b"]))
    assert len(jobs) == len(set(jobs)) == 2 * 2 * 2 * (3 + 4)
