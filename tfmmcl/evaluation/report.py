"""`report.html` and `results.csv`: an evaluation for a paper, in one file with nothing from elsewhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from html import escape
from pathlib import Path

from tfmmcl.evaluation import embedding_maps, figures, report_tables
from tfmmcl.evaluation.drawing import Picture
from tfmmcl.evaluation.findings import METRICS, MODES, Findings, percent, seeds_of
from tfmmcl.evaluation.metrics import LOWER_IS_BETTER
from tfmmcl.evaluation.results import DISPLAY_NAMES, EMBEDDINGS, EvaluatedTask, Results, Summary
from tfmmcl.records.page import figure, page

REPORT = "report.html"
TABLE = "results.csv"

_CALIBRATED = (
    " AUPRC is to be read beside the share of positives. Calibration is perfect at an intercept of 0 and a slope of 1; "
    "a slope below 1 means that predictions are too extreme."
)


def write_report(results: Results, folder: Path) -> None:
    """Writes the report and the table of all summaries.

    Args:
        results: What was found.
        folder: Where both go; it holds the predictions that `results` names, and its pre-training runs with their
            `embeddings.npz`. A map whose embeddings are not there is left out of the report.
    """
    write_table(results, folder / TABLE)
    title = f"{results.data.get('name', 'data')}: evaluation"
    (folder / REPORT).write_bytes(page(title, _parts(Findings(results, folder)), report_tables.STYLE))


def write_table(results: Results, path: Path) -> None:
    """Writes one row per summary as CSV; numbers in full, and nothing where there is none."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(Summary.model_fields))
        writer.writeheader()
        writer.writerows(item.model_dump() for item in results.summary)


def _parts(findings: Findings) -> Iterator[str]:
    yield from _heading(findings)
    yield from _section("Data", _data(findings))
    if not findings.results.summary:
        yield "<p>There are no results yet.</p>"
        return
    interval, part = percent(findings.level), percent(findings.fraction)
    setting = (
        f"{findings.way[:1].upper()}{findings.way[1:]} with the labels of {part} of the labelled training patients"
    )
    if findings.mode == "finetune" and (findings.results.settings.get("finetuning") or {}).get("pretrained"):
        setting += " (pre-trained encoders by settings of their own, finetuning.pretrained)"
    spread = f"median ± half inter-quartile range over seeds; beneath, the {interval} bootstrap interval over patients"
    yield from _section(
        "Main results",
        report_tables.main_table(findings),
        f"{setting}, test split: {spread}. Bold: the best of its column, where the interval of its paired difference "
        "to the runner-up excludes 0.",
    )
    yield from _section(
        "Discrimination and calibration",
        _tables(findings, report_tables.all_metrics),
        f"{setting}, test split: {spread}, where there is one.{_CALIBRATED if _binary(findings) else ''}",
    )
    less = ", ".join(name for metric, name in METRICS.items() if metric in LOWER_IS_BETTER)
    yield from _section(
        "Differences between arms",
        _tables(findings, report_tables.comparisons),
        f"{setting}, test split: difference Δ of the medians over seeds, its {interval} paired bootstrap interval over "
        "patients, and the two-sided p-value, not corrected for the number of comparisons. The baseline is the best on "
        f"the validation split. Less is better of: {less}.",
    )
    if len(findings.modes) > 1:
        about = f"Labels of {part} of the labelled training patients, test split: {spread}."
        yield from _section("Ways to use the encoder", _tables(findings, report_tables.modes), about)
    yield from _section("Label efficiency", _efficiency(findings))
    yield from _section("ROC and precision-recall curves", _curves(findings, setting))
    yield from _section("Calibration", _calibration(findings, setting))
    yield from _section("Embeddings", _maps(findings))
    yield from _section("Pre-training", _pretraining(findings))
    settings = json.dumps(findings.results.settings, indent=1, ensure_ascii=False)
    yield f"<h2>Settings</h2>\n<details><summary>Every setting</summary><pre>{escape(settings)}</pre></details>"


def _section(title: str, parts: Iterable[str], about: str = "") -> Iterator[str]:
    """Yields a section, unless it has no parts."""
    if parts := list(parts):
        yield f"<h2>{title}</h2>"
        if about:
            yield f"<p class='quiet'>{escape(about)}</p>"
        yield from parts


def _tables(findings: Findings, table: Callable[[Findings, EvaluatedTask], Iterable[str]]) -> Iterator[str]:
    """Yields a table for each task that has one, under the task's name."""
    for task in findings.results.tasks:
        if parts := list(table(findings, task)):
            yield f"<h3>{escape(findings.about(task))}</h3>"
            yield from parts


def _heading(findings: Findings) -> Iterator[str]:
    results, data, machine = findings.results, findings.results.data, findings.results.machine
    yield f"<h1>{escape(str(data.get('name', 'data')))}: evaluation</h1>"
    if description := data.get("description"):
        yield f"<p>{escape(str(description))}</p>"
    arms = ", ".join(DISPLAY_NAMES[arm] for arm in findings.arms)
    tasks = ", ".join(task.task.name for task in results.tasks)
    parts = ", ".join(percent(part) for part in findings.fractions)
    sentences = [f"Compared: {arms or 'nothing yet'}", f"Tasks: {tasks or 'none'}"]
    if findings.modes:
        sentences.append(f"Networks: {', '.join(MODES[mode] for mode in findings.modes)}")
    if parts:
        sentences.append(f"Labels of {parts} of the labelled training patients; {seeds_of(results.summary)}")
    yield f"<p>{escape('. '.join(sentences))}.</p>"
    versions = machine.get("versions") or {}
    facts = [
        machine.get("date"),
        f"{_duration(machine['wall_seconds'])} since it was last started" if "wall_seconds" in machine else None,
        f"{_duration(machine['work_seconds'])} of work in {machine['workers']} processes"
        if "work_seconds" in machine
        else None,
        machine.get("device"),
        *(f"{name} {version}" for name, version in versions.items()),
        f"tfmmcl {data['tfmmcl']}" if data.get("tfmmcl") else None,
    ]
    yield f"<p class='quiet'>{escape(' · '.join(str(fact) for fact in facts if fact))}</p>"
    yield f"<p class='quiet'>Data set's fingerprint <code>{escape(str(data.get('fingerprint', '–')))}</code></p>"


def _data(findings: Findings) -> Iterator[str]:
    yield from report_tables.data_splits(findings)
    for task in findings.results.tasks:
        if task.task.description:
            yield f"<p class='quiet'>Task <code>{escape(task.task.name)}</code>: {escape(task.task.description)}</p>"


def _efficiency(findings: Findings) -> Iterator[str]:
    about = "; ".join(findings.about(task) for task in findings.results.tasks)
    for mode in findings.modes:
        yield from _figure(
            figures.draw_efficiency(findings, mode),
            f"Label efficiency, {MODES[mode]}: test metric by the part of the labelled training patients whose labels "
            "were used; below it, how many patients these are and how many positive trajectories they have (medians "
            f"over seeds). Points are medians over seeds, bars the {percent(findings.level)} bootstrap interval over "
            f"patients, fine dots chance. {about}.",
        )
    for task in findings.results.tasks:
        if table := list(report_tables.comparisons_by_fraction(findings, task)):
            yield f"<h3>Differences by labels used, {findings.way}. {escape(findings.about(task))}</h3>"
            yield from table


def _curves(findings: Findings, setting: str) -> Iterator[str]:
    for task in _binary(findings):
        yield from _figure(
            figures.draw_curves(findings, task),
            f"{findings.about(task)}. {setting}; lines are medians over seeds, bands inter-quartile ranges. Fine dots: "
            "chance, for precision the prevalence.",
        )


def _calibration(findings: Findings, setting: str) -> Iterator[str]:
    for task in _binary(findings):
        yield from _figure(
            figures.draw_calibration(findings, task),
            f"{findings.about(task)}. {setting}; of each arm the seed with the median Brier score. Bins hold about "
            f"equally many trajectories; bars are {percent(findings.level)} Wilson intervals, which take trajectories "
            "as independent. Below, the predictions' histogram; the last bar holds what lies beyond the axis.",
        )


def _maps(findings: Findings) -> Iterator[str]:
    for run in findings.results.pretraining:
        path = findings.folder / run.run / EMBEDDINGS
        if not path.is_file():
            continue
        embeddings = embedding_maps.Embeddings(path)
        yield from _figure(
            embedding_maps.draw_map(embeddings, [task.task for task in findings.results.tasks]),
            f"{DISPLAY_NAMES[run.arm]}, 1 seed: t-SNE of the frozen pre-trained encoder's embeddings; "
            f"n = {len(embeddings.places):,} of {embeddings.total:,} trajectories of all splits"
            f"{', drawn at random' if len(embeddings.places) < embeddings.total else ''}. In brackets, trajectories.",
        )


def _pretraining(findings: Findings) -> Iterator[str]:
    runs = findings.results.pretraining
    train = findings.results.data.get("splits", {}).get("train", {}).get("trajectories")
    times = ", ".join(f"{DISPLAY_NAMES[run.arm]} {_duration(run.wall_seconds)} ({run.run})" for run in runs)
    size = f"n = {train:,} training trajectories, 1 seed. " if train is not None else ""
    yield from _figure(figures.draw_pretraining(runs), f"Pre-training by epoch. {size}Wall time: {times}.")


def _binary(findings: Findings) -> list[EvaluatedTask]:
    return [task for task in findings.results.tasks if task.task.kind == "binary"]


def _figure(picture: Picture | None, caption: str) -> Iterator[str]:
    if picture is not None:
        yield figure(picture.svg, caption, "svg+xml", picture.width)


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
