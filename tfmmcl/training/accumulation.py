"""Gradient accumulation, on any number of devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

Update = Callable[[Sequence[tf.Tensor]], None]


class Accumulator:
    """Adds up the gradients of several steps on each device, and has their mean applied at the last of them.

    Keras's own `gradient_accumulation_steps` decides inside a replica, where `tf.distribute` allows no condition.

    Args:
        variables: What the gradients are of.
        steps: How many steps make an update.
    """

    def __init__(self, variables: Sequence[keras.Variable], steps: int) -> None:
        self._steps = steps
        # Each device keeps its own; they are added up over devices with the update.
        local = {"trainable": False, "synchronization": tf.VariableSynchronization.ON_READ}
        summed, first = tf.VariableAggregation.SUM, tf.VariableAggregation.ONLY_FIRST_REPLICA
        self._sums = [tf.Variable(tf.zeros(item.shape, item.dtype), aggregation=summed, **local) for item in variables]
        self._taken = tf.Variable(0, aggregation=first, **local)

    def __call__(self, gradients: Sequence[tf.Tensor], update: Update) -> None:
        """Adds a step's gradients; at every last step calls `update` with the means, in each replica."""
        for total, gradient in zip(self._sums, gradients):
            total.assign_add(gradient / self._steps)
        taken = self._taken.assign_add(1, read_value=False)
        with tf.control_dependencies([taken]):
            due = tf.equal(self._taken.read_value() % self._steps, 0)

        def finish() -> None:
            update([total.read_value() for total in self._sums])
            for total in self._sums:
                total.assign(tf.zeros_like(total))

        def decide(strategy: tf.distribute.Strategy, due: tf.Tensor) -> None:
            # All replicas count alike.
            due = strategy.experimental_local_results(due)[0]
            tf.cond(due, lambda: strategy.extended.call_for_each_replica(finish), lambda: None)

        tf.distribute.get_replica_context().merge_call(decide, args=(due,))


def update_every(steps: int, variables: Sequence[keras.Variable]) -> Callable[[Sequence[tf.Tensor], Update], None]:
    """Returns what takes each step's gradients and the function that applies them: at once, or every `steps` steps."""
    if steps == 1:
        return lambda gradients, update: update(gradients)
    return Accumulator(variables, steps)
