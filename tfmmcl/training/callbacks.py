"""What happens beside the training steps: progress, TensorBoard, history, checkpoints, and stopping at a NaN."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from tfmmcl.errors import TrainingError
from tfmmcl.training.run_directory import RunDirectory, write_complete

Logs = dict[str, Any]


class StopAtNaN(keras.callbacks.Callback):
    """Raises `TrainingError` at the first step, or the first epoch's validation, whose loss is not finite."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Checks the running mean, which a single NaN spoils."""
        self._check("loss", logs["loss"])

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Checks the weights that the epoch's last step left, by the validation loss, before they are saved."""
        self._check("validation loss", logs["val_loss"])

    def _check(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            step = int(self.model.optimizer.iterations.numpy())
            raise TrainingError(
                f"the {name} is {value} at step {step}; expected a finite number. Try a lower "
                "optimizer.learning_rate, optimizer.clip_norm=1, or training.precision=float32."
            )


class Throughput(keras.callbacks.Callback):
    """Adds `seconds`, `trajectories_per_second` and `learning_rate` to the epoch's logs, for the callbacks after it.

    The rate leaves out each epoch's first step, which in the first epoch compiles.

    Args:
        batch_size: Trajectories per step.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self._batch_size = batch_size

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Starts the epoch's clock."""
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Notes when the first and the latest step ended."""
        self._latest, self._steps = time.perf_counter(), batch
        if batch == 0:
            self._first = self._latest

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Adds the figures."""
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs["seconds"] = time.perf_counter() - self._began
        if self._steps:
            logs["trajectories_per_second"] = self._steps * self._batch_size / (self._latest - self._first)


class Progress(keras.callbacks.Callback):
    """A progress bar per epoch on a terminal, a line per epoch elsewhere.

    Args:
        epochs: The run's epochs.
        steps: Steps in each.
        batch_size: Trajectories per step.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int) -> None:
        super().__init__()
        self._epochs, self._steps, self._batch_size = epochs, steps, batch_size
        self._bar: tqdm | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Opens the epoch's bar."""
        self._bar = tqdm(
            total=self._steps * self._batch_size,
            desc=f"epoch {epoch + 1}/{self._epochs}",
            unit=" trajectories",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)
            self._bar.update(self._batch_size)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Closes the bar and prints the epoch's line."""
        if self._bar is not None:
            self._bar.close()
        parts = [f"epoch {epoch + 1}/{self._epochs}", f"loss {logs['loss']:.3f}", f"validation {logs['val_loss']:.3f}"]
        if "val_contrastive_accuracy" in logs:
            parts.append(f"accuracy {logs['val_contrastive_accuracy']:.1%}")
        if "trajectories_per_second" in logs:
            parts.append(f"{logs['trajectories_per_second']:.1f} trajectories/s")
        print(", ".join(parts), flush=True)


class TensorBoard(keras.callbacks.Callback):
    """Writes scalars to `train` and `validation`, so that both are drawn in one chart.

    Args:
        folder: The run's TensorBoard folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.train, self.validation = (
            tf.summary.create_file_writer(str(folder / name)) for name in ("train", "validation")
        )

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Writes the epoch's running loss at every step."""
        with self.train.as_default():
            tf.summary.scalar("running loss by step", logs["loss"], step=self.model.optimizer.iterations.numpy())

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Writes the epoch's scalars."""
        for key, value in logs.items():
            name = key.removeprefix("val_")
            with (self.train if name == key else self.validation).as_default():
                tf.summary.scalar(name.replace("_", " "), value, step=epoch + 1)
        self.train.flush()
        self.validation.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Closes the files."""
        self.train.close()
        self.validation.close()


class Record(keras.callbacks.Callback):
    """Writes each epoch's line of history, then its checkpoint, and keeps the newest checkpoints.

    Args:
        run: The run's folder.
        keep: How many checkpoints.
    """

    def __init__(self, run: RunDirectory, keep: int) -> None:
        super().__init__()
        self._run, self._keep = run, keep

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Writes the epoch to disk."""
        finished = epoch + 1
        self._run.append_history({"epoch": finished, **{key: float(value) for key, value in logs.items()}})
        write_complete(self._run.checkpoint(finished), self.model.save_weights)
        for old in self._run.finished_epochs()[: -self._keep]:
            self._run.checkpoint(old).unlink()
