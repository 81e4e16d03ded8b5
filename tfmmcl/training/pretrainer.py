"""The pre-trainer: an encoder, an objective's head, and the step that trains both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmmcl.objectives.objective import Objective
from tfmmcl.training.accumulation import update_every
from tfmmcl.training.calibration import calibrate
from tfmmcl.training.distribution import MeanOnReplica, as_log, gather, sum_over_replicas
from tfmmcl.training.watching.norms import GradientNorm
from tfmmcl.training.watching.speed import TimedInput


class Pretrainer(keras.Model):
    """Trains an encoder with an objective; the objective says how many views, which head and what loss.

    All views go through the network in one pass, so that batch normalisation sees them together. On several devices
    each takes its part of the batch through the network, and all compute the objective of the whole batch.

    Args:
        encoder: The trajectory encoder, from a dictionary of inputs to `(N, D)`.
        head: The objective's head, from `(N, D)` on.
        objective: From views' embeddings and head outputs to loss and metrics.
        accumulate: Batches whose mean gradient is applied at once. Default 1.

    Attributes:
        waiting: Counts the time that training steps wait for their batches.
    """

    def __init__(self, encoder: keras.Model, head: keras.Model, objective: Objective, accumulate: int = 1) -> None:
        super().__init__(name="pretrainer")
        self.encoder = encoder
        self.head = head
        self.objective = objective
        self.waiting = TimedInput()
        self._means = {name: MeanOnReplica(name=name) for name in objective.metrics}
        self._gradient_norm = GradientNorm()
        self.built = True  # encoder and head are
        self._accumulate = update_every(accumulate, self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means that Keras resets at each epoch."""
        return [*self._means.values(), self._gradient_norm]

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns embeddings `(N, D)` and head outputs of a dictionary of inputs `(N, …)`."""
        embeddings = self.encoder(inputs, training=training)
        return embeddings, self.head(embeddings, training=training)

    def calibrate(self, views: Sequence[dict[str, tf.Tensor]]) -> None:
        """Sets every batch normalisation's running statistics to those of a batch of views."""
        forward = tf.function(lambda views: self(_stack(views), training=True))
        calibrate(self, lambda: self.distribute_strategy.run(forward, args=(views,)))

    def make_train_function(self, force: bool = False) -> None:
        """Makes the training step, which takes its batch from an iterator and notes how long it waits for it."""
        if self.train_function is None or force:
            super().make_train_function(force=True)
            # Given any other iterator than TensorFlow's own, Keras draws the batch outside of the compiled step.
            step = self.train_function
            self.train_function = lambda batches: step(self.waiting.of(batches))

    def train_step(self, views: Sequence[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Trains on a batch of views."""
        with tf.GradientTape() as tape:
            results = self._evaluate(views, training=True)
            # The gradient is summed over replicas, each of which has the whole batch's loss.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            loss = self.optimizer.scale_loss(results["loss"] / replicas)
        variables = self.trainable_variables
        self._accumulate(tape.gradient(loss, variables), self._apply)
        return self._update(results) | {self._gradient_norm.name: as_log(self._gradient_norm.result())}

    def test_step(self, views: Sequence[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Evaluates the objective on a batch of views."""
        return self._update(self._evaluate(views, training=False))

    def _apply(self, gradients: Sequence[tf.Tensor]) -> None:
        gradients = sum_over_replicas(gradients)
        self._gradient_norm.add(gradients, self.optimizer)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))

    def _evaluate(self, views: Sequence[dict[str, tf.Tensor]], training: bool) -> dict[str, Any]:
        embeddings, outputs = self(_stack(views), training=training)
        return self.objective(
            [gather(part) for part in tf.split(embeddings, len(views))],
            [gather(part) for part in tf.split(outputs, len(views))],
        )

    def _update(self, results: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        for name, mean in self._means.items():
            mean.update_state(results[name])
        return {name: as_log(mean.result()) for name, mean in self._means.items()}

    def _maybe_symbolic_build(self, *_: Any, **__: Any) -> None:
        # Keras would draw a batch to build a model that is built, and cannot with several workers (see `as_log`).
        pass


def _stack(views: Sequence[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    return {key: tf.concat([view[key] for view in views], axis=0) for key in views[0]}
