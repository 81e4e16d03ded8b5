import importlib.util
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pdoc") is None, reason="pdoc is not installed: pip install -e '.[docs]'")
def test_the_documentation_builds_without_a_warning(repository, tmp_path):
    command = [sys.executable, str(repository / "tools" / "docs.py"), "--out", "pages"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pages/index.html: ")
    made = {str(path.relative_to(tmp_path / "pages")) for path in (tmp_path / "pages").rglob("*.html")}
    for module in (repository / "tfmmcl").rglob("*.py"):
        name = module.relative_to(repository).with_suffix("").as_posix().removesuffix("/__init__")
        optional = any(text in module.read_text() for text in ("import torch\n", "import jax\n"))
        assert optional or f"{name}.html" in made, name
    page = (tmp_path / "pages" / "tfmmcl" / "objectives" / "contrastive.html").read_text()
    assert "Raghu et al." in page
    assert "Arguments:" in page  # the Google style was understood
