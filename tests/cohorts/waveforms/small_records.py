"""Writes small WFDB records, and the settings that read them."""

import numpy as np

from tfmmcl.cohorts.waveforms.index import build_index
from tfmmcl.cohorts.waveforms.settings import SignalSettings, WfdbInput

WFDB = WfdbInput(format="wfdb")


def write_record(folder, signals, rate=250.0, name="rec", base=None):
    """Writes a record; `signals` maps a name to (unit, values), NaN is an invalid sample."""
    import wfdb

    values = np.stack([np.asarray(x, float) for _, x in signals.values()], axis=1)
    wfdb.wrsamp(
        name,
        rate,
        [unit for unit, _ in signals.values()],
        list(signals),
        p_signal=values,
        fmt=["16"] * len(signals),
        # Fixed gains, so that changing one sample changes no other.
        adc_gain=[1e5 if unit == "V" else 1.0 if unit == "uV" else 1000.0 for unit, _ in signals.values()],
        baseline=[0] * len(signals),
        base_date=base and base.date(),
        base_time=base and base.time(),
        write_dir=str(folder),
    )
    return folder / name


def settings(leads=("II",), **changes):
    wanted = {lead: (lead,) for lead in leads} if isinstance(leads, tuple) else leads
    return SignalSettings(leads=wanted, **{"length": "4 s", "sampling_rate_hz": 240, **changes})


def records_of(root, signals, inputs=(WFDB,), subject="rec", **options):
    return build_index(root, inputs, signals, **options).records(subject)


def bounds(*seconds):
    """Returns `(T, 2)` microseconds from pairs of seconds."""
    return np.round(np.array(seconds) * 1e6).astype(np.int64)


def tone(hz, rate, seconds):
    return np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)
