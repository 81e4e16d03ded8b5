"""The settings of a pre-training run. Every default is the paper's value unless its comment says otherwise.

"The paper" is Raghu et al. 2022, Contrastive Pre-Training for Multimodal Medical Time Series.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfmmcl.config import Settings

Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
"""Layer sizes, first to last; at least one layer."""


class DataSettings(Settings):
    """Which trajectories, and how they reach the model.

    Attributes:
        path: The prepared data set's folder, or a URL that TensorFlow's file systems know, such as `gs://bucket/folder`.
        fingerprint: What the data set's fingerprint must be; null: whatever it is. A run's `config.yaml` has it, so
            that no run is resumed, exported or repeated on other data unawares.
        cohort: A cohort file to prepare into `path` when that folder does not exist yet; null: it must exist.
        batch_size: Trajectories per step, B; NT-Xent compares each of 2B views with the 2B − 1 others.
        cache: A folder into which the data set is copied first, once for all runs; null: it is read where it is.
        on_corrupt: What a damaged record does. `stop`: training says which it is and ends. `skip`: every byte is read
            before training, and what is damaged is left out, counted and reported.
        shuffle_buffer: Records held in memory for shuffling (576 kB each at the paper's size).
        parallel_calls: Trajectories augmented at once; null lets tf.data choose. Never changes the views.
    """

    path: str
    fingerprint: str | None = None
    cohort: str | None = None
    cache: str | None = None
    on_corrupt: Literal["stop", "skip"] = "stop"
    batch_size: int = Field(default=128, ge=2)
    shuffle_buffer: int = Field(default=1024, ge=1)
    parallel_calls: int | None = Field(default=None, ge=1)


class SegmentSettings(Settings):
    """The two disjoint segments of every signal that the two views read.

    Attributes:
        seconds: Length of a segment.
        position: `first`: the window's first and second segment. `random`: a crop drawn per window inside
            each half (the authors' later code).
    """

    seconds: float = Field(default=10.0, gt=0, le=3600)
    position: Literal["first", "random"] = "first"


class SignalMaskSettings(Settings):
    """Random signal masking.

    Attributes:
        fraction: Part of the segment that is masked.
        pattern: `contiguous`: one stretch, wrapping round. `element`: each sample on its own.
        scope: `lead`: drawn per window and lead. `window`: shared by all leads of a window.
        fill: `zero`, or `noise` of standard deviation `fill_std` (the authors' later code).
        fill_std: In units of the lead's standard deviation. Not the paper's.
    """

    fraction: float = Field(default=0.5, ge=0, le=1)
    pattern: Literal["contiguous", "element"] = "contiguous"
    scope: Literal["lead", "window"] = "lead"
    fill: Literal["zero", "noise"] = "zero"
    fill_std: float = Field(default=0.1, ge=0)


class HistoryCutoutSettings(Settings):
    """History cutout of structured features.

    Attributes:
        probability: Chance that a feature (or the trajectory, with `scope: shared`) is cut.
        fraction: Part of the windows that is cut, rounded down.
        pattern: `contiguous`: neighbouring windows. `element`: any windows.
        scope: `feature`: drawn for each feature. `shared`: one draw for all of them (NCL).
        fill: `mean` (zero, features being standardised), or `forward` (the last value before the cut).
    """

    probability: float = Field(default=0.8, ge=0, le=1)
    fraction: float = Field(default=0.5, ge=0, le=1)
    pattern: Literal["contiguous", "element"] = "contiguous"
    scope: Literal["feature", "shared"] = "feature"
    fill: Literal["mean", "forward"] = "mean"


class FeatureCorruptionSettings(Settings):
    """Feature corruption of statics: replacement by a draw from the training set's values of that feature.

    Attributes:
        probability: Chance per feature, or with `count: exact` the part of the features, rounded down.
        count: `bernoulli`: each feature on its own. `exact`: always the same number of features (SCARF).
        views: `both`, or only the `first` view (SCARF).
    """

    probability: float = Field(default=0.6, ge=0, le=1)
    count: Literal["bernoulli", "exact"] = "bernoulli"
    views: Literal["both", "first"] = "both"


class AugmentationSettings(Settings):
    """How a view is made of a trajectory.

    Attributes:
        segment: Segment split.
        signal_mask: Random signal masking.
        signal_noise_std: Gaussian noise added to signals, in units of the lead's standard deviation (the
            paper's variance is 0.1).
        history_cutout: Cutout of structured features.
        channel_dropout: Probability per structured feature that all its windows become the mean.
        feature_corruption: Corruption of statics.
    """

    segment: SegmentSettings = SegmentSettings()
    signal_mask: SignalMaskSettings = SignalMaskSettings()
    signal_noise_std: float = Field(default=0.1**0.5, ge=0)
    history_cutout: HistoryCutoutSettings = HistoryCutoutSettings()
    channel_dropout: float = Field(default=0.2, ge=0, le=1)
    feature_corruption: FeatureCorruptionSettings = FeatureCorruptionSettings()


class SignalEncoderSettings(Settings):
    """The 1-D ResNet that embeds each window's signals; the defaults are ResNet-18's.

    Attributes:
        stem_filters: Filters of the first convolution (stride 2, then max-pool 3/2).
        stage_filters: Filters of each stage; every stage after the first halves the length.
        blocks_per_stage: Residual blocks in each stage.
        kernel_size: Samples spanned by every spatial convolution.
        units: Size of a window's signal embedding.
        convolution: How convolutions are computed while training; the results are the same up to rounding. `direct`:
            by Keras's layer. `fourier`: through short Fourier tiles. `auto`: for each layer by which is faster
            for its shape, `direct` with a GPU. Finished models are always `direct`.
        recompute: Whether training drops what is inside the residual blocks and computes it again for the gradient:
            half of the memory for a quarter more time (batch 16 on a CPU), and the same results. Finished models never
            do.
    """

    stem_filters: int = Field(default=64, ge=1)
    stage_filters: Widths = (64, 128, 256, 512)
    blocks_per_stage: int = Field(default=2, ge=1)
    kernel_size: int = Field(default=15, ge=1)
    units: int = Field(default=128, ge=1)
    convolution: Literal["auto", "direct", "fourier"] = "auto"
    recompute: bool = False


class EncoderSettings(Settings):
    """The trajectory encoder.

    Attributes:
        signal: The signal ResNet; null builds the No-ECG encoder, and no signal is read at all.
        structured_units: Layers of the MLP on each window's structured features.
        statics_units: Layers of the MLP on the statics.
        recurrent_layers: GRU layers.
        recurrent_units: GRU units, the size of the trajectory embedding.
        batch_norm_momentum: Of every batch normalisation. Not the paper's: 0.9, so that the running averages
            used at inference follow within some tens of steps.
    """

    signal: SignalEncoderSettings | None = SignalEncoderSettings()
    structured_units: Widths = (128, 128)
    statics_units: Widths = (128, 128)
    recurrent_layers: int = Field(default=4, ge=1)
    recurrent_units: int = Field(default=384, ge=1)
    batch_norm_momentum: float = Field(default=0.9, ge=0, lt=1)


class NTXentSettings(Settings):
    """The SimCLR objective, equation (1) of the paper.

    Attributes:
        name: Which objective this is.
        temperature: τ, which divides the cosine similarities.
        projection_units: Layers of the projection head, each with batch normalisation and ReLU.
    """

    name: Literal["nt_xent"] = "nt_xent"
    temperature: float = Field(default=0.1, gt=0)
    projection_units: Widths = (128, 128)


class OptimizerSettings(Settings):
    """The optimizer and its learning-rate schedule.

    Attributes:
        name: `adam`, or `lamb` for large batches.
        learning_rate: Peak learning rate.
        warmup_epochs: Epochs of linear warm-up from zero; may be a fraction.
        decay: `none`, or `cosine` down to zero at the last step.
        clip_norm: Largest global norm of the gradient; null: no clipping.
        weight_decay: Decoupled weight decay (AdamW); 0: none.
    """

    name: Literal["adam", "lamb"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_epochs: float = Field(default=0, ge=0)
    decay: Literal["none", "cosine"] = "none"
    clip_norm: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0, ge=0)

    def check_warmup(self, epochs: int) -> None:
        """Raises `ValueError` if a run of so many epochs ends before its learning rate has risen."""
        if self.warmup_epochs > epochs:
            raise ValueError(
                f"optimizer.warmup_epochs is {self.warmup_epochs}, more than the {epochs} epochs of training.epochs"
            )


class TrainingSettings(Settings):
    """How long, and how the arithmetic is done.

    Attributes:
        epochs: Passes over the training split.
        steps_per_epoch: Null: the whole training split; a number stops each epoch early, for trying things out.
        precision: Keras's dtype policy. The loss is float32 whatever it is.
        jit_compile: XLA. `auto`: on where there is a GPU, and only one.
        distribution: `none`: one device. `mirrored`: all GPUs of this machine. `multi_worker`: all GPUs of several
            machines, by `TF_CONFIG`. `data.batch_size` is that of all devices together, whose results are those of
            one: negatives and batch normalisation span them.
        accumulate: Batches whose mean gradient makes one step of the optimizer. Negatives do not accumulate: NT-Xent
            compares views within a batch of `data.batch_size` only, and batch normalisation sees no more either.
        checkpoints: Newest checkpoints kept in the run's folder. One is saved at the end of every epoch, and on
            Ctrl-C or termination.
        checkpoint_minutes: And one after so many minutes since the last; 0: after every step.
        deterministic: Operations that give the same result to the last bit every time, where there is a choice; slower.
            Order and views are the same in any case.
    """

    epochs: int = Field(default=10, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit_compile: Literal["auto"] | bool = "auto"
    distribution: Literal["none", "mirrored", "multi_worker"] = "none"
    accumulate: int = Field(default=1, ge=1)
    checkpoints: int = Field(default=2, ge=1)
    checkpoint_minutes: float = Field(default=10, ge=0)
    deterministic: bool = False


class WatchingSettings(Settings):
    """What is looked at while a run trains, beside its own loss; nothing of it changes what is trained.

    Attributes:
        task: The task that a linear probe and nearest neighbours read from the frozen embeddings after each epoch.
            `auto`: the data set's first binary task, if it has one; null: none.
        trajectories: Of the training and of the validation split each, how many are embedded for that, for the
            effective rank and for the embedding projector: the first ones, in stored order, that have a label.
        every: Epochs between two pictures of the validation split's similarities.
        profile: The first and the last step, counted from 1 over the whole run, of which the profiler writes a trace;
            null: none.
    """

    task: str | None = "auto"
    trajectories: int = Field(default=256, ge=2)
    every: int = Field(default=1, ge=1)
    profile: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None

    @model_validator(mode="after")
    def _profile_goes_forward(self) -> WatchingSettings:
        if self.profile and self.profile[0] > self.profile[1]:
            raise ValueError(
                f"watching.profile is {self.profile[0]},{self.profile[1]}, expected FROM,TO with FROM first"
            )
        return self


class PretrainSettings(Settings):
    """Everything a pre-training run depends on.

    Attributes:
        seed: Of the initial weights, the order of trajectories and the augmentations.
        data: Where trajectories come from.
        augmentation: How views are made.
        encoder: The trajectory encoder.
        objective: What is minimised.
        optimizer: How.
        training: For how long, in which precision.
        watching: What is looked at meanwhile.
    """

    seed: int = Field(default=0, ge=0, lt=2**31)
    data: DataSettings
    augmentation: AugmentationSettings = AugmentationSettings()
    encoder: EncoderSettings = EncoderSettings()
    objective: NTXentSettings = NTXentSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    training: TrainingSettings = TrainingSettings()
    watching: WatchingSettings = WatchingSettings()

    @model_validator(mode="after")
    def _warmup_fits(self) -> PretrainSettings:
        self.optimizer.check_warmup(self.training.epochs)
        return self
