"""Contenders that take turns, each in a process of its own, so that none has another's memory or threads."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from tqdm import tqdm

from tfmmcl.errors import InputError


class Contender(Protocol):
    """What is measured."""

    def start(self) -> dict[str, Any]:
        """Does the work for the first time; returns what is known once."""
        ...

    def measure(self) -> dict[str, float]:
        """Does the work again; returns what is measured each time."""
        ...


@dataclass(frozen=True)
class Entry:
    """A contender before it exists.

    Attributes:
        name: What tables call it.
        make: Makes it, in its own process: a module's function, which imports what it needs when it is called.
        arguments: What `make` is called with; they are pickled.
    """

    name: str
    make: Callable[..., Contender]
    arguments: tuple[Any, ...]


@dataclass
class Outcome:
    """What became of a contender.

    Attributes:
        name: The entry's.
        facts: What `start` returned.
        rounds: What `measure` returned, round by round.
        failure: Why it did not finish, in a sentence; None if it did.
    """

    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)
    failure: str | None = None

    def each(self, key: str) -> list[float]:
        """Returns one measurement of all rounds."""
        return [measured[key] for measured in self.rounds]


class _FailedError(Exception):
    """A contender's exception, as a sentence: those of frameworks do not all survive pickling."""


def contest(entries: Sequence[Entry], rounds: int, label: str) -> list[Outcome]:
    """Starts every contender, then has all of them measured once in each round, in turn.

    One that fails, for want of memory say, takes no further part and the others go on.

    Args:
        entries: Who takes part.
        rounds: Measurements of each.
        label: What the progress bar on standard error says.

    Raises:
        InputError: If a contender finds something wrong in what the user gave.
    """
    outcomes = [Outcome(entry.name) for entry in entries]
    with ExitStack() as stack, tqdm(total=len(entries) * (rounds + 1), desc=label, disable=None, leave=False) as bar:
        spawn = multiprocessing.get_context("spawn")
        pools = [stack.enter_context(ProcessPoolExecutor(1, spawn)) for _ in entries]
        for entry, outcome, pool in zip(entries, outcomes, pools):
            bar.set_postfix_str(f"starting {entry.name}")
            outcome.facts = _ask(pool, outcome, _start, entry) or {}
            bar.update()
        for _ in range(rounds):
            for outcome, pool in zip(outcomes, pools):
                bar.set_postfix_str(outcome.name)
                if outcome.failure is None and (measured := _ask(pool, outcome, _measure)):
                    outcome.rounds.append(measured)
                bar.update()
    return outcomes


def times_as_fast(ours: Outcome, peer: Outcome, key: str = "seconds", peer_key: str = "seconds") -> float:
    """Returns the median over rounds of the peer's time over ours, each ratio taken within one round."""
    return median(theirs / mine for mine, theirs in zip(ours.each(key), peer.each(peer_key)))


def _ask(pool: ProcessPoolExecutor, outcome: Outcome, function: Callable, *arguments: Any) -> dict[str, Any] | None:
    try:
        return pool.submit(function, *arguments).result()
    except _FailedError as error:
        outcome.failure = str(error)
    except BrokenProcessPool:
        outcome.failure = "its process was killed, most likely for want of memory"
    return None


_contender: Contender
"""The one that this process has."""


def _start(entry: Entry) -> dict[str, Any]:
    def start() -> dict[str, Any]:
        global _contender
        _contender = entry.make(*entry.arguments)
        return _contender.start()

    return _in_a_sentence(start)


def _measure() -> dict[str, float]:
    return _in_a_sentence(_contender.measure)


def _in_a_sentence(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return call()
    except InputError:
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise _FailedError(f"{type(error).__name__}: {first[:200]}") from None
