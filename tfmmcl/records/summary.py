"""A data set in a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.records.manifest import DataSet, LabelCount


def summarise(data: DataSet) -> str:
    """Returns what a data set holds: counts and prevalences per split, and the flow from patients on."""
    manifest, spec = data.manifest, data.spec
    size = sum(shard.bytes for shard in manifest.shards)
    signals = f"{len(spec.leads)} leads ({', '.join(spec.leads)}) at {spec.sampling_rate_hz:g} Hz"
    lines = [
        f"{data.path}: {len(manifest.shards)} shards, {size / 1e6:,.1f} MB, fingerprint {data.fingerprint}",
        f"{spec.windows} windows of {spec.window_seconds:g} s, {signals if spec.leads else 'no signals'}, "
        f"{len(spec.structured)} structured features, {len(spec.statics)} statics",
    ]
    for split, count in manifest.splits.items():
        labels = [_labels(task, count.labels[task.name]) for task in spec.tasks if count.labels[task.name].labelled]
        lines.append("; ".join([f"{split}: {count.patients} patients, {count.trajectories} trajectories", *labels]))
    if description := manifest.provenance.cohort.get("description"):
        lines.append(description)
    lines += _flow(data)
    return "\n".join(map(_shown, lines))


def notes(data: DataSet) -> str:
    """Returns what was found in the sources, a line each, each with its end of line."""
    return "".join(f"note: {_shown(note)}\n" for note in data.manifest.provenance.notes)


def _labels(task: Task, count: LabelCount) -> str:
    if task.kind != "binary":
        return f"{task.name} {count.labelled} labelled"
    return f"{task.name} {count.positive}/{count.labelled} ({count.positive / count.labelled:.1%})"


def _flow(data: DataSet) -> Iterator[str]:
    levels = data.manifest.provenance.flow
    counts = [count for level in levels for count in (level.seen, *level.lost.values())]
    width = max((len(f"{count:,}") for count in counts), default=0)
    for level in levels:
        yield f"{level.seen:>{width},} {level.level}"
        for reason, count in level.lost.items():
            yield f"{count:>{width},}   lost: {reason}"
            for detail in data.examples.get(reason, []):
                yield f"{'':{width}}     such as {detail}"


def _shown(line: str) -> str:
    # Names of files and ids may hold anything, half characters and line breaks included.
    text = line.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
