"""Files, as every room needs them: on disk, or wherever TensorFlow's file systems reach."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import importlib
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from tfmmcl.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has none: two runs at once are then not kept apart
    fcntl = None


class _Stat(NamedTuple):
    st_size: int


class RemotePath:
    """What of `pathlib.Path` reading a data set takes, for URLs such as `gs://bucket/folder`, over `tf.io.gfile`.

    TensorFlow is imported by what reads, so that naming a place costs nothing.

    Args:
        url: `SCHEME://…`; which schemes there are depends on TensorFlow and on plug-ins that were imported.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"RemotePath({self._url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __lt__(self, other: RemotePath) -> bool:
        return self._url < other._url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self._url}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return posixpath.basename(self._url)

    def resolve(self) -> RemotePath:
        """Returns the same path; a URL is absolute."""
        return self

    def exists(self) -> bool:
        """Returns whether there is a file or folder."""
        with self._file_system() as gfile:
            return gfile.exists(self._url)

    def is_dir(self) -> bool:
        """Returns whether it is a folder."""
        with self._file_system() as gfile:
            return gfile.isdir(self._url)

    def is_file(self) -> bool:
        """Returns whether it is a file."""
        return self.exists() and not self.is_dir()

    def stat(self) -> _Stat:
        """Returns the file's size as `st_size`, in bytes."""
        with self._file_system() as gfile:
            return _Stat(gfile.stat(self._url).length)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yields what lies in this folder and matches a pattern without slashes."""
        with self._file_system() as gfile:
            names = gfile.listdir(self._url)
        return (self / name for name in names if fnmatch.fnmatch(name, pattern))

    def open(self, mode: str = "rb") -> IO[Any]:
        """Opens the file for reading."""
        if not self.is_file():
            raise FileNotFoundError(2, "No such file or directory", self._url)
        with self._file_system() as gfile:
            return gfile.GFile(self._url, mode)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Returns the file's text."""
        with self.open() as file:
            return file.read().decode(encoding)

    @contextlib.contextmanager
    def _file_system(self) -> Iterator[Any]:
        import tensorflow as tf

        scheme = self._url.partition("://")[0]
        if scheme not in tf.io.gfile.get_registered_schemes():
            with contextlib.suppress(ImportError):
                importlib.import_module("tensorflow_io")  # registers what it has
        # `isdir` says no where it should say that it cannot know.
        if scheme not in (known := tf.io.gfile.get_registered_schemes()):
            raise InputError(
                f"{self._url}: TensorFlow has no file system for {scheme}://; expected one of "
                f"{', '.join(filter(None, known))}, or the package tensorflow-io installed, which has more."
            )
        try:
            yield tf.io.gfile
        except tf.errors.OpError as error:
            raise OSError(None, " ".join(error.message.split()), self._url) from None


def location(path: str | Path | RemotePath) -> Path | RemotePath:
    """Returns the path that a text means: a URL if it has a scheme, a path on disk otherwise."""
    if isinstance(path, RemotePath):
        return path
    return RemotePath(str(path)) if "://" in str(path) else Path(path)


def sha256(path: str | Path | RemotePath) -> str:
    """Returns a file's SHA-256 in hex, read a megabyte at a time."""
    digest = hashlib.sha256()
    with location(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def acquire(file: int) -> bool:
    """Locks an open file unless another process has; a file system without locks keeps nobody out."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def reserve(path: Path, size: int) -> None:
    """Raises `OSError` unless the disk has room for a file of so many bytes; leaves an empty one."""
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):  # not on Windows
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None
            file.truncate(0)


LOCK = ".lock"
"""The file in a folder that is being written."""


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Makes a folder, if it is not there, and keeps other processes of ours from writing in it while inside.

    Raises:
        InputError: If another process writes in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    try:
        while True:
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            if not acquire(file):
                os.close(file)
                raise InputError(f"{folder}: another process is writing in it; wait for that one, or stop it.")
            # Whoever held it may have removed it since it was opened here.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file)):
                    break
            os.close(file)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(file)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if nothing was written
