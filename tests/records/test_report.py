"""The report's numbers against NumPy on what is stored, and its pictures against rulers."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from small_cohorts import TinyCohort, make_settings, make_spec, make_trajectory

from tfmmcl.cohorts.identity import keyed_hash
from tfmmcl.cohorts.splits import SPLITS
from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort, SyntheticSettings
from tfmmcl.cohorts.trajectory import Excluded, Feature, Seen, Trajectory
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.profile import Rows
from tfmmcl.records.report_figures import draw_histograms, draw_missing, draw_trajectory
from tfmmcl.records.verify import read_trajectories, verify
from tfmmcl.records.writer import write_dataset


class Page(HTMLParser):
    """Tables as rows of cells' texts, and every element's attributes."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.elements, self.texts = {}, [], []
        self._rows = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "table":
            self._rows = self.tables[dict(attributes)["id"]] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self._rows = None

    def handle_data(self, data):
        self.texts.append(data)
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += data.strip()

    def pictures(self):
        prefix = "data:image/png;base64,"
        sources = [attributes["src"] for tag, attributes in self.elements if tag == "img"]
        assert all(source.startswith(prefix) for source in sources)
        return [base64.b64decode(source.removeprefix(prefix)) for source in sources]


def page_of(data):
    return Page((data.path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    settings = SyntheticSettings(
        name="a <cohort> & more",
        description="Made up; 5 < 6.",
        patients=60,
        windows=3,
        window_seconds=4,
        sampling_rate_hz=100,
        leads=("II", "V1"),
        patients_per_shard=10,
        mortality_24h={"prevalence": 0.3},
    )
    folder = tmp_path_factory.mktemp("report") / "data"
    return write_dataset(SyntheticCohort(settings), settings, folder, report=True)


@pytest.fixture(scope="module")
def page(data):
    return page_of(data)


@pytest.fixture(scope="module")
def stored(data):
    return {split: list(read_trajectories(data, split)) for split in SPLITS}


def lead_windows(trajectory):
    """Returns whether each lead shows anything in each window, `(T, C)`."""
    return np.array([[np.isfinite(lead).any() for lead in window.T] for window in trajectory.signals])


def features_of(trajectories):
    """Statics and the structured features' means over windows, `(N, L + M)`."""
    rows = []
    for trajectory in trajectories:
        windows = trajectory.structured.astype(np.float64)
        observed = [column[np.isfinite(column)] for column in windows.T]
        means = [column.mean() if column.size else np.nan for column in observed]
        rows.append([*trajectory.statics.astype(np.float64), *means])
    return np.array(rows)


def check_table(rows, columns):
    """Compares a table's numbers with the trajectories of each column."""
    numbers = [row for row in rows if len(row) > 1 and row[1] and row[0]]
    assert numbers[0] == ["trajectories", *(f"{len(column):,}" for column in columns)]
    values = [features_of(column) for column in columns]
    assert len(numbers) == 1 + values[0].shape[1]
    for index, (_, *cells) in enumerate(numbers[1:]):
        for cell, column in zip(cells, values, strict=True):
            observed = column[np.isfinite(column[:, index]), index] if len(column) else np.array([])
            if not observed.size:
                assert cell == "–"
                continue
            mean, _, deviation = cell.replace("−", "-").partition(" ± ")
            unit = 10.0 ** -len(mean.partition(".")[2])
            assert float(mean) == pytest.approx(observed.mean(), abs=0.51 * unit)
            if observed.size > 1:
                assert float(deviation) == pytest.approx(observed.std(ddof=1), abs=0.51 * unit)


def test_the_table_of_all_trajectories_agrees_with_numpy(page, stored):
    check_table(page.tables["table-all"], [stored[split] for split in SPLITS])


@pytest.mark.parametrize("task", ["elevated_mpap", "mortality_24h"])
def test_the_table_of_a_task_agrees_with_numpy(page, stored, task):
    rows = page.tables[f"table-{task}"]
    check_table(rows, [[t for t in stored[s] if t.labels[task] == label] for s in SPLITS for label in (0, 1)])
    for split, found in zip(SPLITS, rows[0][1:], strict=True):
        labels = np.array([t.labels[task] for t in stored[split]])
        labelled = np.isfinite(labels).sum()
        assert found == f"{split}: n = {labelled}, {100 * np.nansum(labels) / labelled:.1f}% positive"


def test_the_table_of_missing_values_agrees_with_numpy(page, stored, data):
    everything = [*(stored[split] for split in SPLITS), [t for some in stored.values() for t in some]]
    expected = [
        *np.array([np.mean([np.isnan(t.statics) for t in some], axis=0) for some in everything]).T,
        *np.array([np.mean([np.isnan(t.structured).mean(axis=0) for t in some], axis=0) for some in everything]).T,
        *np.array([np.mean([(~lead_windows(t)).mean(axis=0) for t in some], axis=0) for some in everything]).T,
    ]
    rows = [row for row in page.tables["missing"][1:] if row[1]]
    assert len(rows) == len(expected) == 9 + 9 + 2
    for (_, *cells), values in zip(rows, expected, strict=True):
        for cell, value in zip(cells, values, strict=True):
            assert cell == ("< 0.1" if 0 < value < 0.0005 else f"{100 * value:.1f}")
    assert any(value > 0.01 for values in expected for value in values)


def test_the_page_says_what_the_data_set_is(page, data):
    text = " ".join(page.texts)
    for expected in ("a <cohort> & more", "Made up; 5 < 6.", data.fingerprint, "2 leads (II, V1) at 100 Hz"):
        assert expected in text


def test_the_page_needs_nothing_from_elsewhere(page, data):
    raw = (data.path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", raw)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "base"})
    assert not any(key in attributes for _, attributes in page.elements for key in ("href", "srcset", "onload"))
    assert len(page.pictures()) == 2 + 6


def test_the_pictured_trajectories_are_six_of_the_stored(page, stored):
    captions = [attributes["alt"] for tag, attributes in page.elements if tag == "img"][2:]
    names = [caption.split()[1].rstrip(",") for caption in captions]
    assert len(set(names)) == 6
    split_of = {t.name: split for split in SPLITS for t in stored[split]}
    for name, caption in zip(names, captions, strict=True):
        assert f", {split_of[name]}" in caption


def test_verify_accepts_a_report(data):
    assert verify(data) == []


class Hospital:
    """Patients with raw ids, which leave as keyed hashes; one of them is lost, and so are a stay and a record."""

    def __init__(self, leads=("II",), tasks=()):
        self.spec = make_spec(windows=1, leads=leads, tasks=tasks)

    def stage(self, folder):
        (folder / "RAWID").write_text("RAWID")

    def patients(self):
        return [keyed_hash(b"secret", f"RAWID{i}") for i in range(20)]

    def given_splits(self):
        return {patient: SPLITS[index % 3] for index, patient in enumerate(self.patients())}

    def trajectories(self, patient):
        index = self.patients().index(patient)
        if index == 4:
            yield Excluded("patients", "no <stay>", f"RAWID{index} of 2101-01-01")
            return
        yield Seen("stays", 2)
        yield Seen("anchors", 3)
        yield Excluded("stays", "too short", f"RAWID{index} of 2101-01-01")
        yield Excluded("anchors", "no values", f"RAWID{index} of 2101-01-01")
        for number in range(2):
            yield make_trajectory(self.spec, patient, f"{patient}-{number}", seed=10 * index + number)

    def sources(self):
        return {"events.csv": "0" * 64}

    def resume_token(self):
        return "RAWID"

    def notes(self):
        return ["age: 3 values are 90+ & taken as 90."]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return write_dataset(Hospital(), make_settings(), tmp_path_factory.mktemp("hospital") / "data", report=True)


def test_the_flow_is_drawn_with_its_numbers(hospital):
    page = page_of(hospital)
    text = re.sub(r"\s+", " ", " ".join(page.texts))
    assert "20 patients 1 no <stay> 38 stays 19 too short 57 anchors 19 no values 38 trajectories" in text
    assert "14 train 7 patients 12 validation 6 patients 12 test 6 patients" in text
    assert "age: 3 values are 90+ & taken as 90." in text


def test_no_id_or_date_leaves(hospital):
    assert any("RAWID" in detail for details in hospital.examples.values() for detail in details)
    for path in hospital.path.iterdir():
        content = path.read_bytes()
        assert b"RAWID" not in content, path
        assert b"2101-01-01" not in content, path


def test_the_report_does_not_depend_on_the_workers(hospital, tmp_path):
    other = write_dataset(Hospital(), make_settings(), tmp_path / "data", workers=2, report=True)
    assert (other.path / "report.html").read_bytes() == (hospital.path / "report.html").read_bytes()


@pytest.mark.parametrize("changes", [{"leads": ()}, {"leads": ("II", "V1"), "tasks": ("t", "u")}])
def test_cohorts_without_signals_or_with_tasks_have_a_report(tmp_path, changes):
    page = page_of(write_dataset(Hospital(**changes), make_settings(), tmp_path / "data", report=True))
    assert set(page.tables) == {"table-all", "missing", *(f"table-{task}" for task in changes.get("tasks", ()))}
    assert len(page.pictures()) == 2 + 6


def test_a_training_split_alone_has_a_report(tmp_path):
    settings = make_settings(split={"test": 0, "validation": 0})
    page = page_of(write_dataset(TinyCohort(ids=("\ud800",)), settings, tmp_path / "data", report=True))
    assert page.tables["table-all"][1] == ["trajectories", "1", "0", "0"]
    assert len(page.pictures()) == 2 + 1


def pixels(png):
    """Returns whether each pixel is black, `(height, width)`."""
    return matplotlib.image.imread(io.BytesIO(png))[..., :3].max(axis=2) < 0.4


def test_signals_are_drawn_at_25_mm_per_second_and_10_mm_per_millivolt():
    spec = make_spec(windows=2, samples=3000, leads=("II",), structured=1, statics=1)
    # A signal of 1 mV in every other second, in the first window; the last has none.
    signals = np.full((2, 3000, 1), np.nan, np.float32)
    signals[0, :, 0] = np.arange(3000) // 100 % 2
    drawn = pixels(draw_trajectory(spec, make_trajectory(spec, signals=signals)))
    left = 7 * 8  # mm of margin, at 8 pixels each
    paper = drawn[5 * 8 : 25 * 8, left + 8 : left + 249 * 8]
    ink = np.flatnonzero(paper.sum(axis=1) > 500)
    assert ink.max() - ink.min() == pytest.approx(10 * 8, abs=4)
    steps = np.flatnonzero(paper[(ink.max() + ink.min()) // 2])
    steps = steps[np.insert(np.diff(steps) > 10, 0, True)]
    np.testing.assert_allclose(np.diff(steps), 25 * 8, atol=3)
    assert len(steps) == 9


def test_the_ten_seconds_drawn_are_the_fullest_of_the_last_window_with_a_signal():
    spec = make_spec(windows=3, samples=3000, leads=("II", "V1"), structured=1, statics=1)
    full = make_trajectory(spec).signals
    signals = np.full_like(full, np.nan)
    signals[0] = full[0]
    signals[1, 1500:2600] = full[1, 1500:2600]
    gap = make_trajectory(spec, signals=signals)
    early = dataclasses.replace(gap, signals=np.roll(signals, -1500, axis=1))
    elsewhere = dataclasses.replace(gap, signals=np.where(np.arange(3)[:, None, None] == 0, 0, signals))
    strip = slice(5 * 8, 40 * 8)  # below the caption, which says where they begin
    drawn, moved, same = (pixels(draw_trajectory(spec, t))[strip] for t in (gap, early, elsewhere))
    assert drawn.sum() > 1000
    assert (drawn == moved).all()
    assert (drawn == same).all()
    assert drawn[:, 150 * 8 : 240 * 8].any()


ODD = Trajectory("p", "p-0", np.full((1, 0, 0), 0), np.full((1, 2), np.nan), np.full(1, np.nan))


def test_features_that_are_missing_constant_or_far_apart_are_drawn():
    spec = make_spec(windows=1, leads=(), structured=2, statics=1)
    rows = {
        "train": Rows(np.full((3, 1), 7.0), np.full((3, 1, 2), np.nan), np.zeros((3, 1, 0), bool)),
        "test": Rows(np.array([[1e30], [-1e30]]), np.full((2, 1, 2), [np.nan, 0.1]), np.zeros((2, 1, 0), bool)),
    }
    for png in (draw_histograms(spec, rows), draw_missing(spec, rows), draw_trajectory(spec, ODD)):
        assert pixels(png).any()


def test_dollar_signs_in_a_name_are_no_formula():
    spec = make_spec(windows=1, leads=(), structured=2, statics=1)
    spec = spec.model_copy(update={"statics": (Feature(name=r"cost, $\no$", unit="$"),)})
    rows = {"train": Rows(np.full((3, 1), 7.0), np.zeros((3, 1, 2)), np.zeros((3, 1, 0), bool))}
    for png in (draw_histograms(spec, rows), draw_missing(spec, rows), draw_trajectory(spec, ODD)):
        assert pixels(png).any()


def test_a_data_set_without_a_report_has_none(tmp_path):
    data = write_dataset(TinyCohort(), make_settings(), tmp_path / "data")
    assert not (data.path / "report.html").exists()
    assert DataSet.open(data.path).manifest == data.manifest
