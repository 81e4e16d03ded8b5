"""What TensorBoard shows of a run that has just begun: settings, network, and a trajectory with its views."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmmcl.config import dump
from tfmmcl.pipeline.batches import Batches
from tfmmcl.pipeline.views import trajectory_key
from tfmmcl.training.watching.board import TensorBoard
from tfmmcl.training.watching.frozen import FrozenEncoder
from tfmmcl.training.watching.hparams import write_settings
from tfmmcl.training.watching.trajectory import draw_views

Logs = dict[str, Any]


class Introduction(keras.callbacks.Callback):
    """Writes settings before the first step, and after it, so as not to keep it waiting, graph and picture.

    Args:
        board: Where they are written.
        batches: The run's pipeline.
        encoder: Has the graph.
    """

    def __init__(self, board: TensorBoard, batches: Batches, encoder: FrozenEncoder) -> None:
        super().__init__()
        self._board, self._batches, self._encoder = board, batches, encoder
        self._done = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Writes the settings."""
        settings = self._batches.settings
        with self._board.whole.as_default(step=0):
            tf.summary.text("settings", f"```yaml\n{dump(settings)}```")
        with self._board.writer("validation").as_default(step=0):
            write_settings(settings)
        self._board.flush()

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Draws, once."""
        if self._done:
            return
        self._done = True
        with self._board.whole.as_default(step=0):
            tf.summary.graph(self._encoder.forward.get_concrete_function().graph)
            tf.summary.image("pictures/a trajectory and its two views", tf.io.decode_png(self._draw())[tf.newaxis])
        self._board.flush()

    def _draw(self) -> bytes:
        batches = self._batches
        example, plain = next(iter(batches.plain("train")))
        key = trajectory_key(batches.settings.seed, 0, example["trajectory"])
        views = [plain, *batches.views.augmented(example, key)]
        names = ("first segment, as it is", "view 1", "view 2")
        arrays = [{key: value.numpy() for key, value in view.items()} for view in views]
        title = f"trajectory {example['trajectory'].numpy().decode('utf-8', 'replace')}"
        if batches.reads_signals:
            title += ", signals of its last window (grey: masked or missing)"
        return draw_views(batches.data.spec, batches.data.statistics, list(zip(names, arrays)), title)
