"""`report.html`: a cohort at a glance, for a paper's supplement; one file, with nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from tfmmcl.cohorts.splits import Split
from tfmmcl.cohorts.trajectory import Trajectory
from tfmmcl.records import report_figures, report_tables
from tfmmcl.records.flow import FlowLevel
from tfmmcl.records.framing import read_records
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.page import figure, page
from tfmmcl.records.profile import PICTURED, ROWS, Profile
from tfmmcl.records.schema import decode

NAME = "report.html"

_STYLE = """
.flow { display: grid; grid-template-columns: 14em 3em minmax(0, 34em); font-size: .92em; }
.box { box-sizing: border-box; border: 1.5px solid #333; padding: .45em .8em; text-align: center; background: #fff; }
.box b { display: block; font-size: 1.15em; font-variant-numeric: tabular-nums; }
.lost { text-align: left; }
.lost div { display: grid; grid-template-columns: 4.5em 1fr; gap: .7em; }
.lost span { text-align: right; font-variant-numeric: tabular-nums; }
.down { justify-self: center; width: 1.5px; min-height: 1.6em; background: #333; position: relative; }
.down::after { content: ""; position: absolute; bottom: 0; left: -3.6px; border: 4.5px solid transparent;
  border-top: 6px solid #333; border-bottom: 0; }
.through { justify-self: center; width: 1.5px; background: #333; }
.branch { height: .9em; grid-column: 1; }
.across { align-self: center; height: 1.5px; background: #333; position: relative; margin-left: -7em; }
.across::after { content: ""; position: absolute; right: 0; top: -3.6px; border: 4.5px solid transparent;
  border-left: 6px solid #333; border-right: 0; }
.splits { grid-column: 1 / -1; display: flex; gap: 1em; position: relative; padding-top: .9em; }
.splits::before { content: ""; position: absolute; top: 0; left: 7em; width: 30em; height: 1.5px; background: #333; }
.splits .box { width: 14em; position: relative; }
.splits .box::before { content: ""; position: absolute; top: -.9em; left: 50%; width: 1.5px; height: .9em;
  background: #333; }
"""


def write_report(data: DataSet, profiles: Mapping[Split, Profile]) -> None:
    """Writes the report into the data set's folder.

    Args:
        data: The data set, complete but for the report.
        profiles: Each split's profile.
    """
    parts = [
        *_heading(data),
        "<h2>Flow</h2>",
        *_flow(data),
        *_notes(data),
        "<h2>Characteristics</h2>",
        "<p class='quiet'>Mean ± standard deviation (n − 1) over the trajectories where a feature is observed; a "
        "structured feature is first averaged over a trajectory's windows.</p>",
        *report_tables.characteristics(data.spec, profiles),
        "<h2>Missing values</h2>",
        *report_tables.missing(data.spec, profiles),
        "<h2>Pictures</h2>",
        *_pictures(data, profiles),
    ]
    title = f"{data.manifest.provenance.cohort.get('name', 'cohort')}: cohort report"
    (data.path / NAME).write_bytes(page(title, parts, _STYLE))


def _heading(data: DataSet) -> Iterator[str]:
    spec, provenance = data.spec, data.manifest.provenance
    leads = f"{len(spec.leads)} leads ({', '.join(spec.leads)}) at {spec.sampling_rate_hz:g} Hz"
    yield f"<h1>{escape(str(provenance.cohort.get('name', 'cohort')))}</h1>"
    if description := provenance.cohort.get("description"):
        yield f"<p>{escape(str(description))}</p>"
    windows = f"{spec.windows} windows" if spec.windows > 1 else "1 window"
    yield (
        f"<p>A trajectory has {windows}"
        f"{f' of {spec.window_seconds:g} s of signal each, {escape(leads)}' if spec.leads else ', no signals'}; "
        f"{len(spec.structured)} structured features per window, {len(spec.statics)} statics.</p>"
    )
    yield f"<p class='quiet'>tfmmcl {escape(provenance.tfmmcl)} · fingerprint <code>{data.fingerprint}</code></p>"
    for task in spec.tasks:
        if task.description:
            yield f"<p class='quiet'>Task <code>{escape(task.name)}</code>: {escape(task.description)}</p>"


def _flow(data: DataSet) -> Iterator[str]:
    yield '<div class="flow" id="flow">'
    levels = data.manifest.provenance.flow
    for level in levels:
        yield f'<div class="box" data-level="{escape(level.level)}"><b>{level.seen:,}</b>{escape(level.level)}</div>'
        yield "<div></div><div></div>"
        if level is not levels[-1]:
            yield from _loss(level)
    yield '<div class="through branch"></div><div class="splits">'
    for split, count in data.manifest.splits.items():
        patients = f"{count.patients:,} patient{'' if count.patients == 1 else 's'}"
        yield f'<div class="box" data-split="{split}"><b>{count.trajectories:,}</b>{split}<br>{patients}</div>'
    yield "</div>\n</div>"


def _loss(level: FlowLevel) -> Iterator[str]:
    if level.lost:
        reasons = "".join(
            f"<div data-reason><span>{count:,}</span>{escape(reason)}</div>" for reason, count in level.lost.items()
        )
        yield f'<div class="through"></div><div class="across"></div><div class="box lost">{reasons}</div>'
    yield '<div class="down"></div><div></div><div></div>'


def _notes(data: DataSet) -> Iterator[str]:
    if notes := data.manifest.provenance.notes:
        yield "<h2>Notes on the sources</h2>\n<ul id='notes'>"
        yield from (f"<li>{escape(note)}</li>" for note in notes)
        yield "</ul>"


def _pictures(data: DataSet, profiles: Mapping[Split, Profile]) -> Iterator[str]:
    spec = data.spec
    rows = {split: profile.rows() for split, profile in profiles.items() if profile.trajectories()}
    yield figure(
        report_figures.draw_histograms(spec, rows),
        f"Density of each feature per split: statics by trajectory, structured features by window; up to {ROWS:,} "
        "trajectories of each split, drawn at random; the outermost bins hold the 0.5 % beyond. "
        "Where a feature has a handful of values, bars give their fractions.",
    )
    yield figure(
        report_figures.draw_missing(spec, rows),
        "Missing values; white is observed. Lines part statics, structured features and leads.",
    )
    for split, trajectory in _pictured(data, profiles):
        labels = [f"{name} = {label:g}" for name, label in trajectory.labels.items() if label == label]
        about = ", ".join([f"Trajectory {_short(trajectory.name)}", split, *labels])
        yield figure(report_figures.draw_trajectory(spec, trajectory), f"{about}; structured features by window.")


def _pictured(data: DataSet, profiles: Mapping[Split, Profile]) -> Iterator[tuple[Split, Trajectory]]:
    """Yields a few trajectories of all splits, drawn at random, read back from where they lie."""
    drawn = sorted(
        (rank, split, int(shard), int(offset))
        for split, profile in profiles.items()
        for rank, shard, offset in zip(*profile.pictured())
    )
    for _, split, shard, offset in drawn[:PICTURED]:
        file = data.path / data.manifest.shards[shard].path
        yield split, decode(next(read_records(file, offset)), data.spec)


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:47]}…"
