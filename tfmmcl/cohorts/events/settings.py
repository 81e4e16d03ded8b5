"""Settings of events: where they are read from, and which codes make a variable."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tfmmcl.cohorts.tables import SubjectSource, Table, check_pattern
from tfmmcl.config import Settings


class TimeColumn(Settings):
    """How a column gives the time.

    Attributes:
        column: Its name.
        unit: `datetime`: dates with times of day; a date alone is its midnight, which may be before what it dates.
            `clock`: hours:minutes[:seconds] since the subject's time zero, the hours without limit. Else a number of
            that unit since time zero. A Parquet column that is a date or a duration already needs no unit.
        format: How a `datetime` is written, in chrono's notation (`%d.%m.%Y %H:%M`). Default: ISO 8601.
    """

    column: str
    unit: Literal["datetime", "clock", "ms", "s", "min", "h", "d"] = "datetime"
    format: str | None = None


class MedsInput(Settings):
    """MEDS: Parquet files with subject_id, time, code and numeric_value (https://github.com/Medical-Event-Data-Standard).

    Attributes:
        format: `meds`.
        path: Glob of the shards below the root.
    """

    format: Literal["meds"]
    path: str = "data/**/*.parquet"


class MimicIvInput(Settings):
    """The MIMIC-IV tables `hosp/{patients,admissions,labevents}` and `icu/{icustays,chartevents}`, gzipped or not.

    They become events with the codes of MIMIC-IV's MEDS release: `LAB//ITEMID//UNIT` for labevents and chartevents,
    `ICU_ADMISSION//UNIT`, `ICU_DISCHARGE//UNIT`, `HOSPITAL_ADMISSION//TYPE//FROM`, `HOSPITAL_DISCHARGE//TO`,
    `MEDS_BIRTH`, `MEDS_DEATH`, `GENDER//F`.

    Attributes:
        format: `mimic_iv`.
        path: The folder that holds `hosp/` and `icu/`, below the root.
    """

    format: Literal["mimic_iv"]
    path: str = "."


class EventTable(Table):
    """What long and wide tables share.

    Attributes:
        subject: Where the subject's id stands.
        time: The time's column. Default: the events have no time and hold from the start, so that nothing may be among
            them that is only known later.
        prefix: What is put before every code, to tell two tables' codes apart.
    """

    subject: SubjectSource
    time: TimeColumn | None = None
    prefix: str = ""


class LongInput(EventTable):
    """One row per event.

    Attributes:
        format: `long`.
        code: The code's column.
        value: The value's column.
    """

    format: Literal["long"]
    code: str
    value: str


class WideInput(EventTable):
    """One column per measurement; its name is the code. A text that is no number makes the code `COLUMN//TEXT`.

    Attributes:
        format: `wide`.
        measurements: The columns to read. Default: all that the variables name.
    """

    format: Literal["wide"]
    measurements: tuple[str, ...] | None = None


class TextInput(Settings):
    """Text files with a value here and there, such as a WFDB header's comments; the values hold from the start.

    Attributes:
        format: `text`.
        path: Glob below the root.
        subject: Regular expression searched for in the file's path; its first group is the subject's id.
        fields: Code → regular expression whose first group is the value. What is no number makes `CODE//TEXT`.
    """

    format: Literal["text"]
    path: str = Field(min_length=1)
    subject: str
    fields: dict[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _patterns(self) -> TextInput:
        for pattern in (self.subject, *self.fields.values()):
            check_pattern(pattern)
        return self


EventInput = Annotated[MedsInput | MimicIvInput | LongInput | WideInput | TextInput, Field(discriminator="format")]


class Code(Settings):
    """A code, and how its values become the variable's: `value * scale + offset`, or by `map`, or always `value`.

    Attributes:
        code: The code; `*` stands for anything (`ICU_ADMISSION//*`).
        scale: What a value is multiplied by.
        offset: What is added then.
        map: Value → the number that it stands for; any other value is missing. Default: values are numbers.
        value: The value that this code stands for, whatever its own. Default: its own.
    """

    code: str = Field(min_length=1)
    scale: float = 1.0
    offset: float = 0.0
    map: dict[float, float] | None = None
    value: float | None = None


def _code(value: Any) -> Any:
    return {"code": value} if isinstance(value, str) else value


class Variable(Settings):
    """Something measured, whatever codes it comes under.

    Attributes:
        codes: The codes, each a text or a `Code`.
        unit: The unit after conversion.
        plausible: Range, ends included, in that unit; a value outside is missing. Default: any number.
    """

    codes: tuple[Annotated[Code, BeforeValidator(_code)], ...] = Field(min_length=1)
    unit: str = "1"
    plausible: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _ascending(self) -> Variable:
        if self.plausible and not self.plausible[0] < self.plausible[1]:
            raise ValueError("plausible is not an ascending range")
        return self
