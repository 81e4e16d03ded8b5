"""Numerical trouble while training: found at once, said with what is needed to look into it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfmmcl.errors import TrainingError

Logs = dict[str, Any]

COLLAPSED = 0.01
"""Relative standard deviation of the embeddings under which they are as good as one point."""


class StopAtNaN(keras.callbacks.Callback):
    """Raises `TrainingError` at the first step, or the first epoch's validation, whose loss is not finite.

    Args:
        names: Returns the trajectories of a step, given its epoch and its number in the batches of this `fit`.
            Default: none are named.
        advice: How the sentence ends. Default: settings to try.
    """

    def __init__(self, names: Callable[[int, int], Sequence[str]] | None = None, advice: str = "") -> None:
        super().__init__()
        self._names = names
        self._advice = advice

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Checks the running mean, which a single NaN spoils."""
        if not math.isfinite(logs["loss"]):
            names = self._names(self._epoch, batch) if self._names else ()
            self._stop("loss", logs["loss"], f" on the trajectories {', '.join(names)}" if names else "")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Checks the weights that the epoch's last step left, by the validation loss, before they are saved."""
        if not math.isfinite(logs["val_loss"]):
            self._stop("validation loss", logs["val_loss"], "")

    def _stop(self, name: str, value: float, where: str) -> None:
        step = int(self.model.optimizer.iterations.numpy())
        raise TrainingError(
            f"the {name} is {value} at step {step}{where}; expected a finite number. Try a lower "
            f"optimizer.learning_rate, optimizer.clip_norm=1, or training.precision=float32.{self._advice}"
        )


class Collapse(keras.callbacks.Callback):
    """Says so, once, when the embeddings of all trajectories have become one point."""

    _said = False

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Looks at the validation split's embeddings."""
        spread = logs.get("val_embedding_std", 1.0)
        if spread < COLLAPSED and not self._said:
            self._said = True
            print(
                f"warning: the embeddings have collapsed: their relative standard deviation is {spread:.2g}, expected "
                "about 1; try a lower optimizer.learning_rate, a larger data.batch_size or another temperature.",
                file=sys.stderr,
                flush=True,
            )


class SkippedSteps(keras.callbacks.Callback):
    """Adds `skipped_steps` to the logs: how many of the run's steps half precision had to leave out so far.

    Args:
        updates: Of the optimizer, in an epoch.
    """

    def __init__(self, updates: int) -> None:
        super().__init__()
        self._updates = updates

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Compares the updates that were made with those that were due; no other optimizer leaves any out."""
        if isinstance(self.model.optimizer, keras.optimizers.LossScaleOptimizer):
            logs["skipped_steps"] = (epoch + 1) * self._updates - int(self.model.optimizer.iterations.numpy())


def check_finite(model: keras.Model) -> None:
    """Raises `TrainingError` if a weight is not finite, before a checkpoint is made of it."""
    for weights in model.weights:
        if not np.isfinite(weights.numpy()).all():
            raise TrainingError(
                f"the weights {weights.path} are not finite; expected numbers. Try a lower optimizer.learning_rate, "
                "optimizer.clip_norm=1, or training.precision=float32."
            )
