"""The settings as TensorBoard's HParams page shows them: one column each, beside what they led to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from tensorboard.plugins.hparams import api

_NOT_SHOWN = ("data.path", "data.cohort", "data.cache", "watching")


def write_settings(settings: BaseModel) -> None:
    """Writes the settings with the writer in use, whose scalars then stand beside them.

    Which columns and figures there are is not declared: TensorBoard then finds out itself, over all runs, and shows the
    settings first in which they differ.
    """
    api.hparams(flat(settings))


def flat(settings: BaseModel) -> dict[str, bool | int | float | str]:
    """Returns each setting by its dotted name; where data are and what is watched makes no run another."""
    found = dict(_leaves(settings.model_dump(mode="json")))
    return {name: value for name, value in found.items() if not name.startswith(_NOT_SHOWN)}


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, bool | int | float | str) else str(value or "none")
