"""A model card (Mitchell et al. 2019, https://doi.org/10.1145/3287560.3287596) of what a run's own files say.

No figure in it is anybody's to type: each comes from the settings, the data set's manifest and statistics, or
`result.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmmcl.cohorts.trajectory import Feature, Task
from tfmmcl.export.signature import in_words
from tfmmcl.finetune_settings import FinetuneSettings
from tfmmcl.records.labels import find_task
from tfmmcl.records.manifest import DataSet

if TYPE_CHECKING:
    from tfmmcl.export.servable import Servable

CODE = "`"
"""What names stand between: to Markdown, the underscores in them would mean emphasis."""


def model_card(
    servable: Servable, outputs: Mapping[str, Sequence[int | None]], settings: str, notes: Sequence[str] = ()
) -> str:
    """Returns a run's model card, as Markdown.

    Args:
        servable: What is exported.
        outputs: Name → shape of the model's outputs, the batch axis first.
        settings: The run's settings, as YAML.
        notes: Sentences on this file in particular.
    """
    task = find_task(servable.data, servable.settings.task) if _is_finetuned(servable) else None
    parts = [
        f"# Model card: {servable.run.path.resolve().name}",
        _about(servable, task),
        *notes,
        "## What it must not be used for",
        *_warnings(servable.data, task),
        "## Inputs and outputs",
        *_interface(servable, outputs),
        "## Data",
        *_data(servable.data),
        "## How good it is",
        *_quality(servable.result),
        "## Training",
        *_training(servable),
        "## Settings",
        f"```yaml\n{settings}```",
    ]
    return "\n\n".join(parts) + "\n"


def _is_finetuned(servable: Servable) -> bool:
    return isinstance(servable.settings, FinetuneSettings)


def _about(servable: Servable, task: Task | None) -> str:
    if task is None:
        return (
            "An encoder of patient trajectories: it turns one trajectory into one vector, to search, compare or train "
            "small models with. It was pre-trained without labels, by telling trajectories apart (Raghu et al. 2022, "
            "Contrastive Pre-Training for Multimodal Medical Time Series)."
        )
    described = f": {task.description}" if task.description else ""
    start = servable.settings.pretrained
    origin = f"the pre-trained encoder `{Path(start).name}`" if start else "an encoder that was not pre-trained"
    return f"A network that predicts `{task.name}` ({task.kind}) of a trajectory{described}. It began as {origin}."


def _warnings(data: DataSet, task: Task | None) -> Iterator[str]:
    points = [
        "It is not a medical device. It must not be used to diagnose, monitor or treat anybody, nor to ration care.",
        "It must not be used on patients unlike those below (other hospitals, devices, units of measurement, sampling "
        "rates or leads) before it was validated there.",
        "Nothing here shows that it is fair to groups of patients: the data set says neither sex nor ethnicity to it "
        "unless they are among the inputs, and figures by group are not part of this card.",
        "Embeddings are made from a patient's data and can tell patients apart: they are to be protected as the data "
        "themselves are, and must not be published in the belief that they are anonymous.",
    ]
    if data.manifest.provenance.cohort.get("source") == "synthetic":
        points.insert(
            0,
            "**It was trained on synthetic data**: it knows nothing of real patients, and must not be used on any but "
            "to try the software.",
        )
    if task is not None:
        points.append(
            "Its predictions are associations in these data. They must not be read as effects of what could be "
            "changed, nor as probabilities where the label is more or less frequent than below."
        )
    yield "\n".join(f"- {point}" for point in points)


def _interface(servable: Servable, outputs: Mapping[str, Sequence[int | None]]) -> Iterator[str]:
    words = in_words(servable.data.spec, CODE)
    yield "All inputs are float32 in physical units, NaN where missing; imputation and standardisation are inside."
    yield _table(("input", "of each trajectory"), [(f"`{name}`", words[name]) for name in servable.inputs])
    if "signals" in servable.inputs:
        yield _reads(servable)
    sizes = [(f"`{name}`", _numbers(shape[1:])) for name, shape in sorted(outputs.items())]
    yield _table(("output", "of each trajectory"), sizes)


def _reads(servable: Servable) -> str:
    settings = servable.settings
    if not isinstance(settings, FinetuneSettings):
        return f"Of each window's signal it reads the first {settings.augmentation.segment.seconds:g} s."
    reading = settings.reading
    seconds = servable.data.spec.window_seconds if reading.seconds is None else reading.seconds
    if reading.part == "crops":
        return f"Of each window's signal it reads {reading.crops} parts of {seconds:g} s, and averages its outputs."
    return f"Of each window's signal it reads the {'first' if reading.part == 'first' else 'middle'} {seconds:g} s."


def _data(data: DataSet) -> Iterator[str]:
    manifest, spec = data.manifest, data.spec
    cohort = manifest.provenance.cohort
    described = f" {cohort['description']}" if cohort.get("description") else ""
    yield (
        f"Data set `{cohort.get('name', 'unnamed')}`, fingerprint `{data.fingerprint}`, prepared by tfmmcl "
        f"{manifest.provenance.tfmmcl}.{described}"
    )
    rows = []
    for split, count in manifest.splits.items():
        row = [split, f"{count.patients:,}", f"{count.trajectories:,}"]
        for task in spec.tasks:
            found = count.labels.get(task.name)
            text = f"{found.labelled:,}" if found else "0"
            if found and found.labelled and task.kind == "binary":
                text += f" ({found.positive / found.labelled:.1%} positive)"
            row.append(text)
        rows.append(row)
    yield _table(("split", "patients", "trajectories", *(f"with `{task.name}`" for task in spec.tasks)), rows)
    statistics = data.statistics
    leads = [Feature(name=lead, unit="mV") for lead in spec.leads]
    features = [*spec.statics, *spec.structured, *leads]
    means, deviations = (
        np.concatenate([getattr(statistics, f"{key}_{moment}") for key in ("statics", "structured", "signals")])
        for moment in ("mean", "std")
    )
    yield (
        "The training split, where a feature is observed: statics by trajectory, structured features by window, leads "
        "by sample."
    )
    rows = [(item.named(CODE), f"{mean:.4g} ± {std:.3g}") for item, mean, std in zip(features, means, deviations)]
    yield _table(("feature", "mean ± standard deviation"), rows)


def _quality(result: Mapping[str, Any]) -> Iterator[str]:
    if scores := result.get("scores"):
        yield from _scores(scores, result.get("intervals", {}))
    elif "final" in result:
        yield "By the objective it was pre-trained with. How useful it is for a task, fine-tuning on that task shows."
        chance = result.get("chance", {})
        figures = {key.removeprefix("val_"): value for key, value in result["final"].items() if key.startswith("val_")}
        yield _table(
            ("validation split, last epoch", "", "by chance"),
            [(_words(key), _figure(value), _figure(chance.get(key))) for key, value in figures.items()],
        )
    else:
        yield "The run left no figures."


def _scores(scores: Mapping[str, Any], intervals: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for name in next(iter(scores.values())):
        cells = []
        for split in scores:
            low_high = intervals.get(split, {}).get(name)
            cell = _figure(scores[split].get(name))
            cells.append(f"{cell} ({_figure(low_high[0])} to {_figure(low_high[1])})" if low_high else cell)
        rows.append((_words(name), *cells))
    if intervals:
        yield (
            f"In brackets: {intervals['level']:.0%} intervals from {intervals['resamples']:,} bootstrap resamples of "
            "patients. The best epoch was chosen on the validation split; the test split touched no choice."
        )
    else:
        yield "The best epoch was chosen on the validation split; the test split touched no choice."
    yield _table(("", *scores), rows)


def _training(servable: Servable) -> Iterator[str]:
    result = servable.result
    facts = {"parameters": f"{servable.model.count_params():,}"}
    if "training" in result:
        count = result["training"]
        facts["trained with"] = f"{count['trajectories']:,} labelled trajectories of {count['patients']:,} patients"
    for key in ("epochs", "best_epoch", "steps"):
        if key in result:
            facts[_words(key)] = f"{result[key]:,}"
    if "wall_seconds" in result:
        facts["wall time"] = f"{result['wall_seconds']:,.0f} s"
    if "device" in result:
        facts["device"] = result["device"]
    facts |= {f"version of {name}": version for name, version in result.get("versions", {}).items()}
    if skipped := result.get("skipped_records"):
        facts["records left out, damaged"] = f"{len(skipped):,}"
    yield _table(("", ""), list(facts.items()))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _numbers(shape: Iterable[int | None]) -> str:
    return " × ".join(map(str, shape)) + " numbers" if shape else "one number"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])
