"""The settings as TensorBoard's HParams page shows them: one column each, beside what they led to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from tensorboard.plugins.hparams import api

from tfmmcl.training.watching.scalars import SCALARS

_NOT_SHOWN = ("data.path", "data.cohort", "data.cache", "watching")
_ORDER = ("optimizer", "objective", "data", "training", "augmentation", "encoder", "seed")
_RESULTS = ("loss", "contrastive_accuracy", "effective_rank", "linear_probe_auroc", "knn_auroc")


def write_settings(settings: BaseModel) -> None:
    """Writes the settings, and which validation figures stand beside them, with the writer in use.

    The writer's folder has to be the one above the `validation` run's.
    """
    columns = sorted(flat(settings).items(), key=lambda item: _ORDER.index(item[0].split(".")[0]))
    names = {name: name.replace("_", " ") for name in _RESULTS}
    metrics = [api.Metric(SCALARS[name].tag, "validation", f"validation {shown}") for name, shown in names.items()]
    api.hparams_config([api.HParam(name) for name, _ in columns], metrics)
    api.hparams(dict(columns))


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
