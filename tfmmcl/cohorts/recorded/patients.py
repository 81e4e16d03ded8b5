"""Whose a subject is: a patient may have several stays or records, each a subject with a time axis of its own."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from tfmmcl.cohorts.recorded.settings import PatientSettings
from tfmmcl.errors import InputError


def patients_of(subjects: Sequence[str], root: Path, settings: PatientSettings) -> dict[str, str]:
    """Returns subject → patient; by default each subject is a patient.

    Raises:
        InputError: If the file that names a subject's patient is missing or names none: without it the patient's other
            records might end up in another split.
    """
    first = {subject: group[0] for group in settings.same for subject in group}
    return {subject: first.get(subject) or _named(subject, root, settings) for subject in subjects}


def _named(subject: str, root: Path, settings: PatientSettings) -> str:
    if settings.file is None or settings.pattern is None:
        return subject
    name = settings.file.replace("{subject}", glob.escape(subject))
    path = min(root.glob(name), default=None)
    if path is None:
        raise InputError(f"{root / name}: no such file; expected it to name the patient of '{subject}'.")
    found = re.search(settings.pattern, path.read_text(encoding="utf-8", errors="replace"))
    if found is None or not found[1]:
        raise InputError(f"{path}: nothing matches {settings.pattern!r}, expected the patient of '{subject}'.")
    return found[1]
