"""How large gradients, weights and updates are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmmcl.training.distribution import MeanOnReplica

Logs = dict[str, Any]


class GradientNorm(MeanOnReplica):
    """The mean of the gradients' norm over an epoch's updates, inside the training step.

    It is one read of the gradients. An update whose gradients overflow in half precision is not counted.
    """

    def __init__(self) -> None:
        super().__init__(name="gradient_norm")

    def add(self, gradients: Sequence[tf.Tensor], optimizer: keras.optimizers.Optimizer) -> None:
        """Counts the gradients that an update is made with, as the optimizer scaled their loss."""
        norm = tf.cast(tf.linalg.global_norm(gradients), tf.float32) / tf.cast(optimizer.scale_loss(1.0), tf.float32)
        finite = tf.math.is_finite(norm)
        self.update_state(tf.where(finite, norm, 0.0), tf.cast(finite, tf.float32))


class Norms(keras.callbacks.Callback):
    """Adds the norm of all weights after the epoch's last update, and of that update, to the logs.

    One update per epoch stands for the others: to know how far weights move takes a copy of them, which at every
    step would cost some percent.

    Args:
        steps: In an epoch.
        start_epoch: Where the run goes on.
        start_step: How many of that epoch's steps are done.
    """

    def __init__(self, steps: int, start_epoch: int, start_step: int) -> None:
        super().__init__()
        self._steps, self._start = steps, (start_epoch, start_step)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Finds the epoch's last step; an epoch that goes on in its middle counts from there."""
        self._last = self._steps - 1 - (self._start[1] if epoch == self._start[0] else 0)
        self._found: Logs = {}

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Keeps the weights before the last update."""
        if batch == self._last:
            self._before = [tf.identity(variable.value) for variable in self.model.trainable_variables]

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Compares them with those after it."""
        if batch != self._last:
            return
        after = [tf.convert_to_tensor(variable.value) for variable in self.model.trainable_variables]
        moved = [new - old for new, old in zip(after, self._before)]
        self._before = []
        self._found = {
            "parameter_norm": float(tf.linalg.global_norm(after)),
            "update_norm": float(tf.linalg.global_norm(moved)),
        }
        logs.update(self._found)  # a run that stops before the epoch's end finds them there

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Adds them to the epoch's figures."""
        logs.update(self._found)
