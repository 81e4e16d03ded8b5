import json
import re

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score
from small_labelled import write_labelled

from tfmmcl.config import validate
from tfmmcl.evaluation.scoring import score
from tfmmcl.export import export_run
from tfmmcl.finetune_settings import FinetuneSettings
from tfmmcl.records.labels import find_task
from tfmmcl.records.verify import read_trajectories
from tfmmcl.training.finetune import finetune
from tfmmcl.training.run_directory import FinetuneDirectory

pytestmark = pytest.mark.xdist_group("exported")


def cells(card, first):
    """Returns the cells of the table row that begins with a cell."""
    (row,) = re.findall(rf"^\| {re.escape(first)} \| (.*) \|$", card, re.MULTILINE)
    return row.split(" | ")


@pytest.fixture(scope="module")
def extras(trained, tmp_path_factory):
    return export_run(trained.run, tmp_path_factory.mktemp("card") / "model") / "assets.extra"


def test_an_encoders_card_holds_the_facts_of_its_run(extras, trained):
    card = (extras / "model_card.md").read_text()
    manifest = json.loads((trained.data.path / "manifest.json").read_text())
    assert trained.data.fingerprint in card
    for split, count in manifest["splits"].items():
        found = cells(card, split)
        assert found[:2] == [str(count["patients"]), str(count["trajectories"])]
        label = count["labels"]["mortality_24h"]
        assert found[3].startswith(f"{label['labelled']} ({label['positive'] / label['labelled']:.1%} positive)")
    train = list(read_trajectories(trained.data, "train"))
    for name, values in (
        ("`sodium` (mmol/L)", np.array([t.statics[0] for t in train], float)),
        ("`heart_rate_mean` (bpm)", np.array([t.structured[:, 0] for t in train], float)),
        ("`V1` (mV)", np.array([t.signals[..., 1] for t in train], float)),
    ):
        mean, deviation = (float(text) for text in cells(card, name)[0].split(" ± "))
        assert mean == pytest.approx(np.nanmean(values), rel=1e-3, abs=1e-5)
        assert deviation == pytest.approx(np.nanstd(values), rel=0.01)
    assert cells(card, "loss")[0] == f"{trained.result['final']['val_loss']:.4g}"
    assert "reads the first 2 s" in card
    assert "synthetic data" in card
    assert "must not be used" in card


def test_beside_it_lie_the_settings_and_an_excerpt_of_the_manifest_and_no_paths(extras, trained):
    settings = yaml.safe_load((extras / "config.yaml").read_text())
    used = yaml.safe_load(trained.run.config.read_text())
    assert settings.pop("data") | {"path": used["data"]["path"]} == used.pop("data")
    assert settings == used
    (block,) = re.findall(r"```yaml\n(.*?)```", (extras / "model_card.md").read_text(), re.DOTALL)
    assert yaml.safe_load(block)["encoder"] == used["encoder"]
    excerpt = json.loads((extras / "manifest.json").read_text())
    manifest = json.loads((trained.data.path / "manifest.json").read_text())
    assert excerpt["spec"] == manifest["spec"]
    assert "shards" not in excerpt
    assert excerpt["fingerprint"] == trained.data.fingerprint
    for path in extras.iterdir():
        assert str(trained.data.path.parent) not in path.read_text()


@pytest.mark.parametrize(("task", "metric"), [("high", "auroc"), ("pressure", "mae"), ("third", "accuracy")])
def test_a_fine_tuned_models_card_has_its_metrics_with_intervals(tmp_path, task, metric):
    data = write_labelled(tmp_path / "data", leads=())
    tree = {"task": task, "data": {"path": str(data.path), "batch_size": 8}, "training": {"epochs": 2}}
    tree["encoder"] = {"signal": None, "recurrent_layers": 1, "recurrent_units": 8}
    run = FinetuneDirectory(tmp_path / "run")
    result = finetune(validate(tree, FinetuneSettings, "test"), run)
    result |= score(run, find_task(data, task))
    card = (export_run(run, result=result) / "assets.extra" / "model_card.md").read_text()
    rows = np.load(run.predictions)
    chosen = rows["split"] == "test"
    labels, predictions = rows["label"][chosen], rows["prediction"][chosen]
    expected = {
        "high": lambda: roc_auc_score(labels, predictions),
        "pressure": lambda: np.abs(labels - predictions).mean(),
        "third": lambda: (predictions.argmax(axis=1) == labels).mean(),
    }[task]()
    numbers = [float(text) for text in re.findall(r"[\d.]+", cells(card, metric)[1])]
    assert numbers[0] == pytest.approx(expected, rel=1e-3)
    if task == "third":
        assert len(numbers) == 1
    else:
        assert numbers[1] < numbers[0] < numbers[2]
        assert [f"{end:.4g}" for end in result["intervals"]["test"][metric]] == [f"{end:.4g}" for end in numbers[1:]]
        assert "95% intervals from 2,000 bootstrap resamples of patients" in card
    assert "synthetic" not in card
    assert f"`{task}`" in card
