"""Trains for half an hour and watches the memory: it has to stay where it was once the first epochs are over.

    python tests/faults/soak.py --minutes 30

prints the resident memory (Linux) after every tenth of the time, and how much it grew by the epoch since the first.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def resident_mb(pid: int) -> float:
    """Returns a process's resident memory in MB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def run(minutes: float, overrides: list[str]) -> list[tuple[float, int, float]]:
    """Returns `(minutes, epochs done, MB)` at each epoch's end."""
    with tempfile.TemporaryDirectory() as name:
        history = Path(name) / "run" / "history.jsonl"
        tool = [sys.executable, str(REPOSITORY / "tools" / "pretrain.py"), "--out", "run", "training.epochs=1000000"]
        process = subprocess.Popen([*tool, *overrides], cwd=name, stdout=subprocess.DEVNULL)
        found, began = [], time.monotonic()
        try:
            while process.poll() is None and time.monotonic() - began < minutes * 60:
                time.sleep(0.2)
                epochs = history.read_text().count("\n") if history.exists() else 0
                if epochs > (found[-1][1] if found else 0):
                    found.append(((time.monotonic() - began) / 60, epochs, resident_mb(process.pid)))
        finally:
            process.terminate()
            process.wait()
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE")
    arguments = parser.parse_args()
    rows = run(arguments.minutes, arguments.overrides)
    if len(rows) < 2:
        sys.exit("the run ended early")
    print("| minutes | epochs | resident memory, MB |\n|---|---|---|")
    for index in np.unique(np.linspace(0, len(rows) - 1, 11).astype(int)):
        print("| {:.1f} | {} | {:,.0f} |".format(*rows[index]))
    later = np.array(rows[len(rows) // 10 :])
    slope = np.polyfit(later[:, 1], later[:, 2], 1)[0]
    print(f"after the first tenth: {slope * 1024:+.0f} kB an epoch")
