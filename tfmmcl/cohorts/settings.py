"""Settings that every cohort file shares, whatever its source."""

from __future__ import annotations

from pydantic import Field

from tfmmcl.cohorts.tables import Table
from tfmmcl.config import Settings


class SplitTable(Table):
    """A table that gives each patient's split, such as MEDS's `metadata/subject_splits.parquet`.

    Attributes:
        patient: The column with the patient's id.
        column: The column with the split.
        train: Texts that mean the training split.
        validation: Texts that mean the validation split.
        test: Texts that mean the test split.
    """

    patient: str = "subject_id"
    column: str = "split"
    train: tuple[str, ...] = ("train",)
    validation: tuple[str, ...] = ("tuning", "validation")
    test: tuple[str, ...] = ("held_out", "test")


class SplitSettings(Settings):
    """How patients are divided: 80/20 into development and test, 20 % of development is validation.

    Attributes:
        seed: Another seed draws another split.
        test: Fraction of all patients held out for testing (the paper's: 0.2).
        validation: Fraction of the remaining patients used for validation (the paper's: 0.2).
        table: Table that gives each patient's split; the fractions then do not count. Default: by hashing.
    """

    seed: int = 0
    test: float = Field(default=0.2, ge=0, lt=1)
    validation: float = Field(default=0.2, ge=0, lt=1)
    table: SplitTable | None = None


class CohortSettings(Settings):
    """What `prepare.py` needs to know of any cohort.

    Attributes:
        name: The cohort's name, written to the manifest.
        description: What whoever uses the data must know, in a sentence or two; printed with every summary.
        split: The patient-level split.
        patients_per_shard: Shards hold whole patients, this many each.
    """

    name: str = Field(min_length=1)
    description: str = ""
    split: SplitSettings = SplitSettings()
    patients_per_shard: int = Field(default=64, ge=1)
