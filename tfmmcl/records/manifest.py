"""`manifest.json`: what a data set on disk is, and the handle that opens one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tfmmcl.cohorts.splits import SPLITS, Split
from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.errors import InputError
from tfmmcl.files import RemotePath, location
from tfmmcl.records.flow import FlowLevel
from tfmmcl.records.statistics import Statistics


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Shard(_Record):
    """One TFRecord file; `path` is relative to the data set's folder."""

    path: str
    split: Split
    records: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if PurePosixPath(path).name != path or path in ("", ".", "..") or "\0" in path:
            raise ValueError("expected a plain file name inside the data set's folder")
        return path


class LabelCount(_Record):
    """How many trajectories of a split have a label, and how many of those are positive, where it is binary."""

    labelled: int = 0
    positive: int = 0


class SplitCount(_Record):
    """What a split holds; `patients` are those with at least one trajectory."""

    patients: int = 0
    trajectories: int = 0
    labels: dict[str, LabelCount] = {}


class Provenance(_Record):
    """Where the data came from.

    Attributes:
        cohort: Every cohort setting, resolved.
        sources: Source → SHA-256.
        flow: How many patients, stays, records and anchors there were, and how many were lost and why.
        notes: Sentences on what was found in the sources.
        tfmmcl: The version that wrote it.
    """

    # Data sets made by earlier versions say other things here, and can still be used.
    model_config = ConfigDict(extra="ignore")

    cohort: dict[str, Any]
    sources: dict[str, str]
    flow: list[FlowLevel] = []
    notes: list[str] = []
    tfmmcl: str


class Manifest(_Record):
    """The whole of `manifest.json`."""

    format_version: Literal[1] = 1
    spec: Spec
    missing_sample: Literal[-32768]
    shards: list[Shard]
    splits: dict[Split, SplitCount]
    statistics_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    provenance: Provenance

    @model_validator(mode="after")
    def _possible(self) -> Manifest:
        """Refuses counts and shapes that the files are too small for, before memory is asked for by them."""
        spec = self.spec
        numbers = spec.windows * len(spec.structured) + len(spec.statics)
        least = 16 + 4 * numbers + 2 * spec.windows * spec.samples * len(spec.leads)
        for shard in self.shards:
            if shard.bytes < shard.records * least:
                raise ValueError(
                    f"{shard.path} has {shard.bytes} bytes, expected at least {shard.records * least} for "
                    f"{shard.records} records of the shape in spec"
                )
        return self

    @field_validator("splits")
    @classmethod
    def _complete(cls, splits: dict[Split, SplitCount]) -> dict[Split, SplitCount]:
        missing = [split for split in SPLITS if split not in splits]
        if missing:
            raise ValueError(f"expected {', '.join(SPLITS)}, but there is no {missing[0]}")
        return splits


@dataclass(frozen=True)
class DataSet:
    """A prepared data set on disk.

    Attributes:
        path: Its folder, on disk or where TensorFlow's file systems reach.
        manifest: Its manifest, validated.
        examples: Reason → details of a few that were lost for it. They may name files and ids, so only the data set
            that was just written has them, for the terminal; they are not on disk.
        replaced: Shard → the file that stands in for it, see `records.salvage`.
        known_as: The fingerprint, where it is not that of the manifest: shards that were replaced do not change it.
    """

    path: Path | RemotePath
    manifest: Manifest
    examples: Mapping[str, list[str]] = field(default_factory=dict)
    replaced: Mapping[str, Path] = field(default_factory=dict)
    known_as: str | None = None

    @classmethod
    def open(cls, path: str | Path | RemotePath) -> DataSet:
        """Opens a folder that `prepare` wrote; raises `InputError` if it is not one."""
        path = location(path)
        file = path / "manifest.json"
        if not path.is_dir():
            raise InputError(f"{path}: no such data set folder; make one with tools/prepare.py.")
        try:
            tree = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{file}: no such file; expected a data set made by tools/prepare.py.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{file}: cannot be read as JSON ({error}).") from None
        try:
            return cls(path, Manifest.model_validate(tree))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"])) or "the whole file"
            message = " ".join(first["msg"].split()).removeprefix("Value error, ").rstrip(".")
            raise InputError(f"{file}: {key!r} is wrong: {message[:1].lower()}{message[1:]}.") from None

    @property
    def spec(self) -> Spec:
        """Names, units and shapes."""
        return self.manifest.spec

    @cached_property
    def statistics(self) -> Statistics:
        """The training split's statistics."""
        return Statistics.load(self.path / "statistics.npz", self.spec)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any record, statistic or the spec changes."""
        if self.known_as is not None:
            return self.known_as
        parts = [self.spec.model_dump_json(), self.manifest.statistics_sha256]
        parts += [f"{shard.path}:{shard.sha256}" for shard in self.manifest.shards]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def file(self, shard: Shard) -> Path | RemotePath:
        """Returns where a shard is."""
        return self.replaced.get(shard.path, self.path / shard.path)

    def count(self, split: Split) -> int:
        """Returns the number of trajectories in a split."""
        return sum(shard.records for shard in self.manifest.shards if shard.split == split)

    def shards(self, split: Split) -> list[str]:
        """Returns the paths of a split's shards.

        Raises:
            InputError: If the split has no trajectories, or a shard is missing or has another size.
        """
        shards = [shard for shard in self.manifest.shards if shard.split == split and shard.records]
        if not shards:
            raise InputError(f"{self.path}: the {split} split has no trajectories.")
        for shard in shards:
            file = self.file(shard)
            if not file.is_file():
                raise InputError(f"{file}: no such file; the manifest lists it with {shard.records} records.")
            size = file.stat().st_size
            if size != shard.bytes:
                raise InputError(f"{file}: found {size} bytes, expected {shard.bytes}.")
        return [str(self.file(shard)) for shard in shards]
