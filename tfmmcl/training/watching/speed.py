"""How fast training goes, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import keras

Logs = dict[str, Any]


class TimedInput(Iterator[Any]):
    """Batches from an iterator, with the time that was spent on waiting for them.

    Callbacks read the figures of every step, so a step has ended, on any device, before the next batch is asked for:
    while this waits, the device has nothing to do.

    Attributes:
        seconds: Waited for all batches so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._batches: Iterator[Any] = iter(())

    def of(self, batches: Iterator[Any]) -> TimedInput:
        """Returns itself, over these batches from now on."""
        self._batches = batches
        return self

    def __next__(self) -> Any:
        began = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.seconds += time.perf_counter() - began


class Throughput(keras.callbacks.Callback):
    """Adds seconds, rate, waiting time and learning rate to the epoch's logs, for the callbacks after it.

    Rate and waiting time leave out what comes before the end of each epoch's first step, which in the first epoch
    compiles and fills buffers.

    Args:
        batch_size: Trajectories per step.
        waiting: Counts the time that steps wait for their batches. Default: it is not known.
    """

    def __init__(self, batch_size: int, waiting: TimedInput | None = None) -> None:
        super().__init__()
        self._batch_size = batch_size
        self._waiting = waiting

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Starts the epoch's clock."""
        self._began, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Notes when the first and the latest step ended."""
        self._latest, self._steps = self._now(), batch
        if batch == 0:
            self._first = self._latest

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Adds the figures."""
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs["seconds"] = time.perf_counter() - self._began
        if self._steps:
            seconds, waited = (latest - first for latest, first in zip(self._latest, self._first))
            logs["trajectories_per_second"] = self._steps * self._batch_size / seconds
            if self._waiting:
                logs["input_wait_ms"] = 1000 * waited / self._steps
                logs["input_wait_share"] = waited / seconds

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), self._waiting.seconds if self._waiting else 0.0
