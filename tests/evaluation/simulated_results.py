"""Evaluations of arms that predict as well as they are told to: a folder as the runner leaves it, without networks."""

import numpy as np
from scipy.special import expit

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.evaluation.metrics import binary, multiclass, regression
from tfmmcl.evaluation.results import EMBEDDINGS, Cell, EvaluatedTask, Labelled, Pretraining, Results
from tfmmcl.evaluation.summaries import summarise

SKILL = {  # how much of the truth reaches the predictions with all labels, and what is left of it with few
    "rand_init": (0.9, 0.2),
    "rand_init_no_ecg": (0.7, 0.3),
    "contrastive": (1.6, 0.8),
    "contrastive_no_ecg": (0.9, 0.7),
    "logistic_regression": (0.8, 0.5),
    "gradient_boosting": (0.8, 0.3),
    "best_static": (0.4, 0.9),
}
BASELINES = ("logistic_regression", "gradient_boosting", "best_static")
NO_ECG = ("rand_init_no_ecg", "contrastive_no_ecg")
TASKS = (
    Task(name="elevated_mpap", description="Mean pulmonary arterial pressure above 20 mmHg at the next catheter."),
    Task(name="mortality_24h", description="Death within 24 h."),
)
PREVALENCE = {"elevated_mpap": -0.2, "mortality_24h": -2.6}  # as logits
METRICS = {"binary": binary, "multiclass": multiclass, "regression": regression}


class Simulation:
    """Trajectories of some patients, with the truth behind each task."""

    def __init__(self, tasks=TASKS, patients=150, per_patient=4, seed=0):
        rng = self.rng = np.random.default_rng(seed)
        self.tasks = tasks
        counts = 1 + rng.poisson(per_patient - 1, patients)
        counts[:6] += 12  # a few stay long
        owner = np.repeat(np.arange(patients), counts)
        self.patient = np.array([f"patient-{index}" for index in owner])
        self.trajectory = np.array([f"trajectory-{index}" for index in range(len(owner))])
        self.truth = {task.name: rng.normal(size=patients)[owner] + rng.normal(size=len(owner)) for task in tasks}
        self.label = {task.name: self._label(task) for task in tasks}
        self.test = np.isin(owner, np.arange(0, patients, 2))

    def _label(self, task):
        truth = self.truth[task.name]
        if task.kind == "regression":
            return 25 + 5 * truth + self.rng.normal(size=len(truth))
        if task.kind == "multiclass":
            return np.digitize(truth, [-0.7, 0.7]).astype(float)
        return (self.rng.random(len(truth)) < expit(1.2 * truth + PREVALENCE[task.name])).astype(float)

    def predict(self, arm, task, fraction, seed):
        """Returns predictions for the test split."""
        strength, kept = SKILL[arm]
        strength *= kept + (1 - kept) * (1 + np.log10(fraction) / 2)
        if arm == "best_static":
            seed = 0  # has no chance in it
        rng = np.random.default_rng([sorted(SKILL).index(arm), seed, round(100 * fraction)])
        noise = 0.8 * np.random.default_rng(sorted(SKILL).index(arm) // 2).normal(size=len(self.test))
        score = strength * self.truth[task.name] + noise + 0.3 * rng.normal(size=len(self.test))
        score = score[self.test]
        if task.kind == "regression":
            return 25 + 4 * score
        if task.kind == "multiclass":
            weights = np.exp(np.stack([-score, 0.3 + 0 * score, score], axis=1))
            return weights / weights.sum(axis=1, keepdims=True)
        return expit(score + PREVALENCE[task.name])

    def cell(self, arm, task, mode, fraction, seed, folder):
        """Predicts, writes the predictions' file and returns the result."""
        label, prediction = self.label[task.name][self.test], self.predict(arm, task, fraction, seed)
        path = f"cells/{arm}-{task.name}-{mode}-{fraction:g}-{seed}.npz"
        (folder / "cells").mkdir(exist_ok=True)
        np.savez(
            folder / path,
            label=label,
            prediction=prediction,
            patient=self.patient[self.test],
            trajectory=self.trajectory[self.test],
        )
        scores = METRICS[task.kind](label, prediction).items()
        scores = {key: float(value) if np.isfinite(value) else None for key, value in scores}
        trained = self.label[task.name][~self.test][: max(4, round(fraction * (~self.test).sum()))]
        return Cell(
            arm=arm,
            task=task.name,
            mode=mode,
            fraction=fraction,
            seed=seed,
            train=Labelled(
                patients=max(2, round(fraction * len(set(self.patient[~self.test])))),
                trajectories=len(trained),
                positives=int(trained.sum()) if task.kind == "binary" else None,
            ),
            validation=scores,  # there is no such split here
            test=scores,
            seconds=1.0,
            predictions=path,
        )

    def write_embeddings(self, arm, folder):
        """Writes what the frozen encoder of an arm makes of all trajectories."""
        run = folder / _run(arm)
        run.mkdir(parents=True, exist_ok=True)
        strength = SKILL[arm][0]
        truth = np.stack([self.truth[task.name] for task in self.tasks], axis=1)
        own = {name: self.rng.normal(size=8) for name in np.unique(self.patient)}
        weights = self.rng.normal(size=(truth.shape[1], 8))
        places = strength * truth @ weights + 1.5 * np.stack([own[name] for name in self.patient])
        np.savez(
            run / EMBEDDINGS,
            embedding=(places + 0.3 * self.rng.normal(size=places.shape)).astype(np.float32),
            patient=self.patient,
            trajectory=self.trajectory,
            split=np.where(self.test, "test", "train"),
            **{f"task/{name}": label for name, label in self.label.items()},
        )

    def splits(self):
        """Returns the counts that a manifest has."""
        counts = {}
        for split, chosen in (("train", ~self.test), ("validation", self.test & False), ("test", self.test)):
            labels = {
                task.name: {"labelled": int(chosen.sum()), "positive": int((self.label[task.name][chosen] == 1).sum())}
                for task in self.tasks
            }
            patients = len(set(self.patient[chosen]))
            counts[split] = {"patients": patients, "trajectories": int(chosen.sum()), "labels": labels}
        return counts


def simulate(
    folder,
    *,
    arms=tuple(SKILL),
    tasks=TASKS,
    headlines=("auroc", "auprc"),
    modes=("finetune", "linear", "knn"),
    fractions=(0.05, 0.1, 0.5, 1.0),
    seeds=3,
    resamples=60,
    **size,
):
    """Writes predictions and embeddings into a folder, and returns the results.

    Args:
        folder: It exists.
        arms: Networks and baselines.
        tasks: What they predict.
        headlines: A metric per task.
        modes: The networks' modes.
        fractions: Of the labelled training patients.
        seeds: How many.
        resamples: Of the bootstrap.
        **size: Goes to `Simulation`.
    """
    made = Simulation(tasks, **size)
    cells = [
        made.cell(arm, task, mode, fraction, seed, folder)
        for arm in arms
        for task in tasks
        for mode in (("baseline",) if arm in BASELINES else modes)
        for fraction in fractions
        for seed in range(seeds)
    ]
    evaluated = [EvaluatedTask(task=task, headline=headline) for task, headline in zip(tasks, headlines)]
    summary, comparisons = summarise(cells, evaluated, folder, resamples, 0.95)
    pretrained = [arm for arm in arms if arm.startswith("contrastive")]
    for arm in pretrained:
        made.write_embeddings(arm, folder)
    return Results(
        data={
            "name": "a <simulated> cohort",
            "description": "Made up; 5 < 6.",
            "fingerprint": "0123456789abcdef",
            "tfmmcl": "0.1",
            "splits": made.splits(),
        },
        tasks=evaluated,
        settings={"seeds": seeds, "fractions": list(fractions), "note": "<&>"},
        machine={"device": "cpu", "versions": {"keras": "3.12"}, "date": "2026-01-02", "wall_seconds": 4321.0},
        cells=cells,
        summary=summary,
        comparisons=comparisons,
        pretraining=[_pretrained(arm, seed) for seed, arm in enumerate(pretrained)],
    )


def _run(arm):
    return f"pretrained/{arm}"


def _pretrained(arm, seed):
    epochs = np.arange(1, 31)
    rng = np.random.default_rng(seed)
    loss = 5.5 - (2.5 - 0.5 * seed) * (1 - np.exp(-epochs / 8)) + 0.03 * rng.normal(size=len(epochs))
    history = [
        {"epoch": int(epoch), "loss": one, "val_loss": one + 0.2, "val_contrastive_accuracy": (5.5 - one) / 6}
        for epoch, one in zip(epochs, loss.tolist())
    ]
    chance = {"loss": float(np.log(255)), "contrastive_accuracy": 1 / 255}
    return Pretraining(arm=arm, run=_run(arm), history=history, chance=chance, wall_seconds=754.0)
