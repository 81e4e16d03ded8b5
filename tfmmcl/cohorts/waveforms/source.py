"""A subject's records as one signal per lead and channel: read, merged, resampled and filtered.

Samples lie on a grid that starts with each stretch read. A recorded sample stands for the grid point at or just after
it, so a signal may be shifted, by less than one recorded sample.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfmmcl.cohorts.durations import microseconds
from tfmmcl.cohorts.waveforms.index import READERS
from tfmmcl.cohorts.waveforms.recording import Channel, Record
from tfmmcl.cohorts.waveforms.settings import SignalSettings, WaveformInput
from tfmmcl.cohorts.waveforms.signals import (
    carry_gaps,
    condition,
    millivolts_per,
    plausible,
    resample,
    settling_seconds,
)

CONTEXT_SECONDS = 1.0  # more than half the resampling filter's length for anything recorded faster than 26 Hz

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A subject's signals before an anchor, as if they were recorded in one go at the wanted rate.

    A stretch as long as a window's signal is remembered: the first one tried is most often the one that is kept.

    Attributes:
        records: The subject's records by start; where two overlap, the earlier counts where it has a sample.
        root: The folder their paths start from.
        inputs: The inputs they belong to.
        settings: What is wanted.
        anchor: No sample at or after it is read, in microseconds on the subject's axis.
    """

    records: tuple[Record, ...]
    root: Path
    inputs: tuple[WaveformInput, ...]
    settings: SignalSettings
    anchor: int
    _remembered: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)

    def overlapping(self, start: int, stop: int) -> list[Record]:
        """Returns the records that lie in [start, stop), in microseconds, if only in part."""
        return [r for r in self.records if r.start < stop and r.start + microseconds(r.seconds) > start]

    def read(self, start: int, samples: int) -> dict[str, np.ndarray]:
        """Returns every wanted lead, in mV, and channel: `(samples,)` from `start` on, NaN where one is missing.

        Raises:
            InputError: If a file is damaged or missing.
        """
        if samples != self.settings.samples:
            return self._read(start, samples)
        if start not in self._remembered:
            self._remembered[start] = self._read(start, samples)
        return self._remembered[start]

    def read_gaps(self, start: int, samples: int) -> dict[str, np.ndarray]:
        """Returns what `read` does with 0 in place of every number, sooner."""
        context = self._context_samples()
        return _inner(self._merged(start, samples, context, carry_gaps), context)

    def _read(self, start: int, samples: int) -> dict[str, np.ndarray]:
        settings = self.settings
        context = self._context_samples()
        found = self._merged(start, samples, context, resample)
        for lead in settings.leads:
            conditioned = condition(found[lead], settings.sampling_rate_hz, settings.conditioning)
            found[lead] = plausible(conditioned, settings.plausible_mv)  # filters overshoot at steps
        return _inner(found, context)

    def _context_samples(self) -> int:
        """Returns how many samples before and after a stretch its filters take into account."""
        rate = self.settings.sampling_rate_hz
        # Whole seconds, so that the grid's place between recorded samples does not depend on it.
        return round(math.ceil(CONTEXT_SECONDS + settling_seconds(rate, self.settings.conditioning)) * rate)

    def _merged(
        self, start: int, samples: int, context: int, bring: Callable[[np.ndarray, float, float], np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns lead or channel → `(context + samples + context,)`, brought to the wanted rate by `bring`."""
        settings = self.settings
        rate = settings.sampling_rate_hz
        first = start - microseconds(context / rate)
        stop = min(start + microseconds((samples + context) / rate), self.anchor)
        wanted = {**settings.leads, **settings.channels}
        found = {name: np.full(context + samples + context, np.nan) for name in wanted}
        for record in self.overlapping(first, stop):
            of = self.inputs[record.input]
            for name, channels in READERS[of.format].read(self.root, record, of, wanted, first, stop).items():
                for channel in channels:
                    seconds = (record.start - start) * 1e-6 + context / rate + channel.first
                    place = max(0, math.ceil(seconds * rate - 1e-6))
                    skip = max(0, math.floor((place / rate - seconds) * channel.rate_hz + 1e-6))
                    brought = bring(self._in_unit(record, name, channel)[skip:], channel.rate_hz, rate)
                    here = found[name][place : place + brought.size]
                    np.copyto(here, brought[: here.size], where=np.isnan(here))
        return found

    def _in_unit(self, record: Record, name: str, channel: Channel) -> np.ndarray:
        """Returns a lead's plausible values in mV, none if its unit is not one of voltage; a channel's as they are."""
        if name in self.settings.channels:
            return np.where(np.isfinite(channel.values), channel.values, np.nan)
        factor = millivolts_per(channel.unit)
        if factor is None:
            _warn_of_unit(record, name, channel.unit)
            return np.full(channel.values.size, np.nan)
        return plausible(channel.values * factor, self.settings.plausible_mv)


def _inner(stretches: dict[str, np.ndarray], context: int) -> dict[str, np.ndarray]:
    return {name: values[context : values.size - context] for name, values in stretches.items()}


@functools.lru_cache(maxsize=1024)  # once for each record
def _warn_of_unit(record: Record, lead: str, unit: str) -> None:
    logger.warning("lead %s is in '%s', expected mV, uV, µV or V; it is left out.", lead, unit)
