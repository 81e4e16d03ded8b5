"""Early stopping that goes on where it was."""

from __future__ import annotations

from typing import Any

import keras

from tfmmcl.training.checkpoints import Checkpoints, Position


class BestEpoch(keras.callbacks.EarlyStopping):
    """Stops when the validation loss has not been better for some epochs, and restores the best epoch's weights.

    With checkpoints it saves every epoch, the last of the callbacks to see it, and begins as it was at a position.

    Args:
        patience: Epochs without a better validation loss.
        checkpoints: Where epochs are saved, or None.
        start: Where training goes on.
    """

    def __init__(self, patience: int, checkpoints: Checkpoints | None, start: Position) -> None:
        super().__init__("val_loss", patience=patience, mode="min", restore_best_weights=True)
        self._checkpoints = checkpoints
        self._start = start

    def ended(self) -> bool:
        """Returns whether training had stopped early at the position."""
        return bool((self._start.logs or {}).get("stopped", False))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begins anew, or as it was."""
        super().on_train_begin(logs)
        if self._checkpoints is None or not self._start.logs:
            return
        before = self._start.logs
        self.best, self.best_epoch, self.wait = before["best"], int(before["best_epoch"]), int(before["wait"])
        self.model.load_weights(self._checkpoints.weights(self.best_epoch + 1))
        self.best_weights = self.model.get_weights()
        self.model.load_weights(self._checkpoints.weights(self._start.epoch))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Decides, and saves."""
        super().on_epoch_end(epoch, logs)
        if self._checkpoints is not None:
            state = {"best": float(self.best), "best_epoch": self.best_epoch, "wait": self.wait}
            state["stopped"] = self.model.stop_training
            self._checkpoints.save(self.model, epoch + 1, 0, state, keep=2, also=self.best_epoch + 1)
