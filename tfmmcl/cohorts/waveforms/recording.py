"""What the readers of waveforms share: records, channels, and which recorded signal satisfies which wanted name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tfmmcl.errors import InputError


@dataclass(frozen=True)
class Record:
    """One recording, as the index lists it.

    Attributes:
        subject: Whose it is.
        path: Its header or file, relative to the root.
        input: Which of the waveform inputs it belongs to.
        start: When it begins, in microseconds on the subject's time axis.
        seconds: Its length.
        names: The signals it has.
    """

    subject: str
    path: str
    input: int
    start: int
    seconds: float
    names: tuple[str, ...]


class Extent(NamedTuple):
    """What a reader finds out about a record without reading its signals; the fields are those of `Record`."""

    start: int
    seconds: float
    names: tuple[str, ...]


@dataclass(frozen=True)
class Channel:
    """A stretch of one recorded signal.

    Attributes:
        name: Its name in the record.
        unit: Its physical unit as the record gives it.
        rate_hz: Samples per second.
        first: When the first of `values` was sampled, in seconds from the record's start.
        values: `(N,)` float64, NaN where the record marks a sample invalid or has none.
    """

    name: str
    unit: str
    rate_hz: float
    first: float
    values: np.ndarray


class RefusedError(InputError):
    """A record that cannot be used.

    Attributes:
        reason: One of a handful of sentences, without ids.
        detail: Which record it is, and what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def choose(names: Sequence[str], wanted: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Returns wanted name → index of the recorded signal that satisfies it; a name that none satisfies is absent.

    Args:
        names: The recorded signals' names; the first of equal ones counts.
        wanted: Wanted name → names that satisfy it, most preferred first, compared without regard to case. No recorded
            signal satisfies two wanted names: the earlier takes it.
    """
    free = {name.strip().casefold(): index for index, name in reversed(list(enumerate(names)))}
    chosen = {}
    for want, aliases in wanted.items():
        for alias in aliases:
            if alias.strip().casefold() in free:
                chosen[want] = free.pop(alias.strip().casefold())
                break
    return chosen


def one_line(error: Exception) -> str:
    """Returns an exception of some library as part of a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
