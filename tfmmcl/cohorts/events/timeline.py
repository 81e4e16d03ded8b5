"""One subject's events, as the rules read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ALWAYS = np.iinfo(np.int64).min
"""The time of a value that holds from the start, such as a sex: before every anchor and every look-back."""


class Series(NamedTuple):
    """One variable's events.

    Attributes:
        times: `(N,)` int64, microseconds since the epoch or since time zero, strictly ascending; `ALWAYS` for one
            without a time.
        values: `(N,)` float64 in the variable's unit, NaN where an event has no plausible number.
    """

    times: np.ndarray
    values: np.ndarray


NOTHING = Series(np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True)
class Timeline:
    """All of a subject's variables.

    Attributes:
        subject: The subject's id.
        series: Variable → its events; one without events may be absent.
    """

    subject: str
    series: dict[str, Series]

    def get(self, variable: str) -> Series:
        """Returns a variable's events."""
        return self.series.get(variable, NOTHING)
