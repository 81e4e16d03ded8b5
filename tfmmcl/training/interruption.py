"""Ctrl-C and termination during training: the first asks to stop after the step, the second ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Stop:
    """Whether somebody has asked to stop.

    Attributes:
        signal: What arrived first, or None.
    """

    signal: int | None = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Notes SIGINT and SIGTERM while inside, instead of interrupting whatever runs; the second one ends the process.

    Python hears of a signal between two of its instructions, a step or a compilation late. The second has to work at
    once, so a thread reads what the C level writes to a pipe.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, _: object) -> None:
        if stop.signal is None:
            stop.signal = number
            print("stopping after this step; again to end at once", file=sys.stderr, flush=True)

    def end_at_the_second() -> None:
        heard = 0
        while numbers := os.read(reading, 16):
            heard += sum(number in (signal.SIGINT, signal.SIGTERM) for number in numbers)
            if heard > 1:
                os._exit(128 + numbers[-1])

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handlers = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=end_at_the_second, daemon=True).start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the thread
