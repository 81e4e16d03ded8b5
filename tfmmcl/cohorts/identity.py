"""Ids as they leave the hospital: keyed hashes, the same for the same key and no way back without it."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
from pathlib import Path

from tfmmcl.errors import InputError

logger = logging.getLogger(__name__)

ENVIRONMENT = "TFMMCL_ID_KEY"
SHORTEST = 16  # characters: what a password generator gives at the least


def keyed_hash(key: bytes, patient: str) -> str:
    """Returns 32 hexadecimal digits of HMAC-SHA-256 (RFC 2104) of a patient's id, any text at all."""
    return hmac.new(key, patient.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def load_key(path: str | Path | None = None) -> tuple[bytes, str]:
    """Returns the key that ids are hashed with, and where it came from.

    Args:
        path: A file with the key. Default None: the environment variable `TFMMCL_ID_KEY`, or else the file
            `tfmmcl/id.key` in the user's configuration folder, made with a random key the first time.

    Raises:
        InputError: If the key is too short, or the file cannot be read or made.
    """
    if path is None and (text := os.environ.get(ENVIRONMENT)):
        return _checked(text, f"environment variable {ENVIRONMENT}"), f"the environment variable {ENVIRONMENT}"
    own = path is None
    if path is None:
        path = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tfmmcl" / "id.key"
    path = Path(path)
    try:
        if own and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Exclusive, so that two processes do not each make one; nobody else may read it.
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32) + "\n")
            logger.warning("%s: made; ids are hashed with this key: keep it, and keep it to yourselves.", path)
        return _checked(path.read_text(encoding="utf-8"), str(path)), str(path)
    except FileExistsError:
        return load_key(path)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"{path}: {why}; expected the key that ids are hashed with, or {ENVIRONMENT} set.") from None


def _checked(text: str, where: str) -> bytes:
    key = text.strip()
    if len(key) < SHORTEST:
        raise InputError(f"{where}: found a key of {len(key)} characters, expected at least {SHORTEST}.")
    return key.encode("utf-8")
