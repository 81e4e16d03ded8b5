"""What the encoder has learned so far, after each epoch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmmcl.cohorts.trajectory import Spec, Task
from tfmmcl.settings import WatchingSettings
from tfmmcl.training.watching.board import TensorBoard
from tfmmcl.training.watching.frozen import FrozenEncoder
from tfmmcl.training.watching.probes import effective_rank, probe
from tfmmcl.training.watching.projector import write_projection
from tfmmcl.training.watching.similarity import draw_similarity

Logs = dict[str, Any]


class Representation(keras.callbacks.Callback):
    """Adds effective rank and probes of the frozen embeddings to the epoch's logs, and shows them in TensorBoard.

    Args:
        encoder: Embeds.
        spec: Names the tasks.
        task: What is probed, or None.
        board: Where pictures and the projector's files go.
        settings: How often pictures are drawn.
    """

    def __init__(
        self, encoder: FrozenEncoder, spec: Spec, task: Task | None, board: TensorBoard, settings: WatchingSettings
    ) -> None:
        super().__init__()
        self._encoder, self._spec, self._task = encoder, spec, task
        self._board, self._settings = board, settings

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Embeds, probes and draws."""
        found = self._encoder.embed()
        if not all(np.isfinite(item.embeddings).all() for item in found.values()):
            return
        figures = {}
        if "validation" in found:
            figures["effective_rank"] = effective_rank(found["validation"].embeddings)
        if self._task and len(found) == 2:
            parts = (
                (found[split].embeddings, found[split].labels[self._task.name]) for split in ("train", "validation")
            )
            figures |= probe(self._task, *(array for part in parts for array in part))
        logs |= {f"val_{name}": value for name, value in figures.items()}
        if found:
            write_projection(self._board.folder, self._spec, found)
        if (epoch + 1) % self._settings.every == 0:
            picture = draw_similarity(self._encoder.similarity())
            with self._board.whole.as_default():
                name = "pictures/similarity of views, validation"
                tf.summary.image(name, tf.io.decode_png(picture)[tf.newaxis], epoch + 1)
