"""What is kept while training: history, checkpoints."""

from __future__ import annotations

import time
from typing import Any

import keras

from tfmmcl.errors import InterruptedTraining
from tfmmcl.settings import TrainingSettings
from tfmmcl.training.checkpoints import Checkpoints, Position, set_means
from tfmmcl.training.health import check_finite
from tfmmcl.training.interruption import Stop
from tfmmcl.training.watching.board import TensorBoard

Logs = dict[str, Any]


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
