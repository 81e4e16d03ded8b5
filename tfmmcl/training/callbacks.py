"""What happens beside the training steps: progress, TensorBoard, history, checkpoints."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from tfmmcl.errors import InterruptedTraining
from tfmmcl.settings import TrainingSettings
from tfmmcl.training.checkpoints import BEGINNING, Checkpoints, Position, set_means
from tfmmcl.training.health import check_finite
from tfmmcl.training.interruption import Stop

Logs = dict[str, Any]


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
        self._began, self._steps = time.perf_counter(), 0

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
        start: Where the run goes on. Default: at its beginning.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int, start: Position = BEGINNING) -> None:
        super().__init__()
        self._epochs, self._steps, self._batch_size = epochs, steps, batch_size
        self._start = start
        self._bar: tqdm | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Opens the epoch's bar."""
        self._bar = tqdm(
            total=self._steps * self._batch_size,
            initial=self._start.step * self._batch_size if epoch == self._start.epoch else 0,
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
        self.flush()

    def flush(self) -> None:
        """Brings everything to disk."""
        self.train.flush()
        self.validation.flush()

    def close(self) -> None:
        """Closes the files."""
        self.train.close()
        self.validation.close()


class Keep(keras.callbacks.Callback):
    """Writes each epoch's line of history, and saves checkpoints: then, as time goes by, and when asked to stop.

    Args:
        checkpoints: Where they are saved.
        board: What has to be on disk before.
        stop: Says when to save and leave.
        start: Where the run goes on.
        settings: How many checkpoints are kept, how often they are saved, and how many steps belong together.
        steps: Steps in an epoch.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        board: TensorBoard,
        stop: Stop,
        start: Position,
        settings: TrainingSettings,
        steps: int,
    ) -> None:
        super().__init__()
        self._checkpoints, self._board, self._stop = checkpoints, board, stop
        self._settings, self._steps = settings, steps
        self._start = start
        self._saved_at = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Brings the running means back where an epoch goes on."""
        self._epoch, self._before = epoch, 0
        if epoch == self._start.epoch and self._start.step:
            self._before, self._logs = self._start.step, self._start.logs
            set_means(self.model, self._start)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Saves, if it is time to or somebody has asked to stop; not between batches whose gradients are added up."""
        self._logs, done = logs, self._before + batch + 1
        due = time.monotonic() - self._saved_at >= 60 * self._settings.checkpoint_minutes
        if (due or self._stop.signal) and done % self._settings.accumulate == 0:
            self._save(self._epoch, done, logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Saves, if somebody has asked to stop."""
        if self._stop.signal:
            self._save(self._epoch, self._steps, self._logs)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Writes the epoch's line, and saves."""
        self._checkpoints.run.append_history({"epoch": epoch + 1, **{key: float(value) for key, value in logs.items()}})
        self._save(epoch + 1, 0, {})

    def _save(self, epoch: int, step: int, logs: Logs) -> None:
        check_finite(self.model)
        self._board.flush()
        self._checkpoints.save(self.model, epoch, step, logs, self._settings.checkpoints)
        self._saved_at = time.monotonic()
        if self._stop.signal:
            raise InterruptedTraining(
                f"stopped in epoch {epoch + 1} after {step} of {self._steps} steps, which are saved; "
                f"--resume --out {self._checkpoints.run.path} continues.",
                self._stop.signal,
            )
