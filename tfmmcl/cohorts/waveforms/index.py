"""The index of waveforms: which records a subject has, when they lie and what they hold, without their samples."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from tqdm import tqdm

from tfmmcl.cohorts.tables import files
from tfmmcl.cohorts.trajectory import Excluded
from tfmmcl.cohorts.waveforms import csv_reader, wfdb_reader
from tfmmcl.cohorts.waveforms.recording import Record, RefusedError, choose
from tfmmcl.cohorts.waveforms.settings import SignalSettings, WaveformInput
from tfmmcl.errors import InputError

READERS = {"wfdb": wfdb_reader, "csv": csv_reader}


@dataclass
class WaveformIndex:
    """Every record below a root by subject, small enough to be pickled to workers.

    Attributes:
        unassigned: Records whose path gives no subject.
    """

    unassigned: list[Excluded] = field(default_factory=list)
    _records: dict[str, list[Record]] = field(default_factory=dict)
    _excluded: dict[str, list[Excluded]] = field(default_factory=dict)
    _sources: dict[str, str] = field(default_factory=dict)

    def subjects(self) -> list[str]:
        """Returns every subject, those whose records are all excluded among them, sorted."""
        return sorted(self._records.keys() | self._excluded.keys())

    def records(self, subject: str) -> list[Record]:
        """Returns the subject's records by start."""
        return self._records.get(subject, [])

    def excluded(self, subject: str) -> list[Excluded]:
        """Returns which of the subject's records were left out, and why."""
        return self._excluded.get(subject, [])

    def sources(self) -> dict[str, str]:
        """Returns, for each input, its glob with the number of files → one SHA-256.

        It is of the files' paths and sizes and the headers' bytes: hashing all signals would take hours.
        """
        return dict(self._sources)


def build_index(
    root: str | Path, inputs: Sequence[WaveformInput], signals: SignalSettings, time_zone: str | None = None
) -> WaveformIndex:
    """Reads every header, or counts every file's rows, with a progress bar.

    Args:
        root: The folder that the inputs' globs start from.
        inputs: Where records are.
        signals: What is wanted of them.
        time_zone: IANA name of the zone in which headers' dates and times were written; they become UTC. Default:
            they are taken as they stand.

    Raises:
        InputError: If a glob matches no file, or the zone is unknown.
    """
    root = Path(root)
    zone = _zone(time_zone)
    index = WaveformIndex()
    for number, settings in enumerate(inputs):
        paths = files(root, settings.path)
        reader = READERS[settings.format]
        try:
            digest = _digest(root, paths, reader.fingerprint)
            # disable=None: no bar where the output is not a terminal.
            for path in tqdm(reader.record_files(paths), desc="records", unit="", disable=None):
                _add(index, root, path, number, settings, signals, zone)
        except OSError as error:
            raise InputError(
                f"{error.filename or root}: {error.strerror or error}; expected a readable file."
            ) from None
        index._sources[f"{settings.path} ({len(paths)} files)"] = digest
    for records in index._records.values():
        records.sort(key=lambda record: (record.start, record.input, record.path))
    return index


def _digest(root: Path, paths: Iterable[Path], fingerprint: Callable[[Path], bytes]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = fingerprint(path)
        digest.update(f"{path.relative_to(root).as_posix()}\n{len(content)}\n".encode("utf-8", "surrogatepass"))
        digest.update(content)
    return digest.hexdigest()


def _add(
    index: WaveformIndex,
    root: Path,
    path: Path,
    number: int,
    settings: WaveformInput,
    signals: SignalSettings,
    zone: ZoneInfo | None,
) -> None:
    relative = path.relative_to(root).as_posix()
    found = re.search(settings.subject, relative)
    if found is None or not found[1]:
        reason = "its path gives no subject"
        index.unassigned.append(Excluded("records", reason, f"{relative}: does not match '{settings.subject}'."))
        return
    try:
        start, seconds, names = READERS[settings.format].describe(path, settings, zone)
        if not choose(names, signals.leads):
            detail = f"{relative}: has {_list(names)}, expected one of the leads {_list(signals.leads)}."
            raise RefusedError("none of the wanted leads is recorded", detail)
    except RefusedError as refused:
        index._excluded.setdefault(found[1], []).append(Excluded("records", refused.reason, refused.detail))
        return
    record = Record(found[1], relative, number, start, seconds, names)
    index._records.setdefault(found[1], []).append(record)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "no signals"


def _zone(name: str | None) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no key at all, or a folder
        raise InputError(f"time_zone is '{name}', expected an IANA name such as 'Europe/Berlin'.") from None
