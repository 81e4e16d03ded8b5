"""Pre-training from settings to a finished run directory."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

import tfmmcl
from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.errors import InputError
from tfmmcl.models.encoder import build_encoder, portable
from tfmmcl.models.precision import dtype_policy
from tfmmcl.objectives.objective import make_objective
from tfmmcl.pipeline.batches import Batches
from tfmmcl.pipeline.damage import naming_damage
from tfmmcl.pipeline.shapes import check_fit, encoder_shape, steps_per_epoch
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.opening import opened
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.callbacks import Keep
from tfmmcl.training.checkpoints import BEGINNING, Checkpoints, Position
from tfmmcl.training.distribution import (
    expect_summed_gradients,
    is_chief,
    make_strategy,
    report_lost_workers,
    synchronise_batch_normalisation,
)
from tfmmcl.training.health import Collapse, SkippedSteps, StopAtNaN
from tfmmcl.training.interruption import stop_on_signals
from tfmmcl.training.optimizer import build_optimizer
from tfmmcl.training.pretrainer import Pretrainer
from tfmmcl.training.run_directory import RunDirectory, write_complete
from tfmmcl.training.watching.board import TensorBoard
from tfmmcl.training.watching.frozen import FrozenEncoder, watched_task
from tfmmcl.training.watching.introduction import Introduction
from tfmmcl.training.watching.norms import Norms
from tfmmcl.training.watching.profile import Profile
from tfmmcl.training.watching.representation import Representation
from tfmmcl.training.watching.speed import Throughput
from tfmmcl.training.watching.terminal import Progress


def pretrain(settings: PretrainSettings, run: RunDirectory, *, resume: bool = False) -> dict[str, Any] | None:
    """Pre-trains an encoder and fills a run directory, all but its SavedModel (`export`) and `result.json`.

    Args:
        settings: The run's settings; `data.path` must hold a prepared data set.
        run: Where everything is written.
        resume: Continue the run after its newest checkpoint. Default False: start a new one.

    Returns:
        What `result.json` is to hold; None on all workers but the chief, which alone writes.

    Raises:
        InputError: If the data set, the settings or the folder do not fit; nothing is written then.
        TrainingError: If the loss is no longer finite, or another worker has stopped.
        InterruptedTraining: If SIGINT or SIGTERM arrived; where the run stands is saved.
    """
    with opened(settings.data, ("train", "validation")) as (data, skipped):
        result = _pretrain(settings, data, run, resume=resume)
    if result is not None and skipped:
        result["skipped_records"] = skipped
    return result


def _pretrain(settings: PretrainSettings, data: DataSet, run: RunDirectory, *, resume: bool) -> dict[str, Any] | None:
    check_fit(data, settings)
    watched_task(data, settings.watching.task)
    strategy = make_strategy(settings)
    whole = tf.distribute.InputContext(num_replicas_in_sync=strategy.num_replicas_in_sync)
    batches = Batches(data, settings, whole)
    epochs, steps, batch_size = settings.training.epochs, batches.steps_per_epoch(), settings.data.batch_size
    if settings.watching.profile and settings.watching.profile[0] > epochs * steps:
        raise InputError(
            f"watching.profile: found a first step of {settings.watching.profile[0]}, expected one of the run's "
            f"{epochs * steps} steps."
        )
    if not resume and is_chief(strategy):
        run.check_new()

    keras.utils.set_random_seed(settings.seed)
    if settings.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    with strategy.scope():
        trainer = build_pretrainer(settings, data)
    checkpoints = Checkpoints(run)
    start = checkpoints.newest() if resume else BEGINNING
    checkpoints.load(trainer, start)
    with contextlib.ExitStack() as stack:
        stack.enter_context(naming_damage(data, ("train", "validation")))
        stack.enter_context(report_lost_workers(strategy))
        watchers: list[keras.callbacks.Callback] = []
        if is_chief(strategy):
            if resume:
                checkpoints.rewind(start)
                run.write_settings(settings)
            else:
                run.start(settings)
            _announce(run, trainer, batches)
            watchers = _watchers(stack, settings, batches, trainer, checkpoints, start)
        guards = [
            StopAtNaN(
                lambda epoch, batch: batches.names(epoch, batch + (start.step if epoch == start.epoch else 0)),
                f" The newest checkpoint in {run.checkpoints} is from before; --resume goes on from it.",
            ),
            SkippedSteps(steps // settings.training.accumulate),
            Collapse(),
        ]
        _fit(trainer, batches, strategy, start, [*guards, *(watchers or [Throughput(batch_size, trainer.waiting)])])

    if not is_chief(strategy):
        return None
    encoder = float32_encoder(settings, data, trainer.encoder)
    write_complete(run.encoder, encoder.save)
    history, validation_size = run.read_history(), batches.validation_batch_size()
    rates = [epoch["trajectories_per_second"] for epoch in history if "trajectories_per_second" in epoch]
    return {
        "epochs": epochs,
        "steps": int(trainer.optimizer.iterations.numpy()),
        "final": history[-1],
        "chance": trainer.objective.chance(validation_size),
        "validation_batch_size": validation_size,
        "summary": trainer.objective.summary(history[-1], validation_size),
        "wall_seconds": sum(epoch["seconds"] for epoch in history),
        "trajectories_per_second": float(np.median(rates)) if rates else None,
        "encoder_parameters": encoder.count_params(),
        "data": {
            "path": settings.data.path,
            "fingerprint": data.fingerprint,
            "spec": data.spec.model_dump(mode="json"),
        },
        "device": device(),
        "devices": strategy.num_replicas_in_sync,
        "versions": versions(),
    }


def build_pretrainer(settings: PretrainSettings, data: DataSet) -> Pretrainer:
    """Builds and compiles the encoder with its objective for a data set, in the settings' precision."""
    return pretrainer_of_shape(settings, data.spec, steps_per_epoch(data, settings))


def pretrainer_of_shape(settings: PretrainSettings, spec: Spec, steps: int) -> Pretrainer:
    """Builds and compiles what `build_pretrainer` does, for trajectories of this shape and epochs of so many steps."""
    training = settings.training
    objective = make_objective(settings.objective)
    with dtype_policy(training.precision):
        encoder = _encoder(settings, spec)
        head = objective.build_head(encoder.output.shape[-1], settings.encoder.batch_norm_momentum)
        trainer = Pretrainer(encoder, head, objective, training.accumulate)
    synchronise_batch_normalisation(trainer)
    optimizer = build_optimizer(
        settings.optimizer,
        training.epochs,
        steps // training.accumulate,
        scale_loss=training.precision == "mixed_float16",
    )
    expect_summed_gradients(optimizer)
    optimizer.build(trainer.trainable_variables)
    trainer.compile(optimizer=optimizer, jit_compile=uses_xla(training.jit_compile))
    return trainer


def float32_encoder(settings: PretrainSettings, data: DataSet, encoder: keras.Model) -> keras.Model:
    """Returns the encoder with the same weights, of Keras's own layers, in float32 wherever it is loaded."""
    with dtype_policy("float32"):
        copy = _encoder(settings.model_copy(update={"encoder": portable(settings.encoder)}), data.spec)
    copy.set_weights(encoder.get_weights())
    return copy


def _encoder(settings: PretrainSettings, spec: Spec) -> keras.Model:
    return build_encoder(*encoder_shape(spec, settings), settings.encoder)


def _fit(
    trainer: Pretrainer,
    batches: Batches,
    strategy: tf.distribute.Strategy,
    start: Position,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains from a position to the end: first what is left of its epoch, then whole epochs."""
    views, epochs, steps = trainer.objective.views, batches.settings.training.epochs, batches.steps_per_epoch()
    distribute = strategy.distribute_datasets_from_function
    validation = distribute(lambda context: batches.part(context).validation(views))
    validating = {"validation_data": validation, "validation_steps": batches.validation_steps()}

    def fit(first_epoch: int, first_step: int, last_epoch: int) -> None:
        training = distribute(lambda context: batches.part(context).training(first_epoch, views, first_step=first_step))
        if start == BEGINNING:
            trainer.calibrate(next(iter(training)))
        trainer.fit(
            training,
            initial_epoch=first_epoch,
            epochs=last_epoch,
            steps_per_epoch=steps - first_step,
            callbacks=list(callbacks),
            verbose=0,
            shuffle=False,
            **validating,
        )

    epoch = start.epoch
    if start.step == steps:  # it was stopped while it was validated
        watching = keras.callbacks.CallbackList(list(callbacks), model=trainer)
        watching.on_epoch_begin(epoch)
        found = trainer.evaluate(
            validation, steps=batches.validation_steps(), callbacks=watching, return_dict=True, verbose=0
        )
        watching.on_epoch_end(epoch, {**(start.logs or {}), **{f"val_{name}": value for name, value in found.items()}})
        epoch += 1
    elif start.step:
        fit(epoch, start.step, epoch + 1)
        epoch += 1
    if epoch < epochs:
        fit(epoch, 0, epochs)


def _watchers(
    stack: contextlib.ExitStack,
    settings: PretrainSettings,
    batches: Batches,
    trainer: Pretrainer,
    checkpoints: Checkpoints,
    start: Position,
) -> list[keras.callbacks.Callback]:
    """Returns what the chief has beside training, in the order in which figures are found, shown and kept."""
    steps, size, folder = batches.steps_per_epoch(), settings.data.batch_size, checkpoints.run.tensorboard
    chance = {"chance": trainer.objective.chance(batches.validation_batch_size())}
    if batches.validation_batch_size() != size:
        chance = {"chance, validation": chance["chance"], "chance, train": trainer.objective.chance(size)}
    watching, here = settings.watching, (start.epoch, start.step)
    task = watched_task(batches.data, watching.task)
    board = stack.enter_context(contextlib.closing(TensorBoard(folder, chance)))
    frozen = FrozenEncoder(trainer, batches, task, watching.trajectories)
    watchers: list[keras.callbacks.Callback] = []
    if watching.profile:
        watchers.append(stack.enter_context(contextlib.closing(Profile(folder, *watching.profile, steps, here))))
    if start == BEGINNING:
        watchers.append(Introduction(board, batches, frozen))
    return [
        *watchers,
        Representation(frozen, batches.data.spec, task, board, watching),
        Throughput(size, trainer.waiting),
        Norms(steps, *here),
        Progress(settings.training.epochs, steps, size, start),
        board,
        Keep(checkpoints, board, stack.enter_context(stop_on_signals()), start, settings.training, steps),
    ]


def _announce(run: RunDirectory, trainer: Pretrainer, batches: Batches) -> None:
    """Says what is about to be trained, on what, and where it is written."""
    data, replicas = batches.data, batches.context.num_replicas_in_sync
    print(
        f"{data.count('train')} training and {data.count('validation')} validation trajectories; "
        f"{trainer.encoder.count_params():,} parameters in the encoder; {batches.steps_per_epoch()} steps an epoch on "
        f"{device()}{f', one of {replicas} devices' if replicas > 1 else ''}; writing {run.path}",
        flush=True,
    )


def uses_xla(setting: Literal["auto"] | bool) -> bool:
    """Returns whether to compile with XLA; `auto`: where there is a GPU, and the strategy in scope uses one only."""
    if setting != "auto":
        return setting
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return bool(tf.config.list_physical_devices("GPU")) and not several


def device() -> str:
    """Returns what the run computes on, in words."""
    graphics = tf.config.list_physical_devices("GPU")
    if not graphics:
        return f"the CPU ({os.cpu_count()} cores)"
    return tf.config.experimental.get_device_details(graphics[0]).get("device_name", "a GPU")


def versions() -> dict[str, str]:
    """Returns the versions that a result depends on."""
    return {
        "tfmmcl": tfmmcl.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
