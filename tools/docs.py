"""Builds the API documentation from the docstrings: one HTML page for each module; any warning is a failure."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from pathlib import Path
from types import ModuleType

from tfmmcl.command import Parser, run

OPTIONAL = {"jax", "torch"}
"""Packages without which a module is left out."""


def main() -> None:
    """Parses the command line and writes the pages."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", default="build/docs", help="the folder to write (default: %(default)s)")
    arguments = parser.parse_args()

    from tfmmcl.errors import InputError

    try:
        import pdoc
    except ImportError:
        raise InputError("pdoc is not installed; pip install -e '.[docs]' does that.") from None

    import tfmmcl

    modules = [tfmmcl, *_below(tfmmcl)]
    for module in modules:
        _name_constructors(module)
    pdoc.render.configure(docformat="google", search=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", UserWarning)
        pdoc.pdoc("tfmmcl", output_directory=Path(arguments.out))
    if messages := [str(warning.message) for warning in found if issubclass(warning.category, UserWarning)]:
        raise InputError(*messages)
    print(f"{Path(arguments.out) / 'index.html'}: {len(modules)} modules")


def _below(package: ModuleType) -> list[ModuleType]:
    """Imports what is in a package, and has its `__all__`, which pdoc goes by, list what could be imported."""
    modules, names = [], []
    for item in pkgutil.iter_modules(package.__path__):
        try:
            module = importlib.import_module(f"{package.__name__}.{item.name}")
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            continue
        names.append(item.name)
        modules += [module, *(_below(module) if item.ispkg else [])]
    package.__all__ = [*getattr(package, "__all__", ()), *names]
    return modules


def _name_constructors(module: ModuleType) -> None:
    """Says where the constructors of named tuples belong; Python does not, and pdoc cannot find their types then."""
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ == module.__name__ and issubclass(kind, tuple):
            kind.__new__.__module__ = module.__name__


if __name__ == "__main__":
    run(main)
