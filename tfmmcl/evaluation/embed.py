"""An exported model's outputs for many trajectories, as one Parquet file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from tfmmcl.errors import InputError
from tfmmcl.evaluation.parts import Parts
from tfmmcl.evaluation.served import Served
from tfmmcl.evaluation.sources import Batch, Source

PART_SECONDS, PART_ROWS = 30.0, 8192
"""After how long, or how many trajectories, what was computed is put on the disk: the work that a kill can cost."""


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Attributes:
        trajectories: Rows of the file.
        before: Rows that an earlier run had made already.
        seconds: What the others took.
        outputs: Name → type of each of the model's outputs.
    """

    trajectories: int
    before: int
    seconds: float
    outputs: dict[str, pl.DataType]


def embed(model: Served, source: Source, out: str | Path, *, batch_size: int = 64) -> Embedded:
    """Runs a model over a source and writes a Parquet file, with a progress bar; what is held in memory is bounded.

    The file has a row per trajectory in the source's order: `trajectory`, `patient`, `split`, each label as
    `task/NAME` (null where there is none), and each of the model's outputs under its name: `(B, D)` as float32 arrays
    of D numbers, `(B,)` as float32 numbers. It appears when it is complete. What an interrupted or failed run has made
    lies in a hidden folder beside it, and the same call goes on from there, to the same file.

    Args:
        model: The model.
        source: The trajectories.
        out: The file.
        batch_size: Trajectories at once. Default 64.

    Raises:
        InputError: If `out` exists, or the source has no trajectories or is damaged.
    """
    # Another batch size rounds otherwise.
    parts = Parts(Path(out), " ".join([model.fingerprint(), source.key, str(batch_size)]))
    with parts.opened():
        began, before = time.perf_counter(), parts.rows
        _fill(parts, model, source, batch_size)
        if not parts.rows:
            raise InputError(f"{out}: there are no trajectories to embed; expected at least one.")
        parts.publish()
    schema = pl.read_parquet_schema(out)
    outputs = {name: kind for name, kind in schema.items() if name in model.outputs}
    return Embedded(parts.rows, before, time.perf_counter() - began, outputs)


def _fill(parts: Parts, model: Served, source: Source, batch_size: int) -> None:
    """Adds parts until the source has no more; what is computed when it fails is added too."""
    done: list[tuple[Batch, dict[str, np.ndarray]]] = []
    rows, last = 0, time.monotonic()

    def flush() -> None:
        nonlocal rows, last
        if done:
            parts.add(pl.concat([_frame(*item) for item in done]), done[-1][0].mark)
        done.clear()
        rows, last = 0, time.monotonic()

    with tqdm(
        total=source.total, initial=parts.rows, desc="embedding", unit=" trajectories", mininterval=0.5, disable=None
    ) as bar:
        try:
            for batch in source.batches(model.inputs, batch_size, parts.rows, parts.mark):
                done.append((batch._replace(inputs={}), model(batch.inputs)))
                count = len(batch.columns["trajectory"])
                rows += count
                bar.update(count)
                if rows >= PART_ROWS or time.monotonic() - last >= PART_SECONDS:
                    flush()
        finally:
            flush()


def _frame(batch: Batch, outputs: dict[str, np.ndarray]) -> pl.DataFrame:
    values = {name: pl.Series(values) for name, values in sorted(outputs.items())}
    return pl.DataFrame({**batch.columns, **values})
