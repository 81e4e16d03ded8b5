"""Stays, and the anchors in them at which trajectories end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfmmcl.cohorts.durations import microseconds
from tfmmcl.cohorts.events.timeline import ALWAYS, Timeline
from tfmmcl.cohorts.recorded.settings import AnchorSettings, StaySettings
from tfmmcl.cohorts.trajectory import Excluded

OUTSIDE = "it lies outside every stay"
NO_ANCHOR = "no anchor falls into it"
TOO_MANY = "over a million anchors fall into it, as where a date is wrong"
MOST = 1_000_000


@dataclass(frozen=True, order=True)
class Stay:
    """A stretch of a subject's time, in microseconds.

    Attributes:
        start: Its first moment.
        end: Its last moment. None: it has no known end.
    """

    start: int
    end: int | None = None

    def holds(self, time: int) -> bool:
        """Returns whether a trajectory may end at `time`."""
        return self.start < time and (self.end is None or time <= self.end)


@dataclass(frozen=True)
class Anchor:
    """The moment at which a trajectory ends, in microseconds, and the stay it lies in."""

    time: int
    stay: Stay


def find_stays(timeline: Timeline, settings: StaySettings | None, first: int | None) -> list[Stay]:
    """Returns a subject's stays in order.

    Args:
        timeline: The subject's events.
        settings: What begins and ends a stay. None: there is one, from `first` on.
        first: The subject's first event or record, in microseconds. None: there is none, and so no stay.
    """
    if settings is None:
        return [] if first is None else [Stay(first)]
    starts = np.zeros(1, np.int64) if settings.start == "time_zero" else _times(timeline, settings.start)
    ends = _times(timeline, settings.end) if settings.end else np.zeros(0, np.int64)
    stays = []
    for index, start in enumerate(starts):
        following = int(starts[index + 1]) if index + 1 < len(starts) else None
        # Where one stay ends as the next begins, as at a transfer, that end is the first one's.
        transfer = bool(stays) and stays[-1].end == start
        at = np.searchsorted(ends, start, side="right" if transfer else "left")
        end = int(ends[at]) if at < len(ends) else None
        # The next stay's start closes one whose end is not recorded.
        known = [time for time in (end, following) if time is not None]
        stays.append(Stay(int(start), min(known) if known else None))
    return stays


def find_anchors(
    timeline: Timeline, stays: Sequence[Stay], settings: Sequence[AnchorSettings], span: float, last: int | None
) -> tuple[list[Anchor], list[Excluded]]:
    """Returns a subject's anchors in order, each moment once, and the events and stays that give none.

    Args:
        timeline: The subject's events.
        stays: Its stays.
        settings: When trajectories end.
        span: Seconds from the first window's start to the anchor.
        last: The subject's last event or end of a record, in microseconds: where a stay without an end stops
            giving anchors at an interval.
    """
    times: set[int] = set()
    endless = set()
    for item in settings:
        if item.each is not None:
            times.update(_times(timeline, item.each).tolist())
            continue
        for stay in stays:
            inside = _in_stay(stay, item, span, last)
            if len(inside) > MOST:
                endless.add(stay)
            else:
                times.update(inside)
    anchors, lost = [], [Excluded("stays", TOO_MANY) for _ in endless]
    for time in sorted(times):
        # Where stays overlap, the latest counts.
        stay = max((stay for stay in stays if stay.holds(time)), key=lambda stay: stay.start, default=None)
        if stay is None:
            lost.append(Excluded("anchors", OUTSIDE))
        else:
            anchors.append(Anchor(time, stay))
    used = {anchor.stay for anchor in anchors}
    lost += [Excluded("stays", NO_ANCHOR) for stay in stays if stay not in used | endless]
    return anchors, lost


def _in_stay(stay: Stay, settings: AnchorSettings, span: float, last: int | None) -> range:
    """Returns one stay's anchors at an interval, or the one at a set time after its start."""
    if settings.after_start is not None:
        time = stay.start + microseconds(settings.after_start)
        return range(time, time + 1 if stay.end is None or time <= stay.end else time)
    end = stay.end if stay.end is not None else last
    if end is None or settings.every is None:
        return range(0)
    first = stay.start + microseconds(span if settings.first is None else settings.first)
    return range(first, end + 1, max(1, microseconds(settings.every)))


def _times(timeline: Timeline, variable: str) -> np.ndarray:
    times = timeline.get(variable).times
    return times[times != ALWAYS]
