"""Lengths of time in settings: "30 min" in YAML, seconds in Python, whole microseconds in comparisons."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

SECONDS_PER = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*(ms|s|min|h|d)")


def _parse(value: Any) -> float:
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a number with its unit, ms, s, min, h or d, such as '30 min'")
    return float(found[1]) * SECONDS_PER[found[2]]


def _format(seconds: float) -> str:
    # The largest unit that divides it; `repr` keeps every digit, so that reading it back gives the same number.
    unit = next((unit for unit in ("d", "h", "min", "s") if seconds and seconds % SECONDS_PER[unit] == 0), "s")
    return f"{seconds / SECONDS_PER[unit]!r} {unit}".replace(".0 ", " ")


Duration = Annotated[float, BeforeValidator(_parse), PlainSerializer(_format, return_type=str)]
"""A length of time: a text with a unit in YAML (`"30 min"`), seconds as a float in Python."""


def microseconds(seconds: float) -> int:
    """Returns a length of time in whole microseconds, in which all times of events are kept."""
    return round(seconds * 1e6)
