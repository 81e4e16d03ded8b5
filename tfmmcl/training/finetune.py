"""Fine-tuning: an encoder and a head on one task, in memory (`fit`) or as a run directory (`finetune`)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmmcl.cohorts.splits import SPLITS, Split
from tfmmcl.cohorts.trajectory import Task
from tfmmcl.config import dump
from tfmmcl.finetune_settings import FinetuneSettings
from tfmmcl.models.classifier import build_classifier, output_name, outputs_of
from tfmmcl.models.encoder import build_encoder, portable
from tfmmcl.models.heads import build_task_head
from tfmmcl.models.loading import load_model
from tfmmcl.models.precision import dtype_policy
from tfmmcl.pipeline.labelled import LabelledBatches
from tfmmcl.pipeline.reading import mean_over_crops
from tfmmcl.pipeline.shapes import reading_samples
from tfmmcl.records.labels import Label
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.opening import opened
from tfmmcl.training.best_epoch import BestEpoch
from tfmmcl.training.calibration import calibrate
from tfmmcl.training.checkpoints import BEGINNING, Checkpoints, Position
from tfmmcl.training.finetuner import Finetuner
from tfmmcl.training.health import StopAtNaN
from tfmmcl.training.optimizer import build_optimizer
from tfmmcl.training.pretrain import device, uses_xla, versions
from tfmmcl.training.run_directory import FinetuneDirectory, RunDirectory, write_complete
from tfmmcl.training.start_finetuning import complete
from tfmmcl.training.watching.board import Logs, TensorBoard
from tfmmcl.training.watching.speed import Throughput
from tfmmcl.training.watching.terminal import Progress


@dataclass(frozen=True)
class Predictions:
    """A split's labelled trajectories in stored order.

    Attributes:
        trajectories: `(N,)` ids.
        patients: `(N,)` ids.
        labels: `(N,)`.
        predictions: Probabilities `(N,)` of label 1 or `(N, K)` of each class, or values `(N,)` in the label's unit.
    """

    trajectories: np.ndarray
    patients: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """A fine-tuned network.

    Attributes:
        model: Float32, with the best epoch's weights; see `models.classifier.build_classifier`.
        task: What it predicts.
        history: Each epoch's figures.
        best_epoch: The one whose validation loss is least, from 1.
        predictions: Of the validation and the test split.
        training: The labels it was trained with.
    """

    model: keras.Model
    task: Task
    history: list[dict[str, float]]
    best_epoch: int
    predictions: dict[Split, Predictions]
    training: list[Label]


def fit(
    settings: FinetuneSettings,
    data: DataSet,
    *,
    encoder: keras.Model | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: bool = False,
    checkpoints: Checkpoints | None = None,
    start: Position = BEGINNING,
) -> Fitted:
    """Fine-tunes in memory; nothing is written but checkpoints, where they are asked for.

    Args:
        settings: The run's settings.
        data: The data set.
        encoder: The pre-trained encoder, where the caller has loaded it. Default None: it is loaded from
            `settings.pretrained`, or a new one is made if that is null.
        callbacks: Called beside training, after the epoch's figures are complete. Default none.
        progress: Whether to show it. Default False.
        checkpoints: Where each epoch is saved. Default None.
        start: The checkpoint where it goes on. Default: the beginning.

    Raises:
        InputError: If the settings, the data set and the encoder do not fit each other.
        TrainingError: If the loss is no longer finite.
    """
    settings = complete(settings, data)
    batches = LabelledBatches(data, settings)
    if encoder is None and settings.pretrained is not None:
        encoder = load_model(RunDirectory(settings.pretrained).encoder)
    keras.utils.set_random_seed(settings.seed)  # last: loading draws random numbers too
    trainer = _build(settings, batches, encoder)
    if checkpoints:
        checkpoints.load(trainer, start)
    training = batches.training(start.epoch)
    if encoder is None and start == BEGINNING:
        calibrate(trainer, lambda: trainer(next(iter(training))[0], training=True))
    splits: tuple[Split, ...] = ("validation", "test")
    inference = {split: batches.inference(split) for split in splits if batches.labels[split]}
    history: list[dict[str, float]] = checkpoints.run.read_history() if checkpoints and start.epoch else []
    epochs = settings.training.epochs
    steps, batch_size = batches.training_batches()
    best = BestEpoch(settings.training.patience or epochs, checkpoints, start)
    frozen = settings.training.frozen_epochs
    trainer.frozen = frozen == "all" or start.epoch < frozen
    trainer.fit(
        training,
        initial_epoch=epochs if best.ended() else start.epoch,
        epochs=epochs,
        steps_per_epoch=steps,
        validation_data=inference["validation"],
        callbacks=[
            StopAtNaN(),
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: _unfreeze(trainer, settings, epoch)),
            Throughput(batch_size),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: history.append(_line(epoch, logs))),
            *([Progress(epochs, steps, batch_size)] if progress else []),
            *callbacks,
            best,
        ],
        verbose=0,
        shuffle=False,
    )
    model = _finished(settings, batches, trainer)
    return Fitted(
        model=model,
        task=batches.task,
        history=history,
        best_epoch=best.best_epoch + 1,
        predictions=_predict(model, batches.task, batches.labels, inference),
        training=batches.labels["train"],
    )


def finetune(settings: FinetuneSettings, run: FinetuneDirectory, *, resume: bool = False) -> dict[str, Any]:
    """Fine-tunes and fills a run directory, all but its SavedModel (`export`) and `result.json`.

    Args:
        settings: The run's settings; `data.path` must hold a prepared data set.
        run: Where everything is written.
        resume: Continue the run after its last epoch. Default False: start a new one.

    Returns:
        What `result.json` is to hold.

    Raises:
        InputError: If the data set, the settings or the folder do not fit; nothing is written then.
        TrainingError: If the loss is no longer finite.
    """
    began = time.perf_counter()
    with opened(settings.data, SPLITS) as (data, skipped):
        settings = complete(settings, data)
        checkpoints = Checkpoints(run)
        start = checkpoints.newest() if resume else BEGINNING
        if resume:
            checkpoints.rewind(start)
            run.write_settings(settings)
        else:
            run.start(settings)
        print(f"fine-tuning on {device()}; writing {run.path}", flush=True)
        record = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: run.append_history(_line(epoch, logs)))
        with contextlib.closing(TensorBoard(run.tensorboard)) as board:
            with board.whole.as_default(step=0):
                tf.summary.text("settings", f"```yaml\n{dump(settings)}```")
            fitted = fit(settings, data, callbacks=[board, record], progress=True, checkpoints=checkpoints, start=start)
    write_complete(run.model, fitted.model.save)
    write_complete(run.predictions, lambda path: _save_predictions(fitted.predictions, path))
    return {
        "task": fitted.task.name,
        "best_epoch": fitted.best_epoch,
        "epochs": len(fitted.history),
        "final": fitted.history[fitted.best_epoch - 1],
        "training": {"trajectories": len(fitted.training), "patients": len({item.patient for item in fitted.training})},
        "wall_seconds": time.perf_counter() - began,
        "parameters": fitted.model.count_params(),
        "data": {"path": settings.data.path, "fingerprint": data.fingerprint},
        **({"skipped_records": skipped} if skipped else {}),
        "device": device(),
        "versions": versions(),
    }


def _save_predictions(predictions: dict[Split, Predictions], path: Path) -> None:
    """Writes one row a trajectory: `split`, `trajectory`, `patient`, `label` and `prediction`."""
    splits = np.concatenate([np.full(len(item.labels), split) for split, item in predictions.items()])
    items = predictions.values()
    np.savez(
        path,
        split=splits,
        trajectory=np.concatenate([item.trajectories for item in items]),
        patient=np.concatenate([item.patients for item in items]),
        label=np.concatenate([item.labels for item in items]),
        prediction=np.concatenate([item.predictions for item in items]),
    )


def _build(settings: FinetuneSettings, batches: LabelledBatches, pretrained: keras.Model | None) -> Finetuner:
    """Builds and compiles encoder and head in the settings' precision."""
    training = settings.training
    with dtype_policy(training.precision):
        encoder = _encoder(settings, batches.data)
        if pretrained is not None:
            encoder.set_weights(pretrained.get_weights())
        head = build_task_head(encoder.output.shape[-1], settings.head_units, outputs_of(batches.task))
        trainer = Finetuner(encoder, head, batches.task)
    steps, scale_loss = batches.training_batches()[0], training.precision == "mixed_float16"
    optimizer = build_optimizer(settings.optimizer, training.epochs, steps, scale_loss=scale_loss)
    learning = head.trainable_variables
    if training.frozen_epochs == 0 and training.encoder_rate == 1:
        learning = encoder.trainable_variables + learning
    elif training.frozen_epochs != "all" and training.frozen_epochs < training.epochs:
        slower = settings.optimizer.model_copy(
            update={"learning_rate": settings.optimizer.learning_rate * training.encoder_rate}
        )
        # Its schedule begins when the encoder does.
        left = training.epochs - training.frozen_epochs
        trainer.encoder_optimizer = build_optimizer(slower, left, steps, scale_loss=scale_loss)
        trainer.encoder_optimizer.build(encoder.trainable_variables)
    optimizer.build(learning)
    trainer.compile(optimizer=optimizer, jit_compile=uses_xla(training.jit_compile))
    return trainer


def _encoder(settings: FinetuneSettings, data: DataSet) -> keras.Model:
    spec = data.spec
    samples = reading_samples(spec, settings.reading) if settings.encoder.signal else 0
    return build_encoder(
        spec.windows, len(spec.structured), len(spec.statics), samples, len(spec.leads), settings.encoder
    )


def _unfreeze(trainer: Finetuner, settings: FinetuneSettings, epoch: int) -> None:
    if epoch == settings.training.frozen_epochs and trainer.frozen:
        trainer.unfreeze()


def _line(epoch: int, logs: Logs) -> dict[str, float]:
    return {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}


def _finished(settings: FinetuneSettings, batches: LabelledBatches, trainer: Finetuner) -> keras.Model:
    """Returns encoder and head as one model of Keras's own layers that computes in float32."""
    with dtype_policy("float32"):
        encoder = _encoder(settings.model_copy(update={"encoder": portable(settings.encoder)}), batches.data)
        encoder.set_weights(trainer.encoder.get_weights())
        return build_classifier(encoder, trainer.head, batches.task, batches.mean, batches.std)


def _predict(
    model: keras.Model, task: Task, labels: dict[Split, list[Label]], inputs: dict[Split, tf.data.Dataset]
) -> dict[Split, Predictions]:
    """Returns the predictions for each split, given its labels and its batches in their order."""
    # For any batch size: the splits' differ, and tracing takes longer than a small split.
    batch = inputs["validation"].element_spec[0]
    signature = {name: tf.TensorSpec((None, *spec.shape[1:]), spec.dtype, name) for name, spec in batch.items()}
    predict = tf.function(lambda view: mean_over_crops(model, view)[output_name(task)]).get_concrete_function(signature)
    found = {}
    for split, batches in inputs.items():
        values = np.concatenate([predict(view).numpy() for view, _, _ in batches])
        found[split] = Predictions(
            trajectories=np.array([item.trajectory for item in labels[split]]),
            patients=np.array([item.patient for item in labels[split]]),
            labels=np.array([item.label for item in labels[split]]),
            predictions=values[: len(labels[split])],
        )
    return found
