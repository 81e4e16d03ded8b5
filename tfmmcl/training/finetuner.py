"""The fine-tuner: an encoder, a task's head, and the step that trains both or the head alone."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.objectives.supervised import supervised_losses
from tfmmcl.pipeline.reading import fold_crops, unfold_crops
from tfmmcl.pipeline.views import View

Batch = tuple[View, tf.Tensor, tf.Tensor]


class Finetuner(keras.Model):
    """Trains a head, and the encoder under it unless that is frozen.

    A frozen encoder computes as in inference and nothing of it changes, its running statistics included. The loss is
    the weighted mean over a batch, in float32.

    Args:
        encoder: The trajectory encoder, from a dictionary of inputs to `(N, D)`.
        head: From `(N, D)` to the task's outputs.
        task: What is learned.

    Attributes:
        frozen: Whether the encoder is. After a change the training step has to be made again.
        encoder_optimizer: The encoder's own optimizer; None: one optimizer moves encoder and head.
    """

    def __init__(self, encoder: keras.Model, head: keras.Model, task: Task) -> None:
        super().__init__(name="finetuner")
        self.encoder = encoder
        self.head = head
        self.task = task
        self.frozen = False
        self.encoder_optimizer: keras.optimizers.Optimizer | None = None
        self._mean = keras.metrics.Mean(name="loss")
        self.built = True  # encoder and head are

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running mean of the loss, which Keras resets at each epoch."""
        return [self._mean]

    def call(self, inputs: View, training: bool = False) -> tf.Tensor:
        """Returns outputs `(B, K, U)` of inputs `(B, …)`, with `signals` `(B, K, T, S, C)`."""
        inputs, crops = fold_crops(inputs)
        embeddings = self.encoder(inputs, training=training and not self.frozen)
        return unfold_crops(self.head(embeddings, training=training), crops)

    def unfreeze(self) -> None:
        """Lets the encoder learn from the next step on."""
        self.frozen = False
        self.make_train_function(force=True)

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Takes one step on a batch of inputs, labels and weights."""
        inputs, labels, weights = batch
        learning = self._learning()
        # Two optimizers each scale the loss by a factor of their own in half precision, so there are two gradients.
        with tf.GradientTape(persistent=len(learning) > 1) as tape:
            losses = supervised_losses(self.task, self(inputs, training=True), labels)
            loss = tf.reduce_sum(losses * weights) / tf.reduce_sum(weights)
            scaled = [optimizer.scale_loss(loss) for optimizer, _ in learning]
        for (optimizer, variables), one in zip(learning, scaled):
            optimizer.apply_gradients(zip(tape.gradient(one, variables), variables))
        return self._update(losses, weights)

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Computes the loss of a batch of inputs, labels and weights."""
        inputs, labels, weights = batch
        return self._update(supervised_losses(self.task, self(inputs, training=False), labels), weights)

    def _learning(self) -> list[tuple[keras.optimizers.Optimizer, list[keras.Variable]]]:
        encoder, head = self.encoder.trainable_variables, self.head.trainable_variables
        if self.frozen:
            return [(self.optimizer, head)]
        if self.encoder_optimizer is None:
            return [(self.optimizer, encoder + head)]
        return [(self.encoder_optimizer, encoder), (self.optimizer, head)]

    def _update(self, losses: tf.Tensor, weights: tf.Tensor) -> dict[str, tf.Tensor]:
        self._mean.update_state(losses, weights)
        return {"loss": self._mean.result()}
