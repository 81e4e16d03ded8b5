"""Events of any number, staged on disk so that each patient's can be read at once.

Staging takes three passes, none of which holds all rows: the inputs' rows with wanted codes are copied to Parquet;
chunks of these are converted and sorted by subject; buckets of subjects are gathered from all chunks and merged.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from tfmmcl.cohorts.events.canonical import Source
from tfmmcl.cohorts.events.codes import wanted
from tfmmcl.cohorts.events.readers import read
from tfmmcl.cohorts.events.settings import EventInput, Variable
from tfmmcl.cohorts.events.timeline import Series, Timeline
from tfmmcl.cohorts.events.times import check_zone
from tfmmcl.cohorts.events.variables import code_table, convert, merge, notes
from tfmmcl.cohorts.tables import files, reading
from tfmmcl.errors import InputError
from tfmmcl.files import sha256

FORMAT = 1
"""Counted up when what is staged changes, so that nothing older is used."""

CHUNK_ROWS = 1_000_000
BUCKET_ROWS = 1_000_000
BUCKET_SUBJECTS = 400


class EventStore:
    """Staged events, read by patient. It pickles as its folder's name.

    The folder holds `subjects.parquet` (subject and patient; a row's number is the subject's position), the buckets'
    events, each bucket with the subjects from one position to the next bucket's first, and `staged.json`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bucket = -1
        self._timelines: dict[int, dict[str, Series]] = {}

    def __reduce__(self) -> tuple:
        return EventStore, (self.folder,)

    def subjects(self) -> list[str]:
        """Returns all subjects' ids, sorted, those without any variable's events among them."""
        return self.assigned["subject"].sort().to_list()

    def notes(self) -> list[str]:
        """Returns sentences on what was found, without ids, dates or texts."""
        return self.state["notes"]

    def sources(self) -> dict[str, str]:
        """Returns glob and number of files → SHA-256 over the files' sorted SHA-256s."""
        return self.state["sources"]

    def read(self, patient: str) -> dict[str, Timeline]:
        """Returns subject → timeline of all the patient's subjects, nothing for a patient without any.

        A bucket is kept until another is needed, so reading patients in the order that they were staged in is fast.
        """
        timelines = {}
        for position in self._positions.get(patient, ()):
            bucket = int(np.searchsorted(self.state["bounds"], position, side="right")) - 1
            if bucket != self._bucket:
                self._timelines = _by_subject(pl.read_parquet(self.folder / _name(bucket)), self.state["variables"])
                self._bucket = bucket
            subject = self.assigned["subject"][position]
            timelines[subject] = Timeline(subject, self._timelines.get(position, {}))
        return timelines

    @cached_property
    def state(self) -> dict[str, Any]:
        """What `staged.json` says; empty if nothing is staged completely."""
        path = self.folder / "staged.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @cached_property
    def assigned(self) -> pl.DataFrame:
        """Every `subject` and its `patient`, by position."""
        return pl.read_parquet(self.folder / "subjects.parquet")

    @cached_property
    def _positions(self) -> dict[str, range]:
        first_last = (
            self.assigned.with_row_index("position")
            .group_by("patient")
            .agg(first=pl.col("position").min(), last=pl.col("position").max())
        )
        return {patient: range(first, last + 1) for patient, first, last in first_last.iter_rows()}


def stage_events(
    root: Path,
    inputs: Sequence[EventInput],
    variables: Mapping[str, Variable],
    time_zone: str | None,
    folder: Path,
    patients: Callable[[list[str]], dict[str, str]],
    order: Callable[[str], float],
) -> EventStore:
    """Readies events for reading by patient, unless that is done already.

    Args:
        root: The folder with the data.
        inputs: What to read.
        variables: Name → what is measured, and its codes.
        time_zone: Zone in which times without one were written, all of which then become UTC. None: no time has one.
        folder: Where the events are staged; whatever else it holds is removed. An earlier staging there is used if its
            settings and files were the same.
        patients: Gives subject → patient for all subjects.
        order: Gives a patient's place in [0, 1); patients near to each other will be read together.

    Raises:
        InputError: If a file is missing, damaged or not as the settings say, or no event is any variable's.
    """
    check_zone(time_zone)
    codes = [item.code for variable in variables.values() for item in variable.codes]
    sources = [read(root, item, codes, time_zone) for item in inputs]
    key = _key(root, inputs, variables, time_zone, sources)
    store = EventStore(folder)
    if store.state.get("key") == key and _assign(store.subjects(), patients, order).equals(store.assigned):
        return store

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    copies, subjects = _copy(root, sources, codes, folder)
    assigned = _assign(subjects, patients, order)
    assigned.write_parquet(folder / "subjects.parquet")
    found = pl.scan_parquet(copies).select(pl.col("code").unique()).collect(engine="streaming")["code"]
    table = code_table(variables, found)
    if variables and table.is_empty():
        globs = ", ".join(dict.fromkeys(source.tables[0].path for source in sources))
        raise InputError(f"{globs}: no event has a code of any variable, expected some, such as '{codes[0]}'.")
    chunks, sizes, orphans = _convert(copies, assigned, table, folder)
    bounds, counts = _gather(chunks, sizes, variables, folder)
    lost = [f"{orphans:,} events without a subject's id left out."] if orphans else []
    state = {
        "key": key,
        "variables": list(variables),
        "bounds": bounds,
        "notes": lost + notes(variables, counts),
        "sources": _hashes(root, sources),
    }
    partial = folder / "staged.json.partial"
    partial.write_text(json.dumps(state), encoding="utf-8")
    partial.rename(folder / "staged.json")
    return EventStore(folder)


def _name(bucket: int) -> str:
    return f"bucket-{bucket:05d}.parquet"


def _by_subject(events: pl.DataFrame, variables: Sequence[str]) -> dict[int, dict[str, Series]]:
    """Returns position → variable → series of a bucket's events, which are sorted."""
    times, values = events["time"].to_numpy(), events["value"].fill_null(np.nan).to_numpy()
    timelines: dict[int, dict[str, Series]] = {}
    start = 0
    for position, variable, size in events.group_by("subject", "variable", maintain_order=True).len().iter_rows():
        stop = start + size
        timelines.setdefault(position, {})[variables[variable]] = Series(times[start:stop], values[start:stop])
        start = stop
    return timelines


def _key(
    root: Path,
    inputs: Sequence[EventInput],
    variables: Mapping[str, Variable],
    time_zone: str | None,
    sources: Sequence[Source],
) -> str:
    """Returns a digest of all that the staged events depend on."""
    settings = [[item.model_dump(mode="json") for item in items] for items in (inputs, variables.values())]
    found = [(path, path.stat()) for source in sources for table in source.tables for path in files(root, table.path)]
    states = [(path.relative_to(root).as_posix(), state.st_size, state.st_mtime_ns) for path, state in found]
    whole = json.dumps([FORMAT, time_zone, settings, list(variables), states])
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()


def _hashes(root: Path, sources: Sequence[Source]) -> dict[str, str]:
    hashes = {}
    for table in tqdm([table for source in sources for table in source.tables], desc="hashing sources", disable=None):
        found = files(root, table.path)
        joined = "\n".join(sorted(sha256(path) for path in found))
        name = f"{table.path} ({len(found):,} file{'s' if len(found) > 1 else ''})"
        hashes[name] = hashlib.sha256(joined.encode()).hexdigest()
    return hashes


def _assign(
    subjects: Sequence[str], patients: Callable[[list[str]], dict[str, str]], order: Callable[[str], float]
) -> pl.DataFrame:
    """Returns subjects and patients in the order of reading."""
    patient_of = patients(list(subjects))
    rows = sorted((order(patient), patient, subject) for subject, patient in patient_of.items())
    return pl.DataFrame([row[1:] for row in rows], {"patient": pl.String, "subject": pl.String}, orient="row")


def _copy(root: Path, sources: Sequence[Source], codes: Sequence[str], folder: Path) -> tuple[list[Path], list[str]]:
    """Copies rows with wanted codes; returns the copies and all subjects, sorted."""
    copies, subjects = [], set()
    for source in tqdm(sources, desc="reading events", disable=None):
        copy = folder / f"copy-{len(copies):03d}.parquet"
        with reading(root, *source.tables):
            source.events.filter(wanted(pl.col("code"), codes)).sink_parquet(copy)
            copied = pl.scan_parquet(copy)
            for frame in (source.subjects, copied.select("subject")):
                subjects.update(frame.unique().collect(engine="streaming")["subject"])
        if copied.select(pl.col("zoned").any()).collect().item():
            raise InputError(
                f"{source.tables[0].path}: times carry a zone, expected times without one, or inputs.time_zone set."
            )
        copies.append(copy)
    return copies, sorted(subjects - {None})


def _convert(
    copies: Sequence[Path], assigned: pl.DataFrame, table: pl.DataFrame, folder: Path
) -> tuple[list[Path], np.ndarray, int]:
    """Writes the variables' events in chunks sorted by subject; returns them, each subject's rows, and rows of none."""
    positions = assigned.with_row_index("position").select("subject", "position")
    chunks, orphans = [], 0
    sizes = np.zeros(assigned.height, np.int64)
    for chunk in tqdm(list(_slices(copies)), desc="converting events", disable=None):
        rows = chunk.drop("zoned").collect()
        orphans += rows["subject"].null_count()
        rows = rows.join(positions, on="subject").drop("subject").rename({"position": "subject"})
        rows = convert(rows, table).sort("subject")
        sizes += np.bincount(rows["subject"].to_numpy(), minlength=len(sizes))
        chunks.append(folder / f"chunk-{len(chunks):05d}.parquet")
        # Small row groups, each with few subjects: those of other buckets are skipped when a bucket is gathered.
        rows.write_parquet(chunks[-1], row_group_size=32_768)
    for copy in copies:
        copy.unlink()
    return chunks, sizes, orphans


def _slices(copies: Sequence[Path]) -> Iterator[pl.LazyFrame]:
    for copy in copies:
        scanned = pl.scan_parquet(copy)
        rows = scanned.select(pl.len()).collect().item()
        yield from (scanned.slice(start, CHUNK_ROWS) for start in range(0, max(rows, 1), CHUNK_ROWS))


def _gather(
    chunks: Sequence[Path], sizes: np.ndarray, variables: Mapping[str, Variable], folder: Path
) -> tuple[list[int], list[pl.DataFrame]]:
    """Writes the buckets; returns their first positions, and counts for the notes."""
    bounds, rows = [0], 0
    for position, size in enumerate(sizes):
        if position > bounds[-1] and (rows + size > BUCKET_ROWS or position - bounds[-1] == BUCKET_SUBJECTS):
            bounds.append(position)
            rows = 0
        rows += size
    counts = []
    spans = list(zip(bounds, [*bounds[1:], len(sizes)]))
    for bucket, (start, stop) in enumerate(tqdm(spans, desc="sorting events", disable=None)):
        inside = pl.col("subject").is_between(start, stop, closed="left")
        merged, count = merge(pl.scan_parquet(chunks).filter(inside).collect(), variables)
        merged.write_parquet(folder / _name(bucket))
        counts.append(count)
    for chunk in chunks:
        chunk.unlink()
    return bounds, counts
