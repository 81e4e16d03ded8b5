"""The recorded cohort: one engine for every YAML file with `source: recorded`."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from tfmmcl.cohorts import tables
from tfmmcl.cohorts.durations import microseconds
from tfmmcl.cohorts.events.store import EventStore, stage_events
from tfmmcl.cohorts.events.timeline import ALWAYS, Timeline
from tfmmcl.cohorts.identity import keyed_hash
from tfmmcl.cohorts.recorded import tasks
from tfmmcl.cohorts.recorded.anchors import Anchor, find_anchors, find_stays
from tfmmcl.cohorts.recorded.lookup import read_lookup
from tfmmcl.cohorts.recorded.patients import patients_of
from tfmmcl.cohorts.recorded.settings import ColumnRule, RecordedSettings
from tfmmcl.cohorts.recorded.windows import last_before, summarise, window_bounds
from tfmmcl.cohorts.splits import Split, position
from tfmmcl.cohorts.tables import SubjectSource
from tfmmcl.cohorts.trajectory import Excluded, Feature, Seen, Spec, Trajectory
from tfmmcl.cohorts.waveforms import beats, windows
from tfmmcl.cohorts.waveforms.index import WaveformIndex, build_index
from tfmmcl.errors import InputError
from tfmmcl.files import sha256

NO_STAY = "it has no stay"
TOO_EARLY = "its first window begins before the stay"
NO_SIGNAL = "too few windows show a signal"
NO_VALUES = "too few windows have a structured value"
UNREADABLE = "its signals cannot be read"


class RecordedCohort:
    """Trajectories of recorded events and waveforms, by the rules of a cohort file.

    A patient may have several subjects, each with a time axis of its own: stays or records whose times are relative.

    Args:
        settings: The cohort's settings.
        root: The folder or archive that holds the raw data.
        key: What ids are hashed with.

    Raises:
        InputError: If two features have one name, or windows are too long.
    """

    def __init__(self, settings: RecordedSettings, root: str | Path, key: bytes) -> None:
        self.settings = settings
        # An archive is unpacked by `stage`, perhaps more than once; `root` is then the folder that holds its files.
        self.root = self._source = Path(root)
        try:
            self.spec = _spec(settings)
        except ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InputError(f"cohort '{settings.name}': {problem}.") from None
        self._key = key
        self._events: EventStore | None = None
        self._waveforms: WaveformIndex | None = None
        self._labels: dict[str, dict[str, float]] = {}
        self._subjects: dict[str, list[str]] = {}
        self._given: dict[str, Split] | None = None

    def stage(self, folder: Path) -> None:
        """Sorts events by patient, lists the records, and reads the tables of labels and splits.

        Raises:
            InputError: If a source is missing or damaged, or does not fit the settings.
        """
        settings, inputs = self.settings, self.settings.inputs
        self.root = root = tables.unpack(self._source, folder / "unpacked")
        if inputs.events:
            self._events = stage_events(
                root,
                inputs.events,
                settings.variables,
                inputs.time_zone,
                folder / "events",
                patients=lambda subjects: patients_of(subjects, root, settings.patients),
                order=lambda patient: position(self.resume_token() + patient, settings.split.seed),  # the shards' order
            )
        if settings.signals:
            self._waveforms = build_index(root, inputs.waveforms, settings.signals, inputs.time_zone)
        subjects = {
            subject for source in (self._events, self._waveforms) if source is not None for subject in source.subjects()
        }
        self._subjects = defaultdict(list)
        for subject, patient in patients_of(sorted(subjects), root, settings.patients).items():
            self._subjects[patient].append(subject)
        self._labels = {
            name: tasks.read_column(root, rule) for name, rule in settings.tasks.items() if isinstance(rule, ColumnRule)
        }
        self._given = self._read_splits()

    def patients(self) -> list[str]:
        """Returns every patient's id as the sources have it."""
        return sorted(self._subjects)

    def given_splits(self) -> Mapping[str, Split] | None:
        """Returns patient → split where a table decides, None where hashing does."""
        return self._given

    def trajectories(self, patient: str) -> Iterator[Trajectory | Excluded | Seen]:
        """Yields the patient's trajectories in order of time, and what was left out and why."""
        timelines = self._events.read(patient) if self._events else {}
        hashed, number, stays = keyed_hash(self._key, patient), 0, 0
        for subject in self._subjects[patient]:
            timeline = timelines.get(subject) or Timeline(subject, {})
            if self._waveforms:
                excluded = self._waveforms.excluded(subject)
                yield Seen("records", len(self._waveforms.records(subject)) + len(excluded))
                yield from excluded
            first, last = self._extent(timeline)
            found = find_stays(timeline, self.settings.stays, first)
            anchors, lost = find_anchors(timeline, found, self.settings.anchors, self.settings.windows.span, last)
            yield Seen("stays", len(found))
            yield Seen("anchors", len(anchors) + sum(item.level == "anchors" for item in lost))
            yield from lost
            stays += len(found)
            for anchor in anchors:
                # Numbered whether kept or not, so that other requirements leave the others' names as they are.
                yield self._trajectory(timeline, anchor, hashed, f"{hashed}-{number:05d}")
                number += 1
        if not stays:
            yield Excluded("patients", NO_STAY)

    def sources(self) -> dict[str, str]:
        """Returns what was read, by the globs of the settings, which hold no ids → SHA-256."""
        found = dict(self._events.sources()) if self._events else {}
        found |= self._waveforms.sources() if self._waveforms else {}
        settings = self.settings
        paths = [rule.path for rule in settings.tasks.values() if isinstance(rule, ColumnRule)]
        paths += [settings.split.table.path] if settings.split.table else []
        for path in paths:
            digests = "\n".join(sha256(file) for file in tables.files(self.root, path))
            found[path] = hashlib.sha256(digests.encode()).hexdigest()
        return found

    def notes(self) -> list[str]:
        """Returns sentences on what was found in the events, and on ids that no other source has."""
        found = list(self._events.notes()) if self._events else []
        if self._events and self._waveforms and not set(self._events.subjects()) & set(self._waveforms.subjects()):
            found.append("no subject has both events and records; expected ids that both write alike.")
        subjects = {subject for owned in self._subjects.values() for subject in owned}
        found += [
            f"task '{name}': no subject has a label in {self.settings.tasks[name].path}."
            for name, labels in self._labels.items()
            if not labels.keys() & subjects
        ]
        nameless = len(self._waveforms.unassigned) if self._waveforms else 0
        return found + ([f"{nameless:,} records left out: their paths give no subject."] if nameless else [])

    def resume_token(self) -> str:
        """Returns a text that changes with the key, so that no data set mixes ids of two keys."""
        return keyed_hash(self._key, "resume")

    def _extent(self, timeline: Timeline) -> tuple[int | None, int | None]:
        """Returns the subject's first and last moment with an event or a record, in microseconds."""
        known = [series.times[series.times != ALWAYS] for series in timeline.series.values()]
        times = [int(time) for found in known if found.size for time in found[[0, -1]]]
        for record in self._waveforms.records(timeline.subject) if self._waveforms else ():
            times += [record.start, record.start + microseconds(record.seconds)]
        return (min(times), max(times)) if times else (None, None)

    def _trajectory(self, timeline: Timeline, anchor: Anchor, patient: str, name: str) -> Trajectory | Excluded:
        settings, require = self.settings, self.settings.require
        bounds = window_bounds(anchor.time, settings.windows)
        if require.within_stay and bounds[0, 0] < anchor.stay.start:
            return Excluded("anchors", TOO_EARLY)
        signals, cut = np.zeros((settings.windows.count, self.spec.samples, 0), np.float32), None
        if self._waveforms and settings.signals:
            try:
                cut = windows.cut(
                    self._waveforms.records(timeline.subject),
                    self.root,
                    settings.inputs.waveforms,
                    bounds,
                    settings.signals,
                )
            except InputError as error:
                return Excluded("anchors", UNREADABLE, str(error))
            signals = cut.signals
            if np.count_nonzero(~np.isnan(signals).all(axis=(1, 2))) < require.signal_windows:
                return Excluded("anchors", NO_SIGNAL)
        structured = self._structured(timeline, bounds, cut)
        if np.count_nonzero(self._known(structured).any(axis=1)) < require.structured_windows:
            return Excluded("anchors", NO_VALUES)
        statics = [
            last_before(timeline.get(item.variable or feature), anchor.time, item.look_back)
            for feature, item in settings.statics.items()
        ]
        labels = {
            task: tasks.label(rule, timeline, anchor.time, self._labels.get(task, {}))
            for task, rule in settings.tasks.items()
        }
        return Trajectory(patient, name, signals, structured, np.array(statics, np.float32), labels)

    def _structured(self, timeline: Timeline, bounds: np.ndarray, cut: windows.Windows | None) -> np.ndarray:
        """Returns the `(T, M)` features."""
        columns = []
        for item in self.settings.structured:
            if item.variable:
                columns.append(summarise(timeline.get(item.variable), bounds, item.statistics))
            elif cut is not None and item.rate_of:
                rates = beats.window_rates(cut, item.rate_of, self.settings.signals)
                columns.append(rates[:, [beats.STATISTICS.index(statistic) for statistic in item.statistics]])
        return np.concatenate(columns, axis=1).astype(np.float32)

    def _known(self, structured: np.ndarray) -> np.ndarray:
        """Returns where a feature says something: a count of nothing does not."""
        counts = np.array([statistic == "count" for item in self.settings.structured for statistic in item.statistics])
        return np.where(counts, structured > 0, ~np.isnan(structured))

    def _read_splits(self) -> dict[str, Split] | None:
        table = self.settings.split.table
        if table is None:
            return None
        meaning: dict[str, Split] = {
            **dict.fromkeys(table.train, "train"),
            **dict.fromkeys(table.validation, "validation"),
            **dict.fromkeys(table.test, "test"),
        }
        given = read_lookup(self.root, table, SubjectSource(column=table.patient), table.column, meaning.get)
        without = sum(patient not in given for patient in self._subjects)
        if without:
            raise InputError(
                f"{table.path}: gives no split for {without} of {len(self._subjects)} patients, expected one for each."
            )
        return given


def _spec(settings: RecordedSettings) -> Spec:
    signals, variables = settings.signals, settings.variables
    structured = []
    for item in settings.structured:
        unit = variables[item.variable].unit if item.variable else "bpm"
        structured += [
            Feature(name=f"{item.prefix}_{statistic}", unit="1" if statistic == "count" else unit)
            for statistic in item.statistics
        ]
    return Spec(
        windows=settings.windows.count,
        window_seconds=signals.length if signals else settings.windows.length,
        sampling_rate_hz=signals.sampling_rate_hz if signals else 1.0,
        leads=tuple(signals.leads) if signals else (),
        signal_scale_mv=(signals.scale_mv,) * len(signals.leads) if signals else (),
        structured=tuple(structured),
        statics=tuple(
            Feature(name=name, unit=variables[item.variable or name].unit) for name, item in settings.statics.items()
        ),
        tasks=tuple(tasks.task_of(name, rule, variables) for name, rule in settings.tasks.items()),
    )
