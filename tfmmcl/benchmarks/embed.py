"""`tools/embed.py`'s work, from shards to a Parquet file, against `model.predict` on the same batches in memory."""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from tfmmcl.benchmarks.contest import Entry, contest, times_as_fast
from tfmmcl.benchmarks.table import print_table, with_machine
from tfmmcl.cohorts.catalog import load_cohort, make_cohort
from tfmmcl.config import load
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.writer import write_dataset
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.run_directory import RunDirectory


def run(
    config: str | Path, overrides: Sequence[str] = (), trajectories: int = 10_000, rounds: int = 5
) -> dict[str, Any]:
    """Measures both in turn; prints as it goes.

    Args:
        config: Settings file whose `data.cohort` is a synthetic cohort; its encoder is not trained.
        overrides: Dotted `key=value` assignments; `data.batch_size` is the batches'.
        trajectories: About how many are embedded.
        rounds: Measurements of each.

    Returns:
        Every figure printed, by name.
    """
    settings = load(config, PretrainSettings, overrides)
    cohort = load_cohort(Path(config).parent / str(settings.data.cohort))
    patients = math.ceil(trajectories / cohort.trajectories_per_patient)
    cohort = cohort.model_copy(update={"patients": patients})
    with tempfile.TemporaryDirectory(prefix="tfmmcl-benchmark-") as folder:
        data = write_dataset(make_cohort(cohort), cohort, Path(folder) / "data")
        place = settings.data.model_copy(update={"path": str(data.path), "cohort": None})
        settings = settings.model_copy(update={"data": place})
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(_make_run, settings, Path(folder) / "run").result()
        arguments = (Path(folder) / "run",)
        entries = [Entry("embed", _Embed, arguments), Entry("model.predict", _Predict, arguments)]
        ours, peer = contest(entries, rounds, f"batch {settings.data.batch_size}")
    for outcome in (ours, peer):
        if outcome.failure:
            raise RuntimeError(outcome.failure)
    rows = [{"name": item.name, "facts": item.facts, "seconds": item.each("seconds")} for item in (ours, peer)]
    count = sum(split.trajectories for split in data.manifest.splits.values())
    print_table(
        (f"{count:,} trajectories, batch {settings.data.batch_size}", "trajectories/s", "best"),
        [[row["name"], f"{1 / median(row['seconds']):,.0f}", f"{1 / min(row['seconds']):,.0f}"] for row in rows],
    )
    ratio = times_as_fast(ours, peer)
    print(f"embed / model.predict: {ratio:.2f}× as fast")
    figures = {"benchmark": "embed", "trajectories": count, "batch": settings.data.batch_size, "rows": rows}
    return with_machine({**figures, "times_as_fast": ratio})


def _make_run(settings: PretrainSettings, path: Path) -> None:
    """Makes the folder of a run whose encoder was not trained."""
    from tfmmcl.export import export_run
    from tfmmcl.training.pretrain import build_pretrainer, float32_encoder

    data, directory = DataSet.open(settings.data.path), RunDirectory(path)
    directory.start(settings)
    float32_encoder(settings, data, build_pretrainer(settings, data).encoder).save(directory.encoder)
    export_run(directory)


class _Embed:
    """Ours: reads shards, makes physical units of them, embeds and writes the file."""

    def __init__(self, run: Path) -> None:
        from tfmmcl.evaluation.served import Served
        from tfmmcl.evaluation.sources import DataSetSource

        settings = RunDirectory(run).load_settings()
        self._model = Served(RunDirectory(run).saved_model)
        self._source = DataSetSource(DataSet.open(settings.data.path))
        self._batch_size, self._out = settings.data.batch_size, run.with_name("embeddings.parquet")

    def start(self) -> dict[str, Any]:
        """Does it once."""
        self.measure()
        return {"bytes": self._size}

    def measure(self) -> dict[str, float]:
        """Returns the `seconds` of one trajectory."""
        from tfmmcl.evaluation.embed import embed

        began = time.perf_counter()
        embed(self._model, self._source, self._out, batch_size=self._batch_size)
        seconds = time.perf_counter() - began
        self._size = self._out.stat().st_size
        self._out.unlink()
        return {"seconds": seconds / self._source.total}


class _Predict:
    """Keras's `predict` of the encoder alone, on inputs that are ready in memory."""

    def __init__(self, run: Path) -> None:
        import tensorflow as tf

        from tfmmcl.cohorts.splits import SPLITS
        from tfmmcl.models.loading import load_model
        from tfmmcl.pipeline.batches import Batches

        settings = RunDirectory(run).load_settings()
        batches = Batches(DataSet.open(settings.data.path), settings)
        views = [view for split in SPLITS for _, view in batches.plain(split).batch(settings.data.batch_size)]
        self._inputs = {name: tf.concat([view[name] for view in views], axis=0).numpy() for name in views[0]}
        self._batch_size, self._encoder = settings.data.batch_size, load_model(RunDirectory(run).encoder)

    def start(self) -> dict[str, Any]:
        """Does it once."""
        self.measure()
        return {}

    def measure(self) -> dict[str, float]:
        """Returns the `seconds` of one trajectory."""
        began = time.perf_counter()
        found = self._encoder.predict(self._inputs, batch_size=self._batch_size, verbose=0)
        return {"seconds": (time.perf_counter() - began) / len(found)}
