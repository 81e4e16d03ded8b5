"""The evaluation's report, against the results that it shows."""

import base64
import csv
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from simulated_results import NO_ECG, TASKS, simulate

from tfmmcl.cohorts.trajectory import Task
from tfmmcl.evaluation.findings import Findings
from tfmmcl.evaluation.report import write_report, write_table
from tfmmcl.evaluation.report_tables import main_table
from tfmmcl.evaluation.results import DISPLAY_NAMES, Results, Summary

KINDS = (Task(name="sofa", kind="multiclass", classes=("low", "middle", "high")), Task(name="mpap", kind="regression"))

# One process simulates the results that these tests look at.
pytestmark = pytest.mark.xdist_group("evaluation report")


class Page(HTMLParser):
    """Tables as rows of cells' texts, what is bold, figures' captions, and every element's attributes."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.bold, self.captions, self.headings, self.elements = {}, {}, [], [], []
        self._table, self._open = None, []
        self.html = html
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag == "table":
            self._table = attributes["id"]
            self.tables[self._table], self.bold[self._table] = [], []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
        elif tag == "br" and self._table:
            self.tables[self._table][-1][-1] += " "
        elif tag == "figcaption":
            self.captions.append("")
        elif tag == "h2":
            self.headings.append("")
        if tag not in ("br", "img", "meta"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        if self._table and self.tables[self._table] and self.tables[self._table][-1]:
            self.tables[self._table][-1][-1] += data.strip()
            if self._open[-1] == "b":
                self.bold[self._table].append(self.tables[self._table][-1][0])
        elif self._open and self._open[-1] == "figcaption":
            self.captions[-1] += data
        elif self._open and self._open[-1] == "h2":
            self.headings[-1] += data

    def rows(self, table):
        return {row[0]: row[1:] for row in self.tables[table][1:]}


def text(value, sign=""):
    shown = f"{value:{sign}.3f}"
    return shown.replace("-0.000", "+0.000" if sign else "0.000").replace("-", "−")


def spread(item):
    value = text(item.median) + (f" ± {text(item.half_iqr)}" if item.seeds > 1 else "")
    return value + ("" if item.low is None else f" ({text(item.low)} to {text(item.high)})")


def find(results, **keys):
    found = [item for item in results.summary if all(getattr(item, key) == value for key, value in keys.items())]
    assert len(found) == 1
    return found[0]


def mode_of(arm, mode="finetune"):
    return mode if "rand" in arm or "contrastive" in arm else "baseline"


def report(folder, results):
    write_report(results, folder)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def bold(folder, results):
    """Returns the arms in bold in Table 2."""
    return Page("\n".join(main_table(Findings(results, folder)))).bold["table-2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def results(folder):
    size = {"patients": 24, "fractions": (0.25, 1.0), "modes": ("finetune", "knn"), "resamples": 8, "seeds": 3}
    return simulate(folder, **size)


@pytest.fixture(scope="module")
def page(folder, results):
    return report(folder, results)


def test_table_2_shows_the_summaries_of_full_fine_tuning(page, results):
    rows = page.rows("table-2")
    assert list(rows) == list(DISPLAY_NAMES.values())
    for arm, name in DISPLAY_NAMES.items():
        for item, cell in zip(results.tasks, rows[name], strict=True):
            keys = {"arm": arm, "task": item.task.name, "metric": item.headline}
            assert cell == spread(find(results, mode=mode_of(arm), fraction=1.0, **keys))


def test_every_metric_of_every_arm_is_in_its_table(page, results):
    order = ["auroc", "auprc", "brier", "calibration_intercept", "calibration_slope", "calibration_error"]
    for task in TASKS:
        for arm, name in DISPLAY_NAMES.items():
            keys = {"arm": arm, "task": task.name, "mode": mode_of(arm), "fraction": 1.0}
            expected = [spread(find(results, metric=metric, **keys)) for metric in order]
            assert page.rows(f"metrics-{task.name}")[name] == expected


def test_differences_are_those_of_the_results(page, results):
    for item in results.comparisons:
        if item.mode != "finetune":
            continue
        pair = f"{DISPLAY_NAMES[item.first]} − {DISPLAY_NAMES[item.second]}"
        shown = f"{text(item.difference, '+')} ({text(item.low, '+')} to {text(item.high, '+')})"
        if item.fraction == 1.0:
            cells = page.rows(f"differences-{item.task}")[pair]
            place = 2 * ["auroc", "auprc", "brier"].index(item.metric)
            assert cells[place : place + 2] == [shown, f"{item.p_value:.3f}"]
        if item.metric == next(task.headline for task in results.tasks if task.task.name == item.task):
            cells = page.rows(f"differences-by-fraction-{item.task}")[pair]
            assert cells[[0.25, 1.0].index(item.fraction)] == f"{shown} p: {item.p_value:.3f}"


def test_modes_stand_side_by_side(page, results):
    for item in results.tasks:
        rows = page.rows(f"modes-{item.task.name}")
        assert list(rows) == [DISPLAY_NAMES[arm] for arm in list(DISPLAY_NAMES)[:4]]
        keys = {"arm": "contrastive", "task": item.task.name, "metric": item.headline, "fraction": 1.0}
        assert rows["Contrastive"] == [spread(find(results, mode=mode, **keys)) for mode in ("finetune", "knn")]


def with_difference(results, task, first, second, low, high):
    """Returns results with nothing but one comparison, of the task's headline metric."""
    kept = next(item for item in results.comparisons if item.task == task.task.name and item.metric == task.headline)
    changes = {"mode": mode_of(first), "second_mode": mode_of(second), "fraction": 1.0}
    changes |= {"first": first, "second": second, "low": low, "high": high}
    return results.model_copy(update={"comparisons": [kept.model_copy(update=changes)]})


@pytest.mark.parametrize(
    ("swapped", "low", "high", "expected"),
    [(False, 0.01, 0.2, True), (False, -0.01, 0.2, False), (True, -0.2, -0.01, True), (True, -0.2, 0.01, False)],
)
def test_the_best_is_bold_only_where_it_surely_leads_the_runner_up(folder, results, swapped, low, high, expected):
    task = results.tasks[0]
    items = [i for i in results.summary if (i.task, i.metric, i.fraction) == (task.task.name, task.headline, 1.0)]
    ranked = sorted((i for i in items if i.mode in ("finetune", "baseline")), key=lambda item: -item.median)
    first, second = [ranked[swapped].arm, ranked[not swapped].arm]
    changed = with_difference(results, task, first, second, low, high)
    assert bold(folder, changed) == [DISPLAY_NAMES[ranked[0].arm]] * expected
    # A lead over another than the runner-up says nothing.
    assert not bold(folder, with_difference(results, task, ranked[0].arm, ranked[2].arm, 0.01, 0.2))


def test_of_errors_the_smallest_is_best(folder, results):
    tasks = [results.tasks[0].model_copy(update={"headline": "brier"})]
    results = results.model_copy(update={"tasks": tasks})
    items = [i for i in results.summary if (i.task, i.metric, i.fraction) == (tasks[0].task.name, "brier", 1.0)]
    least = sorted((i for i in items if i.mode in ("finetune", "baseline")), key=lambda item: item.median)
    changed = with_difference(results, tasks[0], least[0].arm, least[1].arm, -0.1, -0.01)
    assert bold(folder, changed) == [DISPLAY_NAMES[least[0].arm]]


def test_figures_and_tables_say_how_much_they_rest_on(page, results):
    for item in results.tasks:
        one = find(results, arm="contrastive", task=item.task.name, mode="finetune", fraction=1.0, metric=item.headline)
        expected = f"n = {one.n} ({one.patients} patients), {one.positives} positive"
        assert expected in page.html.partition("<h2>Discrimination")[0]
        for title in ("ROC", "Calibration", "Differences between", "Ways to use"):
            section = page.html.partition(f"<h2>{title}")[2].partition("<h2>")[0]
            assert f"{item.task.name}: {expected}" in section
            assert "3 seeds" in section
    assert len(page.captions) == 2 + 2 + 2 + 2 + 1  # label efficiency, curves, calibration, maps, pre-training
    for caption in page.captions:
        assert re.search(r"n = \d", caption), caption
        assert re.search(r"\d seeds?\b", caption), caption


def test_the_report_is_one_file(page):
    for tag, attributes in page.elements:
        assert tag not in ("link", "script", "iframe", "object", "embed")
        assert not {"href", "srcset", "onload"} & set(attributes)
        if "src" in attributes:
            kind, _, data = attributes["src"].partition(",")
            assert kind == "data:image/svg+xml;base64"
            svg = base64.b64decode(data).decode()
            # Namespaces are names, not addresses that are loaded.
            assert not re.search(r"""(href|src)=["'](?!#|data:)""", svg)
    assert "url(" not in page.html
    assert "@import" not in page.html
    assert "a &lt;simulated&gt; cohort" in page.html


def test_the_csv_holds_every_summary(results, tmp_path):
    write_table(results, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
    assert [Summary.model_validate(row) for row in rows] == results.summary


def test_what_is_not_defined_is_a_dash(results, tmp_path):
    nothing = {"median": None, "half_iqr": None, "low": None, "high": None}
    summary = [i.model_copy(update=nothing) if i.arm == "rand_init" else i for i in results.summary]
    undefined = {"difference": None, "low": None, "high": None, "p_value": None}
    comparisons = [item.model_copy(update=undefined) for item in results.comparisons]
    page = report(tmp_path, results.model_copy(update={"summary": summary, "comparisons": comparisons}))
    assert page.rows("table-2")["RandInit"] == ["–", "–"]
    assert page.rows("differences-mortality_24h")["Contrastive − RandInit"] == ["–"] * 6
    assert not re.search(r"\b(nan|None)\b", page.html)


def test_two_arms_and_one_seed(tmp_path):
    size = {"patients": 20, "per_patient": 1, "seeds": 1, "fractions": (1.0,), "modes": ("knn",), "resamples": 8}
    results = simulate(tmp_path, arms=NO_ECG, tasks=TASKS[:1], headlines=("auroc",), **size)
    page = report(tmp_path, results)
    assert list(page.rows("table-2")) == ["RandInit (No ECG)", "Contrastive (No ECG)"]
    assert "±" not in "".join(page.rows("table-2")["RandInit (No ECG)"])
    assert "K nearest neighbours" in page.html
    assert not {"Ways to use the encoder", "Label efficiency"} & set(page.headings)


def test_classes_and_numbers_have_their_own_metrics_and_no_roc(tmp_path):
    size = {"patients": 20, "seeds": 2, "fractions": (0.5, 1.0), "modes": ("finetune",), "resamples": 8}
    arms = ("rand_init", "contrastive", "best_static")
    results = simulate(tmp_path, arms=arms, tasks=KINDS, headlines=("auroc", "mae"), **size)
    page = report(tmp_path, results)
    assert page.tables["metrics-sofa"][0] == ["", "AUROC", "Accuracy", "Log loss"]
    assert page.tables["metrics-mpap"][0] == ["", "MAE", "RMSE", "R²", "Pearson r"]
    assert not {"ROC and precision-recall curves", "Calibration"} & set(page.headings)
    assert {"Label efficiency", "Embeddings"} <= set(page.headings)


def test_baselines_alone_and_nothing_at_all(tmp_path):
    size = {"patients": 20, "seeds": 1, "fractions": (1.0,), "resamples": 8}
    results = simulate(tmp_path, arms=("best_static",), tasks=TASKS[:1], headlines=("auroc",), **size)
    assert list(report(tmp_path, results).rows("table-2")) == ["Best single static"]
    for path in (tmp_path / "cells").iterdir():
        path.unlink()
    assert not report(tmp_path, results).captions
    empty = Results(data={}, tasks=[], settings={}, machine={}, cells=[], summary=[], comparisons=[], pretraining=[])
    assert "no results yet" in report(tmp_path, empty).html


def test_a_curve_without_both_classes_is_left_out(tmp_path):
    size = {"patients": 20, "seeds": 1, "fractions": (1.0,), "modes": ("finetune",), "resamples": 8}
    results = simulate(tmp_path, arms=("rand_init",), tasks=TASKS[:1], headlines=("auroc",), **size)
    path = tmp_path / results.cells[0].predictions
    with np.load(path) as arrays:
        changed = {**arrays, "label": np.zeros_like(arrays["label"])}
    np.savez(path, **changed)
    assert "ROC and precision-recall curves" not in report(tmp_path, results).headings


def test_unlabelled_predictions_do_not_count(folder, results, tmp_path):
    cell = results.cells[0]
    label, prediction = Findings(results, folder).predictions(cell)
    (tmp_path / cell.predictions).parent.mkdir()
    np.savez(tmp_path / cell.predictions, label=np.append(label, np.nan), prediction=np.append(prediction, 0.5))
    for one, other in zip(Findings(results, tmp_path).predictions(cell), (label, prediction), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_same_results_make_the_same_page(folder, results, page):
    assert report(folder, results).html == page.html


def test_no_patient_is_named(page):
    assert "patient-" not in page.html
