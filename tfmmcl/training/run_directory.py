"""The files of a run on disk: what is written where, and never half-written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.config import Settings, dump, load, read_yaml
from tfmmcl.errors import InputError
from tfmmcl.files import LOCK
from tfmmcl.finetune_settings import FinetuneSettings
from tfmmcl.settings import PretrainSettings

if TYPE_CHECKING:
    from typing_extensions import Self


class RunDirectory:
    """A pre-training run's folder.

    Args:
        path: The folder; made by `start`.
    """

    _instead = "a new folder, or --resume to continue that run"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.tensorboard = self.path / "tensorboard"
        self.history = self.path / "history.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.encoder = self.path / "encoder.keras"
        self.saved_model = self.path / "saved_model"
        self.result = self.path / "result.json"

    @classmethod
    def next(cls, name: str, parent: str | Path = "runs") -> Self:
        """Returns the first of `parent/name-001`, `parent/name-002`, … that does not exist."""
        number = 1
        while (path := Path(parent) / f"{name}-{number:03d}").exists():
            number += 1
        return cls(path)

    def check_new(self) -> None:
        """Raises `InputError` if the folder holds anything."""
        if self.path.exists() and (not self.path.is_dir() or any(file.name != LOCK for file in self.path.iterdir())):
            raise InputError(f"{self.path}: already exists; expected {self._instead}.")

    def start(self, settings: PretrainSettings) -> None:
        """Makes the folder and writes the settings; raises `InputError` if it holds anything."""
        self.check_new()
        self.checkpoints.mkdir(parents=True)
        self.write_settings(settings)

    def write_settings(self, settings: Settings) -> None:
        """Writes `config.yaml`."""
        write_complete(self.config, lambda path: path.write_text(dump(settings), encoding="utf-8"))

    def load_settings(self) -> PretrainSettings:
        """Returns the settings that the run was started with; raises `InputError` if it was not started."""
        if not self.config.is_file():
            raise InputError(f"{self.path}: holds no run (no config.yaml); expected a folder that pretrain.py made.")
        return load(self.config, PretrainSettings)

    def load_spec(self) -> Spec:
        """Returns the spec of the data set that a finished run was trained on."""
        try:
            return Spec.model_validate(json.loads(self.result.read_text(encoding="utf-8"))["data"]["spec"])
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"{self.result}: does not say which features the run was trained on, expected data.spec in it; "
                "that run can be used on its own data set only."
            ) from None

    def append_history(self, epoch: dict[str, Any]) -> None:
        """Adds a line to `history.jsonl`."""
        with open(self.history, "a", encoding="utf-8") as file:
            file.write(json.dumps(epoch, allow_nan=False) + "\n")

    def read_history(self) -> list[dict[str, Any]]:
        """Returns the lines of `history.jsonl`."""
        return [json.loads(line) for line in self.history.read_text(encoding="utf-8").splitlines()]

    def completed_epochs(self) -> int:
        """Returns the epochs that the run had when it was last complete, by `result.json`; 0 if it never was."""
        return json.loads(self.result.read_text(encoding="utf-8"))["epochs"] if self.result.exists() else 0

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes `result.json`."""
        text = json.dumps(result, indent=1, allow_nan=False) + "\n"
        write_complete(self.result, lambda path: path.write_text(text, encoding="utf-8"))


class FinetuneDirectory(RunDirectory):
    """A fine-tuning run's folder; it has a model and predictions where the other has an encoder and checkpoints.

    Args:
        path: The folder; made by `start`.
    """

    _instead = "a new folder, or --resume to continue that run"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.model = self.path / "model.keras"
        self.predictions = self.path / "predictions.npz"

    def start(self, settings: FinetuneSettings) -> None:
        """Makes the folder and writes the settings; raises `InputError` if it holds anything."""
        self.check_new()
        self.checkpoints.mkdir(parents=True)
        self.write_settings(settings)

    def load_settings(self) -> FinetuneSettings:
        """Returns the settings that the run was started with; raises `InputError` if it was not started."""
        if not self.config.is_file():
            raise InputError(f"{self.path}: holds no run (no config.yaml); expected a folder that finetune.py made.")
        return load(self.config, FinetuneSettings)

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes `result.json`, and removes the checkpoints, which nobody needs any more."""
        super().write_result(result)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def load_predictions(self) -> dict[str, np.ndarray]:
        """Returns a row for each labelled trajectory: `split`, `trajectory`, `patient`, `label` and `prediction`."""
        with np.load(self.predictions, allow_pickle=False) as rows:
            return dict(rows)


def open_run(path: str | Path) -> RunDirectory | FinetuneDirectory:
    """Returns the run in a folder, of pre-training or fine-tuning; raises `InputError` if its settings are wrong."""
    run = RunDirectory(path)
    if run.config.is_file() and "task" in read_yaml(run.config):
        run = FinetuneDirectory(path)
    run.load_settings()
    return run


def write_complete(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary name beside `path` and renames the file or folder into place when it returns."""
    # The suffix stays: Keras chooses the format by it.
    partial = path.with_name(f".partial-{path.name}")
    _remove(partial)
    try:
        write(partial)
        _flush(partial)
        if path.is_dir():
            _remove(path)
        os.replace(partial, path)
    finally:
        _remove(partial)


def _flush(path: Path) -> None:
    """Has the disk take a file, so that a crash after the renaming leaves no empty one."""
    if path.is_file():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
