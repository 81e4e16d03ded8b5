"""The flow of a cohort in numbers: how many there were at each level, and how many were lost for which reason."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tfmmcl.cohorts.trajectory import Excluded, Seen

LEVELS = ("patients", "stays", "records", "anchors")
EXAMPLES = 3
"""Details kept of each reason, to be shown on the terminal."""


class FlowLevel(BaseModel):
    """One level of the flow.

    Attributes:
        level: `patients`, `stays`, `records`, `anchors` or `trajectories`.
        seen: How many were looked at; of trajectories, how many there are.
        lost: Reason → how many of them became no trajectory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: str
    seen: int = Field(ge=0)
    lost: dict[str, int] = {}


class Flow:
    """Counts what cohorts yield beside trajectories; the flows of several shards merge."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.lost: dict[str, Counter[str]] = {level: Counter() for level in LEVELS}
        self.examples: dict[str, list[str]] = {}

    def add(self, item: Seen | Excluded) -> None:
        """Adds one item."""
        if isinstance(item, Seen):
            self.seen[item.level] += item.count
            return
        self.lost[item.level][item.reason] += 1
        self._exemplify(item.reason, [item.detail] if item.detail else [])

    def plain(self) -> dict[str, Any]:
        """Returns all that was added, for JSON and for `merge`."""
        return {"seen": self.seen, "lost": self.lost, "examples": self.examples}

    def merge(self, plain: dict[str, Any]) -> None:
        """Adds all that another flow has seen, given what its `plain` returns."""
        self.seen.update(plain["seen"])
        for level, reasons in plain["lost"].items():
            self.lost[level].update(reasons)
        for reason, details in plain["examples"].items():
            self._exemplify(reason, details)

    def levels(self, patients: int, trajectories: int) -> list[FlowLevel]:
        """Returns the flow from all patients to the trajectories, without levels that the cohort does not have."""
        between = [
            FlowLevel(level=level, seen=self.seen[level], lost=self._reasons(level))
            for level in LEVELS[1:]
            if self.seen[level] or self.lost[level]
        ]
        first = FlowLevel(level="patients", seen=patients, lost=self._reasons("patients"))
        return [first, *between, FlowLevel(level="trajectories", seen=trajectories)]

    def most_lost(self) -> str:
        """Returns the three commonest reasons, or an empty text."""
        return "; ".join(reason for reason, _ in sum(self.lost.values(), Counter()).most_common(3))

    def _reasons(self, level: str) -> dict[str, int]:
        return dict(sorted(self.lost[level].items(), key=lambda item: (-item[1], item[0])))

    def _exemplify(self, reason: str, details: list[str]) -> None:
        kept = self.examples.setdefault(reason, [])
        kept += [detail for detail in dict.fromkeys(details) if detail not in kept][: EXAMPLES - len(kept)]
