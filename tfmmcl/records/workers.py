"""Where shards are made: in this process, or in several on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

from tfmmcl.cohorts.trajectory import Cohort
from tfmmcl.errors import InputError
from tfmmcl.records.shards import Plan, write_shard


class WorkerKilledError(InputError):
    """The system ended a worker, most likely for its memory; the data are not to blame."""


class Executor(Protocol):
    """Makes shards, each with `write_shard`, anywhere."""

    def __call__(self, cohort: Cohort, plans: Sequence[Plan], folder: Path, advance: Callable[[int], object]) -> object:
        """Writes the planned shards to the folder.

        Args:
            cohort: The trajectories.
            plans: The shards, at least one.
            folder: Where they go; whoever writes them must see it.
            advance: Called with the number of patients done since it was last called.

        Raises:
            InputError: If a trajectory is wrong.
            WorkerKilledError: If the system ended a worker.
        """
        ...


def on_this_machine(workers: int) -> Executor:
    """Returns what makes shards in so many processes; one is this process."""

    def execute(cohort: Cohort, plans: Sequence[Plan], folder: Path, advance: Callable[[int], object]) -> None:
        if workers == 1:
            for plan in plans:
                write_shard(cohort, plan, folder, advance)
        else:
            _in_processes(min(workers, len(plans)), cohort, plans, folder, advance)

    return execute


def _in_processes(
    workers: int, cohort: Cohort, plans: Sequence[Plan], folder: Path, advance: Callable[[int], object]
) -> None:
    # Spawned, not forked: the caller may hold threads (TensorFlow does), which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    shown = 0
    with ProcessPoolExecutor(
        workers, context, initializer=_start_worker, initargs=(cohort, folder, done, stop)
    ) as pool:
        try:
            with _interrupts_held():
                pending = {pool.submit(_work, plan) for plan in plans}
            while pending:
                finished, pending = wait(pending, timeout=0.25, return_when=FIRST_EXCEPTION)
                now = done.value
                advance(now - shown)
                shown = now
                for future in finished:
                    future.result()  # raises what its shard ran into, without waiting for the others
        except BrokenProcessPool:
            raise WorkerKilledError(
                "a preparation worker was killed (out of memory?); the same command continues, with fewer --workers "
                "if need be."
            ) from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Puts Ctrl-C and termination off to the end; amid the start of a worker they leave it waiting for its orders."""
    caught: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, lambda number, _: caught.append(number))
    # Workers inherit the mask, so that Ctrl-C does not end one in its imports, with a traceback.
    masked = hasattr(signal, "pthread_sigmask")  # not on Windows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masked else None
    try:
        yield
    finally:
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if caught:
        signal.raise_signal(caught[0])


_worker: dict[str, Any] = {}


def _start_worker(cohort: Cohort, folder: Path, done: Any, stop: Any) -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides, through `stop`.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(cohort=cohort, folder=folder, done=done, stop=stop)


def _end_with_parent() -> None:
    # A parent that is killed cannot say so, and its workers would go on writing beside those of the next run.
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(plan: Plan) -> None:
    def advance(patients: int) -> None:
        if _worker["stop"].is_set():
            raise KeyboardInterrupt
        with _worker["done"].get_lock():
            _worker["done"].value += patients

    write_shard(_worker["cohort"], plan, _worker["folder"], advance)
