"""Patient-level splits by hashing: a patient's split depends on the id and the seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

from tfmmcl.cohorts.settings import SplitSettings

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def position(patient: str, seed: int) -> float:
    """Returns a patient's place in [0, 1), uniform over patients and the same on every machine.

    Args:
        patient: The id, any text at all.
        seed: Another seed gives another, independent place.
    """
    # surrogatepass: an id read from a file with broken encoding is still an id.
    digest = hashlib.sha256(f"{seed}:{patient}".encode("utf-8", "surrogatepass")).digest()
    # 53 bits, so that the quotient is exact and never rounds up to 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def split_of(patient: str, settings: SplitSettings) -> Split:
    """Returns the patient's split. Adding or removing other patients never moves one."""
    place = position(patient, settings.seed)
    if place < settings.test:
        return "test"
    if place < settings.test + (1 - settings.test) * settings.validation:
        return "validation"
    return "train"


def assign(
    patients: Iterable[str], settings: SplitSettings, given: Mapping[str, Split] | None = None, secret: str = ""
) -> dict[Split, list[str]]:
    """Groups patients by split, in each split ordered by their hash, so that shards mix admission order.

    Args:
        patients: Their ids.
        settings: The split's settings.
        given: Patient → split, where a table decides. Default None: hashing does.
        secret: Hashed too for the order, though not for the splits: whoever knows the ids must not learn from it
            whose place in a shard is whose.
    """
    groups: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for patient in sorted(set(patients), key=lambda patient: (position(secret + patient, settings.seed), patient)):
        groups[split_of(patient, settings) if given is None else given[patient]].append(patient)
    return groups
