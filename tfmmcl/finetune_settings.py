"""The settings of a fine-tuning run. Every default is the paper's value unless its comment says otherwise."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tfmmcl.config import Settings
from tfmmcl.settings import DataSettings, EncoderSettings, OptimizerSettings, Widths


class ReadingSettings(Settings):
    """Which part of each window's signal is read.

    Attributes:
        part: `first`: the first `seconds`. `centre`: the middle. `crops`: several, evenly spaced from the first to
            the last; in training one of them is drawn for each trajectory and epoch, and predictions are averaged.
        seconds: Length of the part; null: what a view of the pre-trained encoder had, else the whole window.
        crops: How many, for `crops`.
    """

    part: Literal["first", "centre", "crops"] = "first"
    seconds: float | None = Field(default=None, gt=0, le=3600)
    crops: int = Field(default=3, ge=2)


class FinetuneTrainingSettings(Settings):
    """How long, and what of the network learns.

    Attributes:
        epochs: Passes over the labelled training trajectories, at most; but see `least_steps`.
        least_steps: Steps in an epoch, at least: where fewer batches hold the labelled trajectories, an epoch passes
            over them several times. On a handful of labels, ten epochs of one step each leave a network as it was.
            1: every epoch is one pass, as the paper's.
        patience: Epochs without a better validation loss before training stops; null: none is skipped. The weights
            of the best epoch are restored either way. Not the paper's, which says only that it stops early.
        frozen_epochs: First epochs in which the encoder, its batch normalisation included, stays as it is; `all`: it
            never learns.
        encoder_rate: The encoder's learning rate as a fraction of the head's. Not the paper's where it is not 1.
        class_weights: `balanced`: each class weighs the same in the loss, whatever its frequency.
        precision: Keras's dtype policy. The loss is float32 whatever it is.
        jit_compile: XLA. `auto`: on where there is a GPU.
    """

    epochs: int = Field(default=10, ge=1)
    least_steps: int = Field(default=1, ge=1)
    patience: int | None = Field(default=3, ge=1)
    frozen_epochs: int | Literal["all"] = 0
    encoder_rate: float = Field(default=1.0, gt=0, le=1)
    class_weights: Literal["none", "balanced"] = "none"
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit_compile: Literal["auto"] | bool = "auto"

    @model_validator(mode="after")
    def _encoder_learns_unless_all(self) -> FinetuneTrainingSettings:
        if self.frozen_epochs != "all" and not 0 <= self.frozen_epochs < self.epochs:
            raise ValueError(
                f"training.frozen_epochs is {self.frozen_epochs}, expected 0 or more, fewer than the {self.epochs} "
                "epochs of training.epochs, or all"
            )
        return self


class FinetuneSettings(Settings):
    """Everything a fine-tuning run depends on.

    Attributes:
        seed: Of the initial weights, the order of trajectories and the subset of labels.
        task: One of the data set's tasks.
        data: Where trajectories come from.
        pretrained: The pre-training run whose encoder is fine-tuned; null: an encoder that was not trained.
        encoder: The encoder's sizes, where it is not a pre-trained one's.
        label_fraction: Part of the labelled training patients whose labels are used. Of one seed, the patients of a
            smaller fraction are among those of a larger one.
        reading: Which part of each window's signal is read.
        head_units: Hidden layers of the head; none: it is linear, as the paper's.
        optimizer: How the loss is minimised.
        training: For how long, and what learns.
    """

    seed: int = Field(default=0, ge=0, lt=2**31)
    task: str
    data: DataSettings
    pretrained: str | None = None
    encoder: EncoderSettings = EncoderSettings()
    label_fraction: float = Field(default=1.0, gt=0, le=1)
    reading: ReadingSettings = ReadingSettings()
    head_units: Widths | tuple[()] = ()
    optimizer: OptimizerSettings = OptimizerSettings()
    training: FinetuneTrainingSettings = FinetuneTrainingSettings()

    @model_validator(mode="after")
    def _warmup_fits(self) -> FinetuneSettings:
        self.optimizer.check_warmup(self.training.epochs)
        return self
