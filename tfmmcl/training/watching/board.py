"""TensorBoard's files: scalars by group, with chance as a line of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfmmcl.training.watching.scalars import CHANCE, RUNNING_LOSS, scalar

Logs = dict[str, Any]


class TensorBoard(keras.callbacks.Callback):
    """Writes scalars to `train`, `validation` and `chance`, so that they are drawn in one chart.

    What belongs to no split (settings, graph, pictures) goes to the folder itself, by `whole`.

    Args:
        folder: The run's TensorBoard folder.
        chance: Run → figure → what a random network scores. Default: none are drawn.
    """

    def __init__(self, folder: Path, chance: Mapping[str, Mapping[str, float]] | None = None) -> None:
        super().__init__()
        self.folder = folder
        self._chance = chance or {}
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self.whole = self.writer("")

    def writer(self, run: str) -> tf.summary.SummaryWriter:
        """Returns the writer of a run, as TensorBoard calls a folder below this one."""
        if run not in self._writers:
            self._writers[run] = tf.summary.create_file_writer(str(self.folder / run))
        return self._writers[run]

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Writes the epoch's running loss at every step."""
        with self.writer("train").as_default():
            step = self.model.optimizer.iterations.numpy()
            tf.summary.scalar(RUNNING_LOSS.tag, logs["loss"], step, RUNNING_LOSS.description)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Writes the epoch's scalars."""
        names = {key.removeprefix("val_") for key in logs}
        for key, value in logs.items():
            name = key.removeprefix("val_")
            self._write("train" if name == key else "validation", name, value, epoch + 1)
        for run, levels in self._chance.items():
            for name, level in {**CHANCE, **levels}.items():
                if name in names:
                    self._write(run, name, level, epoch + 1)
        self.flush()

    def _write(self, run: str, name: str, value: float, step: int) -> None:
        chart = scalar(name)
        with self.writer(run).as_default():
            tf.summary.scalar(chart.tag, value, step, chart.description)

    def flush(self) -> None:
        """Brings everything to disk."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
