"""Makes shards as an Apache Beam pipeline, on as many machines as its runner has.

The same shards, byte for byte: each worker writes its own to the data set's folder, which all machines must see under
the same path, and on which tfmmcl must be installed. Source: https://beam.apache.org/documentation/sdks/python/
"""

from __future__ import annotations

import contextlib
import io
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tfmmcl.cohorts.trajectory import Cohort
from tfmmcl.errors import InputError
from tfmmcl.records.shards import SIDECARS, Plan, finished, write_shard
from tfmmcl.records.workers import Executor


def on_beam(runner: str, options: str = "") -> Executor:
    """Returns what makes shards with Beam.

    Args:
        runner: Its name, such as `FlinkRunner`.
        options: The runner's own options as on a command line, such as `--flink_master host:8081`.

    Raises:
        InputError: If Apache Beam is not installed, or the options are wrong.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise InputError(f"--runner {runner}: Apache Beam is not installed; pip install 'tfmmcl[beam]'.") from None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions(shlex.split(options), runner=runner)
            parsed.get_all_options()
    except (SystemExit, ValueError) as error:  # argparse prints what is wrong and exits
        why = (said.getvalue().splitlines() or [str(error)])[-1].rpartition("error: ")[2]
        raise InputError(f"--runner-options {options!r}: {why.rstrip('.')}.") from None

    def execute(cohort: Cohort, plans: Sequence[Plan], folder: Path, advance: Callable[[int], object]) -> None:
        import apache_beam as beam

        for plan in plans:
            _refusal(folder, plan).unlink(missing_ok=True)
        pipeline = beam.Pipeline(options=parsed)
        shards = pipeline | beam.Create(list(plans)) | beam.Reshuffle()
        _ = shards | beam.Map(partial(_work, cohort, str(folder)))
        with _progress(plans, folder, advance):
            job = pipeline.run()
            try:
                job.wait_until_finish()
            except KeyboardInterrupt:
                job.cancel()  # else it would go on without us, wherever it runs
                raise
        for plan in plans:
            if _refusal(folder, plan).exists():
                raise InputError(_refusal(folder, plan).read_text(encoding="utf-8"))

    return execute


def _work(cohort: Cohort, folder: str, plan: Plan) -> None:
    try:
        write_shard(cohort, plan, Path(folder), advance=lambda patients: None)
    except InputError as error:
        # Left for the main process: runners try whatever raises again, and wrap its sentence in pages of their own.
        _refusal(Path(folder), plan).write_text(str(error), encoding="utf-8", errors="backslashreplace")


def _refusal(folder: Path, plan: Plan) -> Path:
    return folder / SIDECARS / f"{plan.file}.refused"


@contextlib.contextmanager
def _progress(plans: Sequence[Plan], folder: Path, advance: Callable[[int], object]) -> Iterator[None]:
    """Advances by a shard's patients when its sidecar appears."""
    left, over = {plan.file: len(plan.patients) for plan in plans}, threading.Event()

    def look() -> None:
        for file in left.keys() & finished(folder):
            advance(left.pop(file))

    def watch() -> None:
        while not over.wait(1):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    look()
