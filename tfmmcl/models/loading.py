"""Models from `.keras` files."""

from __future__ import annotations

from pathlib import Path

import keras

from tfmmcl.errors import InputError


def load_model(path: str | Path) -> keras.Model:
    """Returns the model in a file; raises `InputError` if it cannot be loaded."""
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be loaded ({str(error).splitlines()[0]}).") from None
