"""A local copy of a data set that lies far away, made once and used by every later run."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tqdm import tqdm

from tfmmcl.errors import InputError
from tfmmcl.files import RemotePath, sha256
from tfmmcl.records.manifest import DataSet


def open_cached(path: str | Path | RemotePath, cache: str | Path | None) -> DataSet:
    """Opens a data set, by way of a copy in a local folder if one is given.

    The copy is a data set itself, `CACHE/FINGERPRINT`. A file that is there already with its size is kept, so an
    interrupted copy goes on where it stopped, and several processes may fill one cache at once.

    Args:
        path: The data set.
        cache: The folder for copies, or None: the data set is read where it is.

    Raises:
        InputError: If the folder is not a data set, or a file of it does not have the digest that its manifest says.
    """
    data = DataSet.open(path)
    if cache is None:
        return data
    folder = Path(cache) / data.fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    digests = {shard.path: shard.sha256 for shard in data.manifest.shards}
    digests["statistics.npz"] = data.manifest.statistics_sha256
    sizes = {name: (data.path / name).stat().st_size for name in digests}
    missing = [name for name in digests if not _has(folder / name, sizes[name])]
    total = sum(sizes[name] for name in missing)
    with tqdm(total=total, desc=f"copying to {folder}", unit="B", unit_scale=True, disable=None) as bar:
        for name in missing:
            _copy(data.path / name, folder / name, digests[name])
            bar.update(sizes[name])
    if not (folder / "manifest.json").is_file():  # last: with it, the copy is a data set
        _copy(data.path / "manifest.json", folder / "manifest.json", None)
    return DataSet.open(folder)


def _has(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _copy(source: Path | RemotePath, target: Path, digest: str | None) -> None:
    """Copies a file under a name of its own and renames it, once its digest is found to be right."""
    handle, draft = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with source.open("rb") as original, os.fdopen(handle, "wb") as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
        if digest is not None and (found := sha256(draft)) != digest:
            raise InputError(f"{source}: SHA-256 is {found}, expected {digest}.")
        os.replace(draft, target)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
