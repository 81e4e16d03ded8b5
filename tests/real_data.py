"""The folder of openly published recordings that some tests read, where it is there."""

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def real(name: str) -> Path:
    """Returns the folder `name` of the real data, or skips the test."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"needs the real recordings in {folder}")
    return folder
