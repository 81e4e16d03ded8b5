"""Which part of each window's signal a fine-tuned network reads."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfmmcl.finetune_settings import ReadingSettings
from tfmmcl.pipeline.preprocess import Preprocessor
from tfmmcl.pipeline.shapes import crop_starts, reading_samples
from tfmmcl.pipeline.views import View


class Reading:
    """Makes inputs of the encoder, not augmented, of trajectories.

    Args:
        preprocessor: Imputation and standardisation.
        settings: Which part.
        signals: Whether the encoder reads signals; False for the No-ECG form.
    """

    def __init__(self, preprocessor: Preprocessor, settings: ReadingSettings, *, signals: bool) -> None:
        self._preprocessor = preprocessor
        self._samples = reading_samples(preprocessor.spec, settings) if signals else 0
        self._starts = crop_starts(preprocessor.spec, settings) if signals else []

    def one(self, example: dict[str, tf.Tensor], key: tf.Tensor) -> View:
        """Returns a parsed trajectory's inputs, with `signals` `(1, T, S, C)` of the crop that the key `(2,)` draws."""
        view = self._tabular(example)
        if self._starts:
            drawn = tf.random.stateless_uniform([], key, 0, len(self._starts), tf.int32)
            start = tf.gather(self._starts, drawn)
            cut = example["signals"][:, start : start + self._samples]
            cut = tf.ensure_shape(cut, (cut.shape[0], self._samples, cut.shape[2]))[tf.newaxis]
            view["signals"] = self._preprocessor.stored_signals(cut)
        return view

    def every(self, example: dict[str, tf.Tensor]) -> View:
        """Returns a parsed trajectory's inputs, with `signals` `(K, T, S, C)` of all K crops."""
        if not self._starts:
            return self._tabular(example)
        return self.of_physical_units(example | {"signals": self._preprocessor.to_millivolts(example["signals"])})

    def of_physical_units(self, inputs: dict[str, tf.Tensor]) -> View:
        """Returns the same of `structured` `(…, T, M)`, `statics` `(…, L)` and `signals` `(…, T, Z, C)` in mV.

        `signals` become `(…, K, T, S, C)`.
        """
        view = self._tabular(inputs)
        if self._starts:
            crops = [inputs["signals"][..., start : start + self._samples, :] for start in self._starts]
            view["signals"] = self._preprocessor.signals(tf.stack(crops, axis=-4))
        return view

    def _tabular(self, inputs: dict[str, tf.Tensor]) -> View:
        return {
            "structured": self._preprocessor.structured(inputs["structured"]),
            "statics": self._preprocessor.statics(inputs["statics"]),
        }


def fold_crops(view: View) -> tuple[View, int]:
    """Puts the crops of a batch into its batch axis, a trajectory's one after the other.

    Args:
        view: `structured` `(B, T, M)`, `statics` `(B, L)`, and with ECG `signals` `(B, K, T, S, C)`.

    Returns:
        The same with `(B·K, …)`, and K; 1 without ECG.
    """
    if "signals" not in view:
        return view, 1
    signals = view["signals"]
    crops = signals.shape[1]
    folded = {name: tf.repeat(tensor, crops, axis=0) for name, tensor in view.items() if name != "signals"}
    return folded | {"signals": tf.reshape(signals, (-1, *signals.shape[2:]))}, crops


def unfold_crops(outputs: tf.Tensor, crops: int) -> tf.Tensor:
    """Returns outputs `(B·K, …)` as `(B, K, …)`."""
    return tf.reshape(outputs, (-1, crops, *outputs.shape[1:]))


def mean_over_crops(model: Callable[[View], dict[str, tf.Tensor]], view: View) -> dict[str, tf.Tensor]:
    """Returns what a model makes of a batch with crops, each output averaged over them.

    Args:
        model: From inputs `(N, …)` to a dictionary of outputs `(N, …)`.
        view: As `fold_crops` takes it.
    """
    folded, crops = fold_crops(view)
    return {name: tf.reduce_mean(unfold_crops(value, crops), axis=1) for name, value in model(folded).items()}
