"""README's Python runs as it stands, on a run of the demo's shapes."""

import os
import re
import subprocess
import sys

import pytest
import yaml


@pytest.fixture(scope="module")
def workplace(repository, tmp_path_factory):
    """A folder with what README's commands have made by then: a run, which is not trained, and its embeddings."""
    from tfmmcl.cohorts.catalog import load_cohort, make_cohort
    from tfmmcl.config import load
    from tfmmcl.evaluation.embed import embed
    from tfmmcl.evaluation.served import Served
    from tfmmcl.evaluation.sources import DataSetSource
    from tfmmcl.export import export_run
    from tfmmcl.records.writer import write_dataset
    from tfmmcl.settings import PretrainSettings
    from tfmmcl.training.pretrain import build_pretrainer, float32_encoder
    from tfmmcl.training.run_directory import RunDirectory

    folder = tmp_path_factory.mktemp("readme")
    cohort = yaml.safe_load((repository / "configs" / "cohorts" / "demo.yaml").read_text())
    (folder / "cohort.yaml").write_text(yaml.safe_dump(cohort | {"patients": 80}))
    wanted = load_cohort(folder / "cohort.yaml")
    data = write_dataset(make_cohort(wanted), wanted, folder / "data" / "demo")
    small = "{stem_filters: 4, stage_filters: [4], blocks_per_stage: 1, kernel_size: 5, units: 4}"
    given = [f"data.path='{data.path}'", "data.cohort=null", f"encoder.signal={small}", "encoder.recurrent_units=8"]
    settings = load(repository / "configs" / "demo.yaml", PretrainSettings, given)
    run = RunDirectory(folder / "runs" / "demo-001")
    run.start(settings)
    float32_encoder(settings, data, build_pretrainer(settings, data).encoder).save(run.encoder)
    embed(Served(export_run(run)), DataSetSource(data), folder / "embeddings.parquet")
    return folder


def blocks(repository):
    return re.findall(r"^```python\n(.*?)^```", (repository / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_every_python_block_of_the_readme_runs(repository, workplace):
    assert len(blocks(repository)) >= 2
    for block in blocks(repository):
        done = subprocess.run(
            [sys.executable, "-W", "error::FutureWarning", "-c", block],
            cwd=workplace,
            capture_output=True,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        if "roc_auc_score" in block:
            assert 0 <= float(done.stdout) <= 1


def test_the_saved_model_gives_one_embedding(repository, workplace):
    (block,) = (text for text in blocks(repository) if "saved_model.load" in text)
    code = f"{block}\nassert np.isfinite(embedding).all()\nprint(*embedding.shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "8"]
