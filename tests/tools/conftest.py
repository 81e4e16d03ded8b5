import subprocess
import sys

import pytest
import yaml
from tiny_cohort import COHORT


@pytest.fixture
def pretrain(repository, small_overrides, tmp_path):
    """Runs the command in an empty folder beside a config of a tiny cohort and network."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"data": {"path": "data/tiny", "cohort": "tiny_cohort.yaml"}}))
    (tmp_path / "tiny_cohort.yaml").write_text(yaml.safe_dump(COHORT))
    work = tmp_path / "work"
    work.mkdir()

    def run(*arguments, config=True, start=subprocess.run, **options):
        command = [sys.executable, str(repository / "tools" / "pretrain.py")]
        if config:
            command += run.small
        command += arguments
        return start(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    run.folder = work
    run.small = ["--config", str(tmp_path / "tiny.yaml"), *small_overrides]
    return run
