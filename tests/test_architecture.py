"""Data flows one way, and TensorFlow stays where the design allows it: read off the imports themselves."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tfmmcl"
ORDER = [
    "errors",
    "files",
    "drawing",
    "config",
    "settings",
    "finetune_settings",
    "cohorts",
    "records",
    "pipeline",
    "models",
    "objectives",
    "training",
    "export",
    "evaluation",
    "benchmarks",
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def room(module):
    return module.split(".")[1] if "." in module else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_points_up(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here not in ORDER:
        assert here in ("__init__", "command")
        return
    for name in imports(path):
        if name.split(".")[0] == "tfmmcl" and room(name):
            assert ORDER.index(room(name)) <= ORDER.index(here), f"{path.name} imports {name}"


@pytest.mark.parametrize("folder", ["cohorts", "records", "models", "objectives"])
def test_no_tensorflow_in(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        assert "tensorflow" not in {name.split(".")[0] for name in imports(path)}, path


def test_modules_stay_readable():
    long = {str(path): lines for path in MODULES if (lines := len(path.read_text().splitlines())) > 400}
    assert not long
