"""How much memory was held at most."""

from __future__ import annotations

import resource
import sys


def peak_bytes(*, children: bool = False) -> int:
    """Returns the largest resident memory of this process so far, or of the largest of its ended children if larger."""
    who = [resource.RUSAGE_SELF, *([resource.RUSAGE_CHILDREN] if children else [])]
    unit = 1 if sys.platform == "darwin" else 1024
    return max(resource.getrusage(item).ru_maxrss for item in who) * unit
