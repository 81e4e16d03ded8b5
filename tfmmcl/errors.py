"""Exceptions that commands turn into one sentence and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong: one sentence saying where, what was found and what was expected.

    Args:
        sentences: One, or one for each problem, a line each. Line ends in what they quote of a file become spaces.
    """

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(" ".join(sentence.splitlines()) for sentence in sentences))


class TrainingError(RuntimeError):
    """Training cannot go on: one sentence saying where and why."""


class InterruptedTraining(Exception):  # noqa: N818  # it is not an error
    """Training was asked to stop and has saved where it stood: one sentence that says so.

    Args:
        sentence: Where, and how to go on.
        signal: The signal that asked.
    """

    def __init__(self, sentence: str, signal: int) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + signal


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `"; did you mean 'x'?"` for the known name nearest to `name`, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""
