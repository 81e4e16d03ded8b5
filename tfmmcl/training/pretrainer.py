"""The pre-trainer: an encoder, an objective's head, and the step that trains both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmmcl.objectives.objective import Objective
from tfmmcl.training.calibration import calibrate


class Pretrainer(keras.Model):
    """Trains an encoder with an objective; the objective says how many views, which head and what loss.

    All views go through the network in one pass, so that batch normalisation sees them together.

    Args:
        encoder: The trajectory encoder, from a dictionary of inputs to `(N, D)`.
        head: The objective's head, from `(N, D)` on.
        objective: From views' embeddings and head outputs to loss and metrics.
    """

    def __init__(self, encoder: keras.Model, head: keras.Model, objective: Objective) -> None:
        super().__init__(name="pretrainer")
        self.encoder = encoder
        self.head = head
        self.objective = objective
        self._means = {name: keras.metrics.Mean(name=name) for name in objective.metrics}
        self.built = True  # encoder and head are

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means that Keras resets at each epoch."""
        return list(self._means.values())

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns embeddings `(N, D)` and head outputs of a dictionary of inputs `(N, …)`."""
        embeddings = self.encoder(inputs, training=training)
        return embeddings, self.head(embeddings, training=training)

    def calibrate(self, views: Sequence[dict[str, tf.Tensor]]) -> None:
        """Sets every batch normalisation's running statistics to those of a batch of views."""
        calibrate(self, lambda: self(_stack(views), training=True))

    def train_step(self, views: Sequence[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Takes one optimizer step on a batch of views."""
        with tf.GradientTape() as tape:
            results = self._evaluate(views, training=True)
            loss = self.optimizer.scale_loss(results["loss"])
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return self._update(results)

    def test_step(self, views: Sequence[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Evaluates the objective on a batch of views."""
        return self._update(self._evaluate(views, training=False))

    def _evaluate(self, views: Sequence[dict[str, tf.Tensor]], training: bool) -> dict[str, Any]:
        embeddings, outputs = self(_stack(views), training=training)
        return self.objective(tf.split(embeddings, len(views)), tf.split(outputs, len(views)))

    def _update(self, results: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        for name, mean in self._means.items():
            mean.update_state(results[name])
        return {name: mean.result() for name, mean in self._means.items()}


def _stack(views: Sequence[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    return {key: tf.concat([view[key] for view in views], axis=0) for key in views[0]}
