"""The folder in which a data set is made, and which a later run continues: `.NAME.partial` beside the data set."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tfmmcl.errors import InputError
from tfmmcl.files import acquire
from tfmmcl.records.shards import SIDECARS

_LOCK, _KEY, _STAGE = "lock", "key", "stage"


class Partial:
    """A data set in the making: finished shards, their sidecars, and what the cohort staged.

    Args:
        out: Where the data set goes; the folder is this one's hidden sibling.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        # Absolute, since workers may run elsewhere.
        self.folder = (out.parent / f".{out.name}.partial").absolute()
        self.stage = self.folder / _STAGE

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, or takes over the one that is there, and keeps other runs out meanwhile.

        Raises:
            InputError: If another run is at work in it, or has just finished.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = self._lock()
        try:
            yield
        finally:
            os.close(lock)

    def _lock(self) -> int:
        path = self.folder / _LOCK
        while True:
            if self.out.exists():
                raise InputError(f"{self.out}: already exists; expected the name of a new folder.")
            try:
                self.folder.mkdir(exist_ok=True)
                lock = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
                if not acquire(lock):
                    raise InputError(f"{self.out}: another run is preparing it; wait for that one, or stop it.")
                if os.path.samestat(os.stat(path), os.fstat(lock)):
                    return lock
                os.close(lock)
            except FileNotFoundError:
                # The run that had it renamed or removed the folder just now.
                continue

    @property
    def key(self) -> list[str]:
        """Digests of what the work so far depends on; empty where there is none."""
        try:
            return (self.folder / _KEY).read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return []

    @key.setter
    def key(self, digests: list[str]) -> None:
        draft = self.folder / f"{_KEY}.draft"
        draft.write_text(" ".join(digests), encoding="utf-8")
        os.replace(draft, self.folder / _KEY)

    def begin(self, key: list[str]) -> None:
        """Empties the folder, whatever was in it, and makes it ready for work that depends on `key`."""
        for path in self.folder.iterdir():
            if path.name == _LOCK:
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        # Private to the user: what is staged and the details of what was lost may name patients.
        self.stage.mkdir(mode=0o700)
        (self.folder / SIDECARS).mkdir(mode=0o700)
        self.key = key

    def tidy(self) -> None:
        """Removes what a killed run was in the middle of writing."""
        for folder in (self.folder, self.folder / SIDECARS):
            for draft in folder.glob("*.draft"):
                draft.unlink(missing_ok=True)

    def staged(self) -> bool:
        """Returns whether the cohort has left anything in its folder."""
        return self.stage.is_dir() and any(self.stage.iterdir())

    def publish(self) -> None:
        """Renames the folder to the data set's name, without what only its making needed."""
        shutil.rmtree(self.stage)
        shutil.rmtree(self.folder / SIDECARS)
        (self.folder / _KEY).unlink()
        os.rename(self.folder, self.out)
        # Last: while it is there, a run that starts now sees that somebody is at work.
        (self.out / _LOCK).unlink()

    def remove(self) -> None:
        """Removes the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
