"""Settings of a recorded cohort: from whatever a hospital keeps to trajectories, without code."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfmmcl.cohorts.durations import Duration
from tfmmcl.cohorts.events.settings import EventInput, Variable
from tfmmcl.cohorts.settings import CohortSettings
from tfmmcl.cohorts.tables import SubjectSource, Table, check_pattern
from tfmmcl.cohorts.waveforms.settings import SignalSettings, WaveformInput
from tfmmcl.config import Settings
from tfmmcl.errors import nearest

Statistic = Literal["mean", "std", "min", "max", "median", "first", "last", "count"]
ECG = "ecg"


class InputSettings(Settings):
    """What is read.

    Attributes:
        events: Where events come from.
        waveforms: Where signals come from; needed where the cohort has `signals`.
        time_zone: IANA name of the zone in which times without one were written, where some inputs' times carry a
            zone. Default: none does, and all are taken as they stand.
    """

    events: tuple[EventInput, ...] = ()
    waveforms: tuple[WaveformInput, ...] = ()
    time_zone: str | None = None


class PatientSettings(Settings):
    """Whose a subject is, where that is not the subject itself.

    Attributes:
        file: Text file below the root that names the patient; `{subject}` stands for the subject's id.
        pattern: Regular expression searched for in it; its first group is the patient's id.
        same: Groups of subjects known to be one patient's, who goes by the group's first. They are ids, and so are
            not written to the manifest.
    """

    file: str | None = None
    pattern: str | None = None
    same: tuple[tuple[str, ...], ...] = Field(default=(), exclude=True)

    @model_validator(mode="after")
    def _consistent(self) -> PatientSettings:
        if (self.file is None) != (self.pattern is None):
            raise ValueError("'file' and 'pattern' go together")
        check_pattern(self.pattern)
        grouped = [subject for group in self.same for subject in group]
        if len(set(grouped)) != len(grouped):
            raise ValueError("same names a subject twice")
        return self


class StaySettings(Settings):
    """Stretches of a subject's time in which trajectories lie.

    Attributes:
        start: Variable whose events begin a stay, or `time_zero`: the one stay begins at time zero.
        end: Variable whose events end it: the first at or after its start that does not end the stay before; at the
            latest, the next start does. Default: no end.
    """

    start: str
    end: str | None = None


class AnchorSettings(Settings):
    """When trajectories end. Exactly one of the first three is given; nothing at or after the anchor is read.

    Attributes:
        each: At each event of this variable within a stay.
        every: At this interval through each stay.
        after_start: Once in each stay, this long after its start.
        first: With `every`: the first anchor, this long after the stay's start. Default: the windows' whole span.
    """

    each: str | None = None
    every: Annotated[Duration, Field(gt=0)] | None = None
    after_start: Annotated[Duration, Field(gt=0)] | None = None
    first: Annotated[Duration, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one(self) -> AnchorSettings:
        if sum(item is not None for item in (self.each, self.every, self.after_start)) != 1:
            raise ValueError("expected exactly one of 'each', 'every' and 'after_start'")
        if self.first is not None and self.every is None:
            raise ValueError("'first' goes with 'every'")
        return self


class WindowSettings(Settings):
    """A trajectory's windows; the last ends at the anchor.

    Attributes:
        count: Windows in a trajectory, T.
        length: Length of each.
        stride: From one window's start to the next one's. Default: the length, so that they abut.
    """

    count: int = Field(default=10, ge=1)
    length: Annotated[Duration, Field(gt=0)] = 1800.0
    stride: Annotated[Duration, Field(gt=0)] | None = None

    @property
    def span(self) -> float:
        """Seconds from the first window's start to the anchor."""
        return self.length + (self.count - 1) * (self.stride or self.length)


class StructuredSettings(Settings):
    """One variable's or one rate's summaries in each window; the features are named `NAME_STATISTIC`.

    Attributes:
        variable: The variable to summarise.
        rate_of: Or `ecg`, the heart rate from R peaks of the leads (the first that shows beats in a window), or a
            channel, the pulse rate from its systolic peaks; in bpm.
        name: What the features' names begin with. Default: the variable's or channel's name (`hr` for `ecg`).
        statistics: The summaries; `std` is the sample's (n − 1), NaN with fewer than two values.
    """

    variable: str | None = None
    rate_of: str | None = None
    name: str | None = None
    statistics: tuple[Statistic, ...] = Field(default=("mean", "std", "min", "max", "median"), min_length=1)

    @model_validator(mode="after")
    def _one(self) -> StructuredSettings:
        if (self.variable is None) == (self.rate_of is None):
            raise ValueError("expected either 'variable' or 'rate_of'")
        derived = {"mean", "std", "min", "max", "median"}
        if self.rate_of and (other := set(self.statistics) - derived):
            raise ValueError(
                f"'{min(other)}' of a rate is not available; expected some of {', '.join(sorted(derived))}"
            )
        return self

    @property
    def prefix(self) -> str:
        """What the features' names begin with."""
        return self.name or self.variable or ("hr" if self.rate_of == ECG else self.rate_of)


class StaticSettings(Settings):
    """A feature known once per trajectory: the variable's last value before the anchor.

    Attributes:
        variable: The variable. Default: the one of the feature's own name.
        look_back: How long before the anchor a value may lie. Default: without limit. Values without a time, which
            hold from the start, always count.
    """

    variable: str | None = None
    look_back: Annotated[Duration, Field(gt=0)] | None = None


class AboveRule(Settings):
    """Label 1 where the variable, measured exactly at the anchor, is above the threshold, 0 where it is not.

    Attributes:
        rule: `above`.
        variable: The variable; without a value at the anchor there is no label.
        threshold: In the variable's unit.
        description: What the label means.
    """

    rule: Literal["above"]
    variable: str
    threshold: float
    description: str = ""


class ValueRule(Settings):
    """The label is the variable's value, measured exactly at the anchor: a regression task.

    Attributes:
        rule: `value`.
        variable: The variable; without a value at the anchor there is no label.
        description: What the label means.
    """

    rule: Literal["value"]
    variable: str
    description: str = ""


class WithinRule(Settings):
    """Label 1 where the event happens from the anchor to the horizon, ends included.

    Label 0 where it does not and something shows that the subject was still followed at or after the horizon; none
    where nothing does (censored), or where the event lies before the anchor.

    Attributes:
        rule: `within`.
        event: Variable whose events count.
        horizon: How long after the anchor.
        follow_up: Variables of which any event at or after the horizon shows that the subject was still followed; the
            event itself does too.
        description: What the label means.
    """

    rule: Literal["within"]
    event: str
    horizon: Annotated[Duration, Field(gt=0)]
    follow_up: tuple[str, ...] = Field(min_length=1)
    description: str = ""


class ColumnRule(Table):
    """Label read from a table with one row per subject.

    Attributes:
        rule: `column`.
        subject: Where the subject's id stands.
        column: The column with the label.
        positive: Texts that mean 1.
        negative: Texts that mean 0; any other text, or none, means that there is no label.
        between: Or: a number from the first to the second of these, ends included, means 1, any other number 0.
        classes: Or: the texts that mean class 0, 1, and so on.
        number_unit: Or: the label is the number that stands there, in this unit.
        description: What the label means.
    """

    rule: Literal["column"]
    subject: SubjectSource
    column: str
    positive: tuple[str, ...] = ("1",)
    negative: tuple[str, ...] = ("0",)
    between: tuple[float, float] | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    number_unit: str | None = None
    description: str = ""

    @model_validator(mode="after")
    def _one_meaning(self) -> ColumnRule:
        if sum(item is not None for item in (self.between, self.classes, self.number_unit)) > 1:
            raise ValueError("expected at most one of 'between', 'classes' and 'number_unit'")
        return self

    def label(self, text: str) -> float | None:
        """Returns the label for what stands in the column, None where there is none."""
        if self.classes:
            return float(self.classes.index(text)) if text in self.classes else None
        if self.between or self.number_unit:
            try:
                number = float(text)
            except ValueError:
                return None
            if not math.isfinite(number):
                return None
            return float(self.between[0] <= number <= self.between[1]) if self.between else number
        return 1.0 if text in self.positive else 0.0 if text in self.negative else None


TaskRule = Annotated[AboveRule | ValueRule | WithinRule | ColumnRule, Field(discriminator="rule")]


class RequireSettings(Settings):
    """What a trajectory must have to be kept.

    Attributes:
        within_stay: Its first window must not begin before the stay.
        structured_windows: Windows in which some structured feature has a value.
        signal_windows: Windows in which some lead shows a signal, in a cohort with signals.
    """

    within_stay: bool = True
    structured_windows: int = Field(default=1, ge=0)
    signal_windows: int = Field(default=1, ge=0)


class RecordedSettings(CohortSettings):
    """A cohort of recorded data.

    Attributes:
        source: `recorded`.
        inputs: What is read.
        patients: Whose a subject is. Default: each subject is a patient.
        variables: Name → what is measured, and its codes.
        stays: Where trajectories lie. Default: one stay per subject, from its first event or record on, without end.
        anchors: When trajectories end; those that coincide make one trajectory.
        windows: The windows before the anchor.
        signals: What of the waveforms is kept. Default: no signals.
        structured: Summaries per window.
        statics: Name → feature known once per trajectory.
        tasks: Name → rule that gives the label.
        require: What a trajectory must have.
    """

    source: Literal["recorded"]
    inputs: InputSettings
    patients: PatientSettings = PatientSettings()
    variables: dict[str, Variable] = Field(default_factory=dict)
    stays: StaySettings | None = None
    anchors: tuple[AnchorSettings, ...] = Field(min_length=1)
    windows: WindowSettings = WindowSettings()
    signals: SignalSettings | None = None
    structured: tuple[StructuredSettings, ...] = Field(min_length=1)
    statics: dict[str, StaticSettings] = Field(min_length=1)
    tasks: dict[str, TaskRule] = Field(default_factory=dict)
    require: RequireSettings = RequireSettings()

    @model_validator(mode="after")
    def _consistent(self) -> RecordedSettings:
        if not self.inputs.events and not self.inputs.waveforms:
            raise ValueError("inputs names neither events nor waveforms")
        if bool(self.inputs.waveforms) != (self.signals is not None):
            raise ValueError("'signals' and 'inputs.waveforms' go together")
        for where, name in self._named_variables():
            if name not in self.variables:
                raise ValueError(
                    f"{where} is '{name}', which is not one of the variables{nearest(name, self.variables)}"
                )
        for item in self.structured:
            if item.rate_of and item.rate_of not in self._rates():
                found = nearest(item.rate_of, self._rates())
                raise ValueError(f"structured has rate_of '{item.rate_of}', expected one of {self._rates()}{found}")
        if self.signals and self.signals.length > self.windows.length + 1e-9:
            raise ValueError(
                f"signals.length is {self.signals.length:g} s, expected at most windows.length "
                f"({self.windows.length:g} s)"
            )
        return self

    def _rates(self) -> list[str]:
        return [ECG, *self.signals.channels] if self.signals else []

    def _named_variables(self) -> list[tuple[str, str]]:
        """Returns every place that names a variable, and the name."""
        found = [(f"structured[{i}].variable", item.variable) for i, item in enumerate(self.structured)]
        found += [(f"statics.{name}", item.variable or name) for name, item in self.statics.items()]
        found += [(f"anchors[{i}].each", item.each) for i, item in enumerate(self.anchors)]
        if self.stays:
            found += [("stays.end", self.stays.end)]
            found += [("stays.start", self.stays.start)] if self.stays.start != "time_zero" else []
        for name, rule in self.tasks.items():
            if isinstance(rule, (AboveRule, ValueRule)):
                found.append((f"tasks.{name}.variable", rule.variable))
            elif isinstance(rule, WithinRule):
                found.append((f"tasks.{name}.event", rule.event))
                found += [(f"tasks.{name}.follow_up", item) for item in rule.follow_up]
        return [(where, name) for where, name in found if name is not None]
