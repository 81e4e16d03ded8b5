"""The networks that are compared: what each reads, and where its encoder comes from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tfmmcl.errors import InputError
from tfmmcl.evaluation.settings import ArmName, EvaluateSettings
from tfmmcl.finetune_settings import FinetuneSettings, FinetuneTrainingSettings
from tfmmcl.records.manifest import DataSet
from tfmmcl.settings import EncoderSettings, PretrainSettings
from tfmmcl.training.run_directory import RunDirectory


def reads_signals(arm: ArmName) -> bool:
    """Returns whether an arm reads the ECG."""
    return not arm.endswith("_no_ecg")


def is_pretrained(arm: ArmName) -> bool:
    """Returns whether an arm's encoder is pre-trained."""
    return arm.startswith("contrastive")


def applicable(settings: EvaluateSettings, data: DataSet) -> tuple[ArmName, ...]:
    """Returns the arms that a data set allows: without signals, those without ECG.

    Raises:
        InputError: If there is none.
    """
    arms = tuple(arm for arm in settings.arms if data.spec.leads or not reads_signals(arm))
    if not arms and settings.arms:
        raise InputError(
            f"{data.path}: has no signals, and every one of the arms {', '.join(settings.arms)} reads them."
        )
    return arms


def encoder_settings(arm: ArmName, settings: EvaluateSettings) -> EncoderSettings:
    """Returns an arm's encoder."""
    return settings.encoder if reads_signals(arm) else settings.encoder.model_copy(update={"signal": None})


def pretrain_settings(arm: ArmName, settings: EvaluateSettings, data: DataSet) -> PretrainSettings:
    """Returns what an arm is pre-trained with."""
    recipe = settings.pretraining
    return PretrainSettings(
        seed=recipe.seed,
        data={"path": str(data.path), "batch_size": recipe.batch_size, "fingerprint": data.fingerprint},
        augmentation=recipe.augmentation,
        encoder=encoder_settings(arm, settings),
        objective=recipe.objective,
        optimizer=recipe.optimizer,
        training=recipe.training,
    )


def finetune_settings(
    arm: ArmName, task: str, fraction: float, seed: int, settings: EvaluateSettings, data: DataSet, run: Path | None
) -> FinetuneSettings:
    """Returns what an arm is fine-tuned with; `run` is the pre-training run of a pre-trained one."""
    recipe = settings.finetuning
    return FinetuneSettings(
        seed=seed,
        task=task,
        data={"path": str(data.path), "batch_size": recipe.batch_size, "fingerprint": data.fingerprint},
        pretrained=None if run is None else str(run),
        encoder=encoder_settings(arm, settings),
        label_fraction=fraction,
        reading=recipe.reading,
        head_units=recipe.head_units,
        optimizer=recipe.optimizer,
        training=finetuning_of(arm, settings),
    )


def finetuning_of(arm: ArmName, settings: EvaluateSettings) -> FinetuneTrainingSettings:
    """Returns for how long an arm is fine-tuned, and what of it learns."""
    recipe = settings.finetuning
    return recipe.pretrained if is_pretrained(arm) and recipe.pretrained else recipe.training


def pretraining_run(arm: ArmName, settings: EvaluateSettings, data: DataSet, out: Path) -> RunDirectory | None:
    """Returns where an arm's pre-training is, done or not, by its settings and data; None for one without."""
    if not is_pretrained(arm):
        return None
    wanted = pretrain_settings(arm, settings, data).model_dump(mode="json")
    del wanted["data"]["path"], wanted["watching"]  # neither changes what is trained
    return RunDirectory(out / "pretrained" / f"{arm}-{key_of(wanted)[:8]}")


def pretrain_missing(arm: ArmName, settings: EvaluateSettings, data: DataSet, out: Path) -> RunDirectory | None:
    """Pre-trains an arm unless that was done before; continues a run that was interrupted."""
    run = pretraining_run(arm, settings, data, out)
    if run is None or run.result.is_file():
        return run
    from tfmmcl.training.pretrain import pretrain  # TensorFlow

    wanted = pretrain_settings(arm, settings, data)
    result = pretrain(wanted, run, resume=run.config.is_file())
    run.write_result(result)
    return run


def key_of(tree: Any) -> str:
    """Returns sixteen hexadecimal digits that change with anything in a JSON tree."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
