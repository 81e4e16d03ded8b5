"""Checkpoints: all that a run needs to go on as if it had never stopped, in the middle of an epoch too."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from tfmmcl.errors import InputError
from tfmmcl.files import reserve, sha256
from tfmmcl.training.run_directory import RunDirectory, write_complete


@dataclass(frozen=True)
class Position:
    """Where a run stood.

    Attributes:
        epoch: The epoch that it was in, from 0.
        step: How many of the epoch's steps were done; if all of them, only its validation was not.
        logs: The epoch's figures over those steps.
        means: State of the running means over those steps.
        sizes: Bytes of each file that grows, by its path in the run's folder.
        sha256: Of the weights' file.
    """

    epoch: int = 0
    step: int = 0
    logs: dict[str, float] | None = None
    means: list[float] | None = None
    sizes: dict[str, int] | None = None
    sha256: str = ""


BEGINNING = Position()


class Checkpoints:
    """A run's checkpoints: weights and optimizer in one file, and the position in another beside it.

    The position is written last, and has the digest of the weights: a checkpoint is there whole or not at all.

    Args:
        run: The run.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    def save(
        self, model: keras.Model, epoch: int, step: int, logs: dict[str, float], keep: int, also: int | None = None
    ) -> None:
        """Saves a model at a position, and removes all but the newest checkpoints.

        Args:
            model: The model, its optimizer included.
            epoch: The epoch it is in, from 0.
            step: How many of the epoch's steps are done.
            logs: The epoch's figures so far.
            keep: How many checkpoints there may be.
            also: An epoch whose end is kept beside them. Default: none.
        """
        name = self.run.checkpoints / _name(epoch, step)
        weights = self.weights(epoch, step)
        write_complete(weights, lambda path: _save_weights(model, path))
        files = {str(file.relative_to(self.run.path)): file.stat().st_size for file in self._growing()}
        position = Position(
            epoch, step, {key: float(value) for key, value in logs.items()}, _means(model), files, sha256(weights)
        )
        text = json.dumps(asdict(position), indent=1) + "\n"
        write_complete(name.with_name(f"{name.name}.json"), lambda path: path.write_text(text, encoding="utf-8"))
        for old in self.positions()[keep:]:
            if also is None or old.name != f"{_name(also, 0)}.json":
                old.unlink()
                _weights_of(old).unlink(missing_ok=True)

    def weights(self, epoch: int, step: int = 0) -> Path:
        """Returns the weights' file of a position."""
        return self.run.checkpoints / f"{_name(epoch, step)}.weights.h5"

    def positions(self) -> list[Path]:
        """Returns the files of the positions, newest first."""
        return sorted(self.run.checkpoints.glob("epoch-*-step-*.json"), reverse=True)

    def newest(self) -> Position:
        """Returns the position of the newest checkpoint that is sound; without any, the beginning.

        Raises:
            InputError: If there are checkpoints, and all of them are damaged.
        """
        problems = []
        for file in self.positions():
            weights = _weights_of(file)
            try:
                position = Position(**json.loads(file.read_text(encoding="utf-8")))
                if sha256(weights) != position.sha256:
                    raise ValueError("its checksum is not the one in the .json beside it")
            except (OSError, ValueError, TypeError) as error:
                problems.append(f"{weights}: is damaged ({str(error).splitlines()[0]})")
                continue
            if problems:
                print(f"warning: {problems[0]}; going on from {weights.name}", file=sys.stderr, flush=True)
            return position
        if problems:
            raise InputError(f"{problems[0]}, and there is no other; expected a checkpoint to resume from.")
        return BEGINNING

    def load(self, model: keras.Model, position: Position) -> None:
        """Loads weights and optimizer as they were at a position; at the beginning there are none."""
        if position == BEGINNING:
            return
        weights = self.weights(position.epoch, position.step)
        try:
            model.load_weights(weights)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{weights}: does not fit the network of these settings ({str(error).splitlines()[0]})."
            ) from None

    def rewind(self, position: Position) -> None:
        """Takes back what was written after a position: history, TensorBoard, and checkpoints, which are damaged."""
        here = f"{_name(position.epoch, position.step)}."
        for file in list(self.run.checkpoints.glob("epoch-*-step-*")):
            if position == BEGINNING or not (file.name.startswith(here) or file.name < here):
                file.unlink()
        for file in list(self._growing()):
            size = (position.sizes or {}).get(str(file.relative_to(self.run.path)))
            if size is None:
                file.unlink()
            else:
                os.truncate(file, size)

    def _growing(self) -> Iterator[Path]:
        if self.run.history.exists():
            yield self.run.history
        yield from (path for path in self.run.tensorboard.rglob("*") if path.is_file())


def _save_weights(model: keras.Model, path: Path) -> None:
    # HDF5 may crash where the disk is full; Python does not. It adds some kilobytes to each array.
    variables = [*model.variables, *model.optimizer.variables]
    reserve(path, sum(4 * math.prod(item.shape) + 4096 for item in variables))
    model.save_weights(path)


def set_means(model: keras.Model, position: Position) -> None:
    """Brings a model's running means to where they were; Keras resets them when an epoch begins."""
    for variable, value in zip(_mean_variables(model), position.means or []):
        variable.assign(value)


def _means(model: keras.Model) -> list[float]:
    return [float(variable.numpy()) for variable in _mean_variables(model)]


def _mean_variables(model: keras.Model) -> list[keras.Variable]:
    return [variable for metric in model.metrics for variable in metric.variables]


def _name(epoch: int, step: int) -> str:
    return f"epoch-{epoch:05d}-step-{step:06d}"


def _weights_of(position: Path) -> Path:
    return position.with_suffix(".weights.h5")
