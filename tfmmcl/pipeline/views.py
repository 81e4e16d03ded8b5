"""A parsed trajectory → what the encoder reads: two augmented views for pre-training, one plain view for inference."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfmmcl.pipeline import augment
from tfmmcl.pipeline.preprocess import Preprocessor
from tfmmcl.pipeline.shapes import segment_samples
from tfmmcl.records.schema import MISSING_SAMPLE
from tfmmcl.settings import AugmentationSettings

View = dict[str, tf.Tensor]


def trajectory_key(seed: int, epoch: tf.Tensor | int, trajectory: tf.Tensor) -> tf.Tensor:
    """Returns the key `(2,)` from which all of a trajectory's random numbers in an epoch are drawn.

    Args:
        seed: The run's seed.
        epoch: The epoch's number.
        trajectory: The trajectory's id, scalar string.
    """
    return _key(seed, epoch, _number(trajectory))


def _number(trajectory: tf.Tensor) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(trajectory, 2**62)


def _key(seed: int, epoch: tf.Tensor | int, number: tf.Tensor) -> tf.Tensor:
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.fold_in(key, number, alg="philox")


class Views:
    """Makes views of parsed trajectories.

    Args:
        preprocessor: Imputation and standardisation.
        settings: The augmentations.
        signals: Whether trajectories have signals to read; False for the No-ECG form.
    """

    def __init__(self, preprocessor: Preprocessor, settings: AugmentationSettings, *, signals: bool) -> None:
        self._preprocessor = preprocessor
        self._settings = settings
        self._samples = segment_samples(preprocessor.spec, settings) if signals else None
        marginal, self._count = preprocessor.marginal()
        self._marginal = tf.constant(marginal)  # an input of what is compiled, not a part of it

    @property
    def element_spec(self) -> dict[str, tf.TensorSpec]:
        """Shapes and types of a view."""
        spec = self._preprocessor.spec
        shapes = {**spec.shapes, "signals": (spec.windows, self._samples, len(spec.leads))}
        names = ("structured", "statics", *(("signals",) if self._samples else ()))
        return {name: tf.TensorSpec(shapes[name], tf.float32) for name in names}

    def several(self, seed: int, views: int, *, compiled: bool) -> Callable[..., tuple[View, ...]]:
        """Returns a function of parsed examples `(N, …)` and an epoch's number, to `views`-tuples of views `(N, …)`.

        Each view is the one that `augmented` makes with the trajectory's key, whichever trajectories are beside it;
        compiled by XLA, up to rounding.

        Args:
            seed: The run's seed.
            views: Views of each trajectory.
            compiled: Whether XLA compiles it: two to three times as fast at the paper's size, after some seconds.
        """

        @tf.function(jit_compile=compiled, autograph=False)
        def augment_all(numbers: tf.Tensor, inputs: dict[str, tf.Tensor], epoch: tf.Tensor) -> tuple[View, ...]:
            return tf.map_fn(
                lambda item: self.augmented(item[1], _key(seed, epoch, item[0]), views),
                (numbers, inputs),
                fn_output_signature=(self.element_spec,) * views,
            )

        def make(examples: dict[str, tf.Tensor], epoch: tf.Tensor) -> tuple[View, ...]:
            inputs = {name: examples[name] for name in self.element_spec}
            return augment_all(_number(examples["trajectory"]), inputs, epoch)

        return make

    def plain(self, example: dict[str, tf.Tensor]) -> View:
        """Returns a parsed trajectory's view without augmentation: each window's first segment, all features."""
        if not self._samples:
            return self.of_physical_units(example)
        first = example["signals"][:, : self._samples]
        return self.of_physical_units(example | {"signals": self._preprocessor.to_millivolts(first)})

    def of_physical_units(self, inputs: dict[str, tf.Tensor]) -> View:
        """Returns the same view of `structured` `(…, T, M)`, `statics` `(…, L)` and `signals` `(…, T, Z, C)` in mV."""
        view = {
            "structured": self._preprocessor.structured(inputs["structured"]),
            "statics": self._preprocessor.statics(inputs["statics"]),
        }
        if self._samples:
            view["signals"] = self._preprocessor.signals(inputs["signals"][..., : self._samples, :])
        return view

    def augmented(self, example: dict[str, tf.Tensor], key: tf.Tensor, views: int = 2) -> tuple[View, ...]:
        """Returns augmented views, independent of one another given the trajectory.

        Args:
            example: A parsed trajectory.
            key: Its random key, see `trajectory_key`.
            views: How many. Default 2; signals have two disjoint segments, so more views share them in turn.
        """
        structured = self._preprocessor.structured(example["structured"])
        statics = self._preprocessor.statics(example["statics"])
        keys = tf.unstack(augment.split_key(key, views))
        return tuple(self._view(example, structured, statics, i, keys[i]) for i in range(views))

    def _view(
        self, example: dict[str, tf.Tensor], structured: tf.Tensor, statics: tf.Tensor, index: int, key: tf.Tensor
    ) -> View:
        settings = self._settings
        cutout, dropout, corruption, position, noise, mask = tf.unstack(augment.split_key(key, 6))
        structured = augment.history_cutout(structured, cutout, settings.history_cutout)
        view = {"structured": augment.channel_dropout(structured, dropout, settings.channel_dropout)}
        if index == 0 or settings.feature_corruption.views == "both":
            statics = augment.corrupt_features(
                statics, self._marginal, self._count, corruption, settings.feature_corruption
            )
        view["statics"] = statics
        if self._samples:
            stored = augment.segment(example["signals"], index % 2, self._samples, position, settings.segment)
            observed = stored != MISSING_SAMPLE
            signals = self._preprocessor.stored_signals(stored)
            period = augment.noise_period(self._samples, settings.signal_mask)
            signals = augment.add_signal_noise(signals, observed, noise, settings.signal_noise_std, period)
            # The mask comes last, so that what is masked is exactly zero.
            view["signals"] = augment.mask_signals(signals, observed, mask, settings.signal_mask)
        return view
