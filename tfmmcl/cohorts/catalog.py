"""Cohort files: which sources there are, and how a file becomes a cohort."""

from __future__ import annotations

from pathlib import Path

from tfmmcl.cohorts.identity import load_key
from tfmmcl.cohorts.recorded.settings import RecordedSettings
from tfmmcl.cohorts.settings import CohortSettings
from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort, SyntheticSettings
from tfmmcl.cohorts.trajectory import Cohort
from tfmmcl.config import read_yaml, validate
from tfmmcl.errors import InputError, nearest

_SCHEMAS: dict[str, type[CohortSettings]] = {"synthetic": SyntheticSettings, "recorded": RecordedSettings}


def load_cohort(path: str | Path) -> CohortSettings:
    """Reads a cohort file; its `source` says which settings it may hold.

    Raises:
        InputError: If the file cannot be read, or a key or value is wrong.
    """
    tree = read_yaml(path)
    source = tree.get("source")
    if not isinstance(source, str) or source not in _SCHEMAS:
        hint = nearest(str(source), _SCHEMAS)
        raise InputError(f"{path}: key 'source': found {source!r}, expected one of {', '.join(_SCHEMAS)}{hint}.")
    return validate(tree, _SCHEMAS[source], str(path))


def make_cohort(settings: CohortSettings, root: str | Path | None = None, id_key: str | Path | None = None) -> Cohort:
    """Returns the cohort that the settings describe.

    Args:
        settings: What `load_cohort` returned.
        root: The folder or archive with the raw data. Default None: the cohort is generated.
        id_key: File with the key that ids are hashed with. Default None: see `identity.load_key`.

    Raises:
        InputError: If there is no root for a cohort that reads one, or one for a cohort that reads none, or no key.
    """
    if isinstance(settings, SyntheticSettings):
        if root is not None:
            raise InputError(f"--root {root}: cohort '{settings.name}' is generated and reads no raw data.")
        return SyntheticCohort(settings)
    if isinstance(settings, RecordedSettings):
        if root is None:
            raise InputError(f"cohort '{settings.name}' needs --root, the folder with its raw data.")
        from tfmmcl.cohorts.recorded.cohort import RecordedCohort  # polars takes a while to import

        return RecordedCohort(settings, root, load_key(id_key)[0])
    raise TypeError(f"no cohort for {type(settings).__name__}")
