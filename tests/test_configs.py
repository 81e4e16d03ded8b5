"""The shipped settings files load, and paper.yaml says what it promises."""

import pytest
import yaml

from tfmmcl.cohorts.catalog import load_cohort, make_cohort
from tfmmcl.config import load
from tfmmcl.evaluation.settings import EvaluateSettings
from tfmmcl.models.encoder import build_encoder
from tfmmcl.pipeline.shapes import segment_samples
from tfmmcl.settings import PretrainSettings


@pytest.mark.parametrize("name", ["demo", "paper", "challenge2015", "challenge2012", "bidmc"])
def test_run_settings_load(repository, name):
    settings = load(repository / "configs" / f"{name}.yaml", PretrainSettings)
    if settings.data.cohort:
        assert (repository / "configs" / settings.data.cohort).is_file()


def test_cohort_files_load(repository):
    for path in (repository / "configs" / "cohorts").glob("*.yaml"):
        assert load_cohort(path).name == {"template": "my_hospital"}.get(path.stem, path.stem)


def test_every_file_opens_with_the_command_that_uses_it(repository):
    for path in (repository / "configs").rglob("*.yaml"):
        head = path.read_text().split("\n\n")[0]
        assert head.startswith("#"), path
        assert "python tools/" in head, path


def test_paper_yaml_spells_out_every_value_and_each_is_the_default(repository):
    path = repository / "configs" / "paper.yaml"
    tree = yaml.safe_load(path.read_text())
    settings = load(path, PretrainSettings)
    assert tree == settings.model_dump(mode="json")
    assert settings == PretrainSettings(data={"path": "data/paper"})


def test_paper_yaml_builds_the_papers_encoder_for_the_papers_shape(repository):
    settings = load(repository / "configs" / "paper.yaml", PretrainSettings)
    spec = make_cohort(load_cohort(repository / "configs" / "cohorts" / "paper_synthetic.yaml")).spec
    assert (spec.windows, spec.samples, len(spec.leads), len(spec.structured), len(spec.statics)) == (10, 7200, 4, 9, 9)
    samples = segment_samples(spec, settings.augmentation)
    encoder = build_encoder(10, 9, 9, samples, 4, settings.encoder)
    assert encoder.count_params() == 22_153_600


def test_evaluation_settings_load(repository):
    paths = sorted((repository / "configs").glob("evaluate_*.yaml"))
    assert len(paths) == 4
    for path in paths:
        load(path, EvaluateSettings)
