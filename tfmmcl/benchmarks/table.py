"""Figures as a table on the screen, and with date and machine as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows under headings, the first column aligned on the left and the others on the right."""
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows)]
    for row in (headings, *rows):
        first, *others = (cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row))
        print("  ".join([first, *others]).rstrip(), flush=True)


def with_machine(figures: dict[str, Any]) -> dict[str, Any]:
    """Returns figures after the date and the machine that they were measured on."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"date": now, "machine": {"processor": _processor(), "cores": os.cpu_count()}, **figures}


def write_json(path: str | Path, figures: dict[str, Any]) -> None:
    """Writes figures as JSON."""
    Path(path).write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _processor() -> str:
    """Returns the processor's name, which `platform` does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
