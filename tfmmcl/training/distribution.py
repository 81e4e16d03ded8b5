"""One step over many devices: strategies of `tf.distribute`, and what makes their results those of one device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmmcl.errors import InputError, TrainingError
from tfmmcl.settings import PretrainSettings


def make_strategy(settings: PretrainSettings) -> tf.distribute.Strategy:
    """Returns the strategy that `training.distribution` names; with `multi_worker` it waits for all workers.

    Raises:
        InputError: If `multi_worker` finds no `TF_CONFIG`, or the settings do not fit the number of replicas.
    """
    strategy: tf.distribute.Strategy
    if settings.training.distribution == "none":
        strategy = tf.distribute.get_strategy()
    elif settings.training.distribution == "mirrored":
        strategy = tf.distribute.MirroredStrategy()
    else:
        if not os.environ.get("TF_CONFIG"):
            raise InputError(
                "training.distribution=multi_worker: found no TF_CONFIG in the environment, expected that or "
                "--workers HOST:PORT,HOST:PORT."
            )
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        # Batches are all of one size, and their shapes stay static: nobody has to ask whether a worker has run out.
        strategy.extended.experimental_enable_get_next_as_optional = False
    _check(settings, strategy.num_replicas_in_sync)
    return strategy


def _check(settings: PretrainSettings, replicas: int) -> None:
    if settings.data.batch_size % replicas:
        raise InputError(
            f"data.batch_size: found {settings.data.batch_size}, expected a multiple of the {replicas} devices that "
            "share each batch."
        )
    if replicas > 1 and settings.training.jit_compile is True:
        raise InputError(
            f"training.jit_compile: found true, expected auto or false with {replicas} devices: XLA compiles for one."
        )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes and prints."""
    return strategy.extended.should_checkpoint


def gather(x: tf.Tensor) -> tf.Tensor:
    """Returns the rows `(N, …)` of all replicas in float32, `(R·N, …)`; gradients flow back to where they came from."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return x
    rows = context.all_gather(tf.cast(x, tf.float32), axis=0)
    return tf.ensure_shape(rows, (x.shape[0] * context.num_replicas_in_sync, *x.shape[1:]))


def sum_over_replicas(gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns each gradient's sum over all replicas."""
    context = tf.distribute.get_replica_context()
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients)))


class MeanOnReplica(keras.metrics.Mean):
    """A running mean of what all replicas hold alike.

    It is read from one replica without asking the others: a worker can read it while the others do something else.
    """

    def add_variable(self, *arguments: Any, **options: Any) -> keras.Variable:
        """Adds a variable that is not summed over replicas."""
        return super().add_variable(*arguments, **{**options, "aggregation": "only_first_replica"})


def synchronise_batch_normalisation(model: keras.Model) -> None:
    """Lets every batch normalisation take its moments over the batches of all replicas."""
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def expect_summed_gradients(optimizer: keras.optimizers.Optimizer) -> None:
    """Keeps a Keras optimizer from adding up gradients over replicas.

    It does so after clipping them, and after looking for infinities in half precision; both have to see the sum.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables


def as_log(value: tf.Tensor) -> tf.Tensor:
    """Returns a scalar in the shape in which Keras's `fit` averages it over replicas.

    With several workers it averages along the first axis (https://github.com/keras-team/keras/issues/20585).
    """
    several = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
    return value[tf.newaxis] if several else value


@contextlib.contextmanager
def report_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns what TensorFlow says when another worker has gone into a `TrainingError`."""
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.FailedPreconditionError,
        tf.errors.InternalError,
    ) as error:
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        raise TrainingError(
            f"another worker has stopped ({type(error).__name__}); start all workers again with --resume."
        ) from error
