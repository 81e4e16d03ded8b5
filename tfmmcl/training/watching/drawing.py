"""What TensorBoard's pictures look like."""

from __future__ import annotations

DPI = 110.0
STYLE = {"font.size": 8, "axes.titlesize": 9, "axes.linewidth": 0.6}
