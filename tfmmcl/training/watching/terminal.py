"""What a run says while it trains: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
from tqdm import tqdm

from tfmmcl.training.checkpoints import BEGINNING, Position

Logs = dict[str, Any]

_BAR = "{desc} {percentage:3.0f}% |{bar}| {postfix[0]}{rate_noinv_fmt}, {remaining} left"
QUIET_SECONDS = 60
"""Without a terminal, a line says how an epoch goes when nothing was said for so long."""


class Progress(keras.callbacks.Callback):
    """A bar per epoch on a terminal; elsewhere a line per epoch, and one a minute in longer ones.

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
        self._name = f"epoch {epoch + 1}/{self._epochs}"
        self._done = self._start.step if epoch == self._start.epoch else 0
        self._began, self._first = time.monotonic(), self._done
        self._said = self._began
        self._bar = tqdm(
            total=self._steps * self._batch_size,
            initial=self._done * self._batch_size,
            desc=self._name,
            unit=" trajectories",
            bar_format=_BAR,
            postfix=[""],
            dynamic_ncols=True,
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Moves the bar."""
        self._done += 1
        figures = f"loss {logs['loss']:.3f}"
        if "contrastive_accuracy" in logs:
            figures += f", accuracy {logs['contrastive_accuracy']:.1%}"
        if self._bar is not None and not self._bar.disable:
            self._bar.postfix[0] = f"{figures}, "
            self._bar.update(self._batch_size)
        elif time.monotonic() - self._said > QUIET_SECONDS:
            self._said = time.monotonic()
            seconds = (self._said - self._began) / (self._done - self._first)
            rate, left = self._batch_size / seconds, (self._steps - self._done) * seconds
            part = f"{self._name}, step {self._done}/{self._steps}"
            print(f"{part}, {figures}, {rate:.1f} trajectories/s, {_time(left)} left", flush=True)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Closes the bar and prints the epoch's line."""
        if self._bar is not None:
            self._bar.close()
        parts = [self._name, f"loss {logs['loss']:.3f}", f"validation {logs['val_loss']:.3f}"]
        if "val_contrastive_accuracy" in logs:
            parts.append(f"accuracy {logs['val_contrastive_accuracy']:.1%}")
        if "val_linear_probe_auroc" in logs:
            parts.append(f"probe's AUROC {logs['val_linear_probe_auroc']:.2f}")
        if "trajectories_per_second" in logs:
            parts.append(f"{logs['trajectories_per_second']:.1f} trajectories/s")
        if logs.get("input_wait_share", 0) > 0.2:
            parts.append(f"{logs['input_wait_share']:.0%} of the time waiting for input")
        if (left := self._epochs - epoch - 1) and "seconds" in logs:
            parts.append(f"{_time(left * logs['seconds'])} left")
        print(", ".join(parts), flush=True)


def _time(seconds: float) -> str:
    return tqdm.format_interval(seconds)
