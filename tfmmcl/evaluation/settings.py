"""The settings of an evaluation: which arms, tasks, modes, label fractions and seeds, and how each is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tfmmcl.config import Settings
from tfmmcl.finetune_settings import FinetuneTrainingSettings, ReadingSettings
from tfmmcl.settings import (
    AugmentationSettings,
    EncoderSettings,
    NTXentSettings,
    OptimizerSettings,
    TrainingSettings,
    Widths,
)

ArmName = Literal["rand_init", "rand_init_no_ecg", "contrastive", "contrastive_no_ecg"]
BaselineName = Literal["logistic_regression", "gradient_boosting", "best_static"]
NetworkMode = Literal["finetune", "linear", "mlp", "knn"]
Fraction = Annotated[float, Field(gt=0, le=1)]


class PretrainRecipe(Settings):
    """How the contrastive arms are pre-trained; see `PretrainSettings` for the keys.

    Attributes:
        seed: One pre-training per arm, of this seed.
        batch_size: Trajectories per step.
        augmentation: How views are made.
        objective: What is minimised.
        optimizer: How.
        training: For how long.
    """

    seed: int = Field(default=0, ge=0, lt=2**31)
    batch_size: int = Field(default=128, ge=2)
    augmentation: AugmentationSettings = AugmentationSettings()
    objective: NTXentSettings = NTXentSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _warmup_fits(self) -> PretrainRecipe:
        self.optimizer.check_warmup(self.training.epochs)
        return self


class FinetuneRecipe(Settings):
    """How every arm is fine-tuned; see `FinetuneSettings` for the keys.

    Attributes:
        batch_size: Trajectories per step.
        reading: Which part of each window's signal is read.
        head_units: Hidden layers of the head.
        optimizer: How the loss is minimised.
        training: For how long, and what learns.
        pretrained: The same for the arms with a pre-trained encoder, where it is not to be `training`. At the rate that
            a new encoder wants, a handful of labels undoes what pre-training has learnt before the head can use it
            (Kumar et al. 2022, https://arxiv.org/abs/2202.10054): first `frozen_epochs`, then a low `encoder_rate`.
            Null: that of all arms, as the paper's.
    """

    batch_size: int = Field(default=128, ge=2)
    reading: ReadingSettings = ReadingSettings()
    head_units: Widths | tuple[()] = ()
    optimizer: OptimizerSettings = OptimizerSettings()
    training: FinetuneTrainingSettings = FinetuneTrainingSettings()
    pretrained: FinetuneTrainingSettings | None = None

    @model_validator(mode="after")
    def _warmup_fits(self) -> FinetuneRecipe:
        for training in filter(None, (self.training, self.pretrained)):
            self.optimizer.check_warmup(training.epochs)
        return self


class EvaluateSettings(Settings):
    """Everything an evaluation depends on, but for the data set.

    Attributes:
        tasks: Tasks to predict; null: all that the data set has.
        arms: Networks to compare; those with ECG are left out where the data set has no signals.
        baselines: What keeps the networks honest, on the flattened tabular features.
        modes: `finetune`: the whole network. `linear`, `mlp`, `knn`: on the frozen encoder's embeddings.
        fractions: Parts of the labelled training patients, nested for each seed.
        seeds: Seeds 0, 1, … of every mode.
        headline: Task → the metric that the paper's table gives. Default: `auroc`, `mae` for a regression task.
        encoder: The encoder of every arm; the No-ECG arms leave its signal part out.
        pretraining: How the contrastive arms are pre-trained.
        finetuning: How every arm is fine-tuned.
        resamples: Bootstrap resamples of the test split's patients.
        level: Of the intervals.
    """

    tasks: tuple[str, ...] | None = None
    arms: tuple[ArmName, ...] = ("rand_init", "rand_init_no_ecg", "contrastive", "contrastive_no_ecg")
    baselines: tuple[BaselineName, ...] = ("logistic_regression", "gradient_boosting", "best_static")
    modes: tuple[NetworkMode, ...] = ("finetune", "linear", "mlp", "knn")
    fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
    seeds: int = Field(default=5, ge=1)
    headline: dict[str, Literal["auroc", "auprc", "brier", "accuracy", "mae", "r2"]] = Field(default_factory=dict)
    encoder: EncoderSettings = EncoderSettings()
    pretraining: PretrainRecipe = PretrainRecipe()
    finetuning: FinetuneRecipe = FinetuneRecipe()
    resamples: int = Field(default=2000, ge=100)
    level: float = Field(default=0.95, gt=0, lt=1)

    @field_validator("tasks", "arms", "baselines", "modes", "fractions")
    @classmethod
    def _no_repeats(cls, items: tuple | None) -> tuple | None:
        if items is not None and len(set(items)) != len(items):
            raise ValueError("names something twice")
        return items
