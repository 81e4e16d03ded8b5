"""One result of an evaluation: an arm, a task, a mode, a label fraction and a seed."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfmmcl.cohorts.splits import Split
from tfmmcl.cohorts.trajectory import Task
from tfmmcl.evaluation import baselines, metrics, probes, tabular
from tfmmcl.evaluation.arms import (
    finetune_settings,
    finetuning_of,
    is_pretrained,
    key_of,
    pretrain_settings,
    pretraining_run,
)
from tfmmcl.evaluation.results import Cell, Labelled, Mode
from tfmmcl.evaluation.settings import EvaluateSettings
from tfmmcl.records.labels import Label, find_task, fraction_of_patients, labelled
from tfmmcl.records.manifest import DataSet
from tfmmcl.training.run_directory import write_complete


@dataclass(frozen=True)
class Job:
    """Which result."""

    arm: str
    task: str
    mode: Mode
    fraction: float
    seed: int


@dataclass(frozen=True)
class Examples:
    """Some trajectories of a split: ids `(n,)`, patients `(n,)`, labels `(n,)`, and inputs `(n, F)`."""

    trajectories: np.ndarray
    patients: np.ndarray
    labels: np.ndarray
    inputs: np.ndarray


class Cells:
    """Computes results, and remembers in its process what several of them need.

    Args:
        settings: The evaluation's settings.
        data: The data set.
        out: The report's folder, which holds the pre-training runs and keeps every result.
    """

    def __init__(self, settings: EvaluateSettings, data: DataSet, out: Path) -> None:
        self.settings, self.data, self.out = settings, data, out
        self.embedded = functools.lru_cache(maxsize=8)(self._embedded)
        self.tabular = functools.lru_cache(maxsize=3)(functools.partial(tabular.flatten, data))

    def path(self, job: Job) -> Path:
        """Returns where a result is kept, by all that it depends on."""
        settings, depends = self.settings, {"job": job.__dict__, "data": self.data.fingerprint}
        run = pretraining_run(job.arm, settings, self.data, self.out)
        if run is not None:
            depends["pretraining"] = run.path.name
        if job.mode == "finetune":
            recipe = settings.finetuning.model_copy(update={"training": finetuning_of(job.arm, settings)})
            depends["finetuning"] = recipe.model_dump(mode="json", exclude={"pretrained"})
        if job.mode != "baseline":
            depends["encoder"] = settings.encoder.model_dump(mode="json")
        return self.out / "cells" / f"{key_of(depends)}.json"

    def get(self, job: Job) -> Cell:
        """Returns a result, computed unless it was before."""
        path = self.path(job)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            cell = self._compute(job, path.with_suffix(".npz"))
            write_complete(path, lambda file: file.write_text(cell.model_dump_json(), encoding="utf-8"))
        return Cell.model_validate_json(path.read_text(encoding="utf-8"))

    def _compute(self, job: Job, predictions: Path) -> Cell:
        began = time.perf_counter()
        task = find_task(self.data, job.task)
        training = self._training_labels(job)
        predicted = self._finetuned(job) if job.mode == "finetune" else self._fitted(job, task, training)
        arrays = {}
        for split, prefix in (("test", ""), ("validation", "validation_")):
            trajectories, patients, labels, values = predicted[split]
            arrays |= {
                f"{prefix}trajectory": trajectories,
                f"{prefix}patient": patients,
                f"{prefix}label": labels,
                f"{prefix}prediction": values,
            }
        write_complete(predictions, lambda path: np.savez(path, **arrays))
        scores = {split: metrics.scores(task, *predicted[split][2:]) for split in ("validation", "test")}
        positives = sum(item.label == 1 for item in training) if task.kind == "binary" else None
        return Cell(
            **job.__dict__,
            train=Labelled(
                patients=len({item.patient for item in training}), trajectories=len(training), positives=positives
            ),
            **scores,
            seconds=time.perf_counter() - began,
            predictions=str(predictions.relative_to(self.out)),
        )

    def _training_labels(self, job: Job) -> list[Label]:
        found = labelled(self.data, "train", job.task)
        chosen = fraction_of_patients(found, job.fraction, job.seed)
        return [item for item in found if item.patient in chosen]

    def _finetuned(self, job: Job) -> dict[Split, tuple[np.ndarray, ...]]:
        from tfmmcl.training.finetune import fit  # TensorFlow

        run = pretraining_run(job.arm, self.settings, self.data, self.out)
        settings = finetune_settings(
            job.arm, job.task, job.fraction, job.seed, self.settings, self.data, None if run is None else run.path
        )
        found = fit(settings, self.data).predictions
        return {
            split: (found[split].trajectories, found[split].patients, found[split].labels, found[split].predictions)
            for split in ("validation", "test")
        }

    def _fitted(self, job: Job, task: Task, training: list[Label]) -> dict[Split, tuple[np.ndarray, ...]]:
        """Fits a baseline or a probe; returns ids, patients, labels and predictions."""
        train = self._examples(job, "train", training)
        rest = {
            split: self._examples(job, split, labelled(self.data, split, job.task)) for split in ("validation", "test")
        }
        known = rest["validation"]
        if job.mode == "baseline":
            model = baselines.fit(
                job.arm, task, train.inputs, train.labels, known.inputs, known.labels, job.seed, self._names()
            )
        else:
            model = probes.fit(job.mode, task, train.inputs, train.labels, known.inputs, known.labels, job.seed)
        return {
            split: (item.trajectories, item.patients, item.labels, model.predict(item.inputs))
            for split, item in rest.items()
        }

    def _examples(self, job: Job, split: Split, labels: list[Label]) -> Examples:
        if job.mode == "baseline":
            found = self.tabular(split)
            names, inputs = found.trajectories, found.features
        else:
            embedded = self.embedded(job.arm, None if is_pretrained(job.arm) else job.seed)
            # A split without trajectories has no embeddings, nor labels that want any.
            found = embedded.get(split, embedded["train"])
            names, inputs = found.trajectories, found.embeddings
        place = {name: index for index, name in enumerate(names)}
        rows = [place[item.trajectory] for item in labels]
        return Examples(
            np.array([item.trajectory for item in labels]),
            np.array([item.patient for item in labels]),
            np.array([item.label for item in labels], float),
            inputs[rows],
        )

    def _names(self) -> tuple[str, ...]:
        return self.tabular("train").names

    def _embedded(self, arm: str, seed: int | None) -> dict:
        from tfmmcl.evaluation import embeddings  # TensorFlow

        run = pretraining_run(arm, self.settings, self.data, self.out)
        if run is not None:
            return embeddings.of_run(run, self.data)
        settings = pretrain_settings(arm, self.settings, self.data)
        return embeddings.embed(embeddings.random_encoder(settings, self.data, seed), settings, self.data)
