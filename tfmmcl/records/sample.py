"""A uniform sample in bounded memory."""

from __future__ import annotations

import numpy as np


class Sample:
    """Rows with the lowest of random ranks, which is a uniform sample; those of several shards merge exactly.

    Args:
        size: Rows kept; up to twice as many are held meanwhile.
        empty: Arrays without rows, `(0, ...)`, one for each column: their types and the shape of a row.
    """

    def __init__(self, size: int, *empty: np.ndarray) -> None:
        self.size = size
        self.held = 0
        self._chunks = [(np.empty(0), *empty)]

    def add(self, ranks: np.ndarray, *columns: np.ndarray) -> None:
        """Adds rows: their ranks `(N,)`, uniform in [0, 1), and their columns, each `(N, ...)`."""
        self._chunks.append((ranks, *columns))
        self.held += len(ranks)
        if self.held > 2 * self.size:
            self._trim()

    def rows(self) -> tuple[np.ndarray, ...]:
        """Returns ranks and columns of the rows kept, in the order in which they were added."""
        self._trim()
        return self._chunks[0]

    def _trim(self) -> None:
        ranks, *columns = (np.concatenate(column) for column in zip(*self._chunks))
        lowest = np.sort(np.argsort(ranks, kind="stable")[: self.size])
        self._chunks = [(ranks[lowest], *(column[lowest] for column in columns))]
        self.held = len(lowest)
