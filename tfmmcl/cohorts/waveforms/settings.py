"""Settings of waveforms: where records are, and how their signals become windows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfmmcl.cohorts.durations import Duration
from tfmmcl.cohorts.tables import check_pattern
from tfmmcl.config import Settings

Aliases = Annotated[tuple[str, ...], Field(min_length=1)]


class WfdbInput(Settings):
    """WFDB records, single- or multi-segment, with signals in `.dat` or `.mat` files.

    Attributes:
        format: `wfdb`.
        path: Glob of the headers below the root; segments of a multi-segment record and layouts are left aside.
        subject: Regular expression searched for in the header's path; its first group is the subject's id.
        start: Where a record begins on its subject's time axis: `header`, at the header's date and time, or `zero`.
    """

    format: Literal["wfdb"]
    path: str = "**/*.hea"
    subject: str = r"([^/]+)\.hea$"
    start: Literal["header", "zero"] = "zero"

    @model_validator(mode="after")
    def _pattern(self) -> WfdbInput:
        check_pattern(self.subject)
        return self


class CsvInput(Settings):
    """Signals as CSV, perhaps gzipped: one column per signal, one row per sample.

    Attributes:
        format: `csv`.
        path: Glob of the files below the root.
        subject: Regular expression searched for in the file's path; its first group is the subject's id.
        sampling_rate_hz: Samples per second.
        unit: Unit of the leads: mV, uV or V.
        separator: What stands between columns.
    """

    format: Literal["csv"]
    path: str = Field(min_length=1)
    subject: str
    sampling_rate_hz: float = Field(gt=0)
    unit: str = "mV"
    separator: str = Field(default=",", min_length=1, max_length=1)

    @model_validator(mode="after")
    def _pattern(self) -> CsvInput:
        check_pattern(self.subject)
        return self


WaveformInput = Annotated[WfdbInput | CsvInput, Field(discriminator="format")]


class ConditioningSettings(Settings):
    """Zero-phase filters, applied at the final sampling rate; each is off unless given.

    Attributes:
        band_pass_hz: Lowest and highest frequency that pass (Butterworth, 4th order).
        notch_hz: Frequency that is removed, with its width of 1/30 of it: 50 or 60 for mains hum.
        clip_mv: Values beyond ± this become this, in mV.
    """

    band_pass_hz: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    notch_hz: float | None = Field(default=None, gt=0)
    clip_mv: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ascending(self) -> ConditioningSettings:
        if self.band_pass_hz and not self.band_pass_hz[0] < self.band_pass_hz[1]:
            raise ValueError("band_pass_hz is not an ascending range")
        return self


class SignalSettings(Settings):
    """How recorded signals become a trajectory's windows.

    Attributes:
        leads: Wanted lead → recorded names that satisfy it, most preferred first.
        channels: Other signals that heart or pulse rates are derived from (`pulse: [PLETH]`); they are not stored.
        length: Length of the signal kept of each window.
        sampling_rate_hz: Rate every lead is resampled to, in Hz.
        choose: Which part of a window longer than `length` is kept: `first_complete`, the first in which no sample of
            any lead is missing (else the one with the fewest missing), or `cleanest`, the best by
            `neurokit2.ecg_quality` (Zhao and Zhang 2018), the earliest of equals.
        scale_mv: Millivolts per least significant bit of the stored int16.
        flat_mv: A lead whose peak-to-peak range in a window does not exceed this is missing there, in mV.
        plausible_mv: Samples outside this range, in mV, are missing.
        conditioning: Filters.
    """

    leads: dict[str, Aliases] = Field(min_length=1)
    channels: dict[str, Aliases] = Field(default_factory=dict)
    length: Duration = 30.0
    sampling_rate_hz: float = Field(default=240.0, gt=0)
    choose: Literal["first_complete", "cleanest"] = "first_complete"
    scale_mv: float = Field(default=0.001, gt=0)
    flat_mv: float = Field(default=0.02, ge=0)
    plausible_mv: tuple[float, float] = (-32.0, 32.0)
    conditioning: ConditioningSettings = ConditioningSettings()

    @model_validator(mode="after")
    def _consistent(self) -> SignalSettings:
        samples = self.length * self.sampling_rate_hz
        if samples < 1 or abs(samples - round(samples)) > 1e-6:
            raise ValueError(f"length × sampling_rate_hz is {samples:g}, expected a whole number of samples")
        low, high = self.plausible_mv
        limit = 32767 * self.scale_mv
        if not -limit <= low < high <= limit:
            raise ValueError(
                f"plausible_mv is [{low:g}, {high:g}], expected an ascending range within ±{limit:g} mV, "
                f"which is what int16 holds at scale_mv {self.scale_mv:g}"
            )
        if both := self.leads.keys() & self.channels.keys():
            raise ValueError(f"'{min(both)}' is both a lead and a channel")
        band = self.conditioning.band_pass_hz
        highest = max(band[1] if band else 0, self.conditioning.notch_hz or 0)
        if highest >= self.sampling_rate_hz / 2:
            raise ValueError(f"a filter at {highest:g} Hz needs a sampling_rate_hz above {2 * highest:g}")
        return self

    @property
    def samples(self) -> int:
        """Samples in each window's signal, Z."""
        return round(self.length * self.sampling_rate_hz)
