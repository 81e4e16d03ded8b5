"""A trace of some steps, for TensorBoard's profiler plugin (`pip install tensorboard-plugin-profile`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

Logs = dict[str, Any]


class Profile(keras.callbacks.Callback):
    """Has TensorFlow's profiler write what happens from one step to another.

    Args:
        folder: The run's TensorBoard folder.
        first: The first step, counted from 1 over the whole run.
        last: The last one.
        steps: Steps in an epoch.
        start: Epoch and step at which the run goes on.
    """

    def __init__(self, folder: Path, first: int, last: int, steps: int, start: tuple[int, int]) -> None:
        super().__init__()
        self._folder, self._first, self._last = folder, first, last
        self._steps, self._start = steps, start
        self._tracing = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Finds the epoch's first step among the run's."""
        self._before = epoch * self._steps + (self._start[1] if epoch == self._start[0] else 0)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Begins at the first step, and marks each."""
        step = self._before + batch + 1
        if step == self._first:
            tf.profiler.experimental.start(str(self._folder))
            self._tracing = True
        if self._tracing:
            self._step = tf.profiler.experimental.Trace("train", step_num=step, _r=1)
            self._step.__enter__()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Ends the step, and the trace after the last one."""
        if self._tracing:
            self._step.__exit__(None, None, None)
            if self._before + batch + 1 >= self._last:
                self.close()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Ends the trace if the run ended before its last step."""
        self.close()

    def close(self) -> None:
        """Ends and writes the trace, if one is being made."""
        if self._tracing:
            self._tracing = False
            tf.profiler.experimental.stop()
            print(f"wrote a trace of steps {self._first} to {self._last} to {self._folder}", flush=True)
