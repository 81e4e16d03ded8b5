"""The files of TensorBoard's embedding projector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfmmcl.cohorts.trajectory import Spec, Task
from tfmmcl.training.run_directory import write_complete
from tfmmcl.training.watching.frozen import Embedded

CONFIG = """embeddings {
  tensor_name: "trajectories"
  tensor_path: "embeddings.tsv"
  metadata_path: "metadata.tsv"
}
"""


def write_projection(folder: Path, spec: Spec, splits: Mapping[str, Embedded]) -> None:
    """Writes embeddings with split, ids and labels of each, over those of the epoch before.

    Every number takes as many characters as any other: the files keep their sizes, by which a run that goes on after
    an interrupt knows them.

    Args:
        folder: A folder with event files, or the projector does not see it.
        spec: Has the tasks.
        splits: Split → its trajectories.
    """
    rows = np.concatenate([item.embeddings for item in splits.values()])
    header = ["split", "trajectory", "patient", *(task.name for task in spec.tasks)]
    table = [header]
    for split, item in splits.items():
        columns = ([_label(task, label) for label in item.labels[task.name]] for task in spec.tasks)
        table += [[split, *row] for row in zip(item.trajectories, item.patients, *columns)]
    lines = "".join("\t".join(map(_one_cell, row)) + "\n" for row in table)
    write_complete(folder / "embeddings.tsv", lambda path: np.savetxt(path, rows, "%+.5e", "\t"))
    write_complete(folder / "metadata.tsv", lambda path: path.write_text(lines, encoding="utf-8"))
    write_complete(folder / "projector_config.pbtxt", lambda path: path.write_text(CONFIG, encoding="utf-8"))


def _label(task: Task, label: float) -> str:
    if np.isnan(label):
        return "none"
    return task.classes[int(label)] if task.classes else f"{label:g}"


def _one_cell(text: str) -> str:
    return " ".join(text.split()) or "–"
