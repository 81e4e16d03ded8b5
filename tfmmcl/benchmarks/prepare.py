"""Preparation against a plain wfdb and pandas loop that does the same work, on records made for the purpose."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfmmcl.benchmarks.memory import peak_bytes

RATE_HZ = 250
LEADS = ("I", "II", "III", "V1")
RATE_UP_DOWN = (24, 25)  # from 250 to 240 Hz
WINDOWS, WINDOW_SECONDS, SIGNAL_SECONDS, TO_HZ = 10, 180, 30, 240
SPAN_SECONDS = WINDOWS * WINDOW_SECONDS
STATISTICS = ("mean", "std", "min", "max", "last")
COHORT = {
    "name": "benchmark",
    "source": "recorded",
    "inputs": {
        "waveforms": [{"format": "wfdb", "path": "waves/*.hea", "start": "zero"}],
        "events": [
            {
                "format": "long",
                "path": "vitals.csv",
                "subject": {"column": "patient"},
                "time": {"column": "seconds", "unit": "s"},
                "code": "code",
                "value": "value",
            }
        ],
    },
    "variables": {"hr": {"codes": ["HR"], "unit": "bpm"}, "spo2": {"codes": ["SpO2"], "unit": "%"}},
    "stays": {"start": "time_zero"},
    "anchors": [{"after_start": f"{SPAN_SECONDS} s"}],
    "windows": {"count": WINDOWS, "length": f"{WINDOW_SECONDS} s"},
    "signals": {
        "leads": {lead: [lead] for lead in LEADS},
        "length": f"{SIGNAL_SECONDS} s",
        "sampling_rate_hz": TO_HZ,
        "flat_mv": 0,
    },
    "structured": [{"variable": name, "statistics": STATISTICS} for name in ("hr", "spo2")],
    "statics": {"hr": {}},
}


@dataclass(frozen=True)
class Measured:
    """One way of preparing one folder.

    Attributes:
        seconds: Wall time, imports not included.
        trajectories: How many were written.
        megabytes: Size of the raw files.
        peak_megabytes: Largest resident memory of the process.
    """

    seconds: float
    trajectories: int
    megabytes: float
    peak_megabytes: float


def run(patients: int, workers: int = 1) -> dict[str, Any]:
    """Measures both ways on `patients` records and on ten times as many; prints as it goes.

    Args:
        patients: Records of half an hour, 3.6 MB each, in the smaller folder.
        workers: Processes of ours; the plain loop has one.

    Returns:
        Every figure printed, by name.
    """
    with tempfile.TemporaryDirectory(prefix="tfmmcl-benchmark-") as folder:
        small, large = Path(folder) / "1x", Path(folder) / "10x"
        size = f"records of {SPAN_SECONDS / 60:g} min with {len(LEADS)} leads at {RATE_HZ} Hz"
        print(f"making {patients} and {10 * patients} {size}", flush=True)
        make_raw(small, patients)
        make_raw(large, 10 * patients)
        plain = _measure(plain_loop, small, Path(folder) / "plain.tfrecord", 1)
        plain_tenfold = _measure(plain_loop, large, Path(folder) / "plain10.tfrecord", 1)
        ours = _measure(prepare, small, Path(folder) / "data1", workers)
        tenfold = _measure(prepare, large, Path(folder) / "data10", workers)
        difference = compare(Path(folder) / "plain.tfrecord", Path(folder) / "data1")
    rows = {
        "plain loop, 1×": (plain, 1),
        "plain loop, 10×": (plain_tenfold, 1),
        "tfmmcl, 1×": (ours, workers),
        "tfmmcl, 10×": (tenfold, workers),
    }
    print(f"{'':16}{'trajectories':>14}{'seconds':>9}{'per s and core':>16}{'MB/s and core':>15}{'peak MB':>9}")
    for name, (item, cores) in rows.items():
        print(
            f"{name:16}{item.trajectories:14,}{item.seconds:9.1f}{item.trajectories / item.seconds / cores:16.1f}"
            f"{item.megabytes / item.seconds / cores:15.1f}{item.peak_megabytes:9.0f}"
        )
    speed = plain_tenfold.seconds / tenfold.seconds
    cost = (tenfold.seconds / tenfold.trajectories) / (ours.seconds / ours.trajectories)
    memory = tenfold.peak_megabytes / ours.peak_megabytes
    print(f"tfmmcl / plain loop, 10×: {speed:.2f}× as fast ({workers} process{'es' * (workers > 1)} against one)")
    print(f"ten times the records: {cost:.2f}× the time per trajectory, {memory:.2f}× the peak memory")
    print(
        f"largest difference between the two ways: {difference['structured']:.2g} in structured features, "
        f"{difference['signals_mv']:.2g} mV in signals away from a window's ends"
    )
    return {
        "rows": {name: asdict(item) for name, (item, _) in rows.items()},
        "workers": workers,
        "times_as_fast": speed,
        "tenfold_cost_per_trajectory": cost,
        "tenfold_peak_memory": memory,
        "largest_difference": difference,
    }


def make_raw(root: Path, patients: int) -> None:
    """Writes one half-hour WFDB record and a value of two vital signs a minute for each patient."""
    import wfdb
    from scipy.signal import butter, sosfilt

    (root / "waves").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lowpass = butter(4, 40, fs=RATE_HZ, output="sos")
    signal = 3 * sosfilt(lowpass, rng.normal(0, 0.3, (SPAN_SECONDS * RATE_HZ, len(LEADS))), axis=0)
    with open(root / "vitals.csv", "w") as file:
        file.write("patient,seconds,code,value\n")
        for patient in range(patients):
            shifted = np.roll(signal, int(rng.integers(len(signal))), axis=0)
            name = f"p{patient:05d}"
            wfdb.wrsamp(
                name,
                fs=RATE_HZ,
                units=["mV"] * len(LEADS),
                sig_name=list(LEADS),
                d_signal=np.rint(shifted * 1000).astype(np.int64),
                adc_gain=[1000.0] * len(LEADS),
                baseline=[0] * len(LEADS),
                fmt=["16"] * len(LEADS),
                write_dir=str(root / "waves"),
            )
            for second in range(0, SPAN_SECONDS, 60):
                file.write(
                    f"{name},{second},HR,{rng.normal(80, 10):.1f}\n{name},{second},SpO2,{rng.normal(96, 1):.1f}\n"
                )


def prepare(raw: Path, out: Path, workers: int) -> int:
    """Prepares a data set as tools/prepare.py does; returns the number of trajectories."""
    from tfmmcl.cohorts.recorded.cohort import RecordedCohort
    from tfmmcl.cohorts.recorded.settings import RecordedSettings
    from tfmmcl.records.writer import write_dataset

    settings = RecordedSettings.model_validate(COHORT)
    data = write_dataset(RecordedCohort(settings, raw, b"only for measuring"), settings, out, workers)
    return sum(count.trajectories for count in data.manifest.splits.values())


def plain_loop(raw: Path, out: Path, _: int) -> int:
    """The loop one would write: read, look for 30 complete seconds, resample, summarise, write, and sum up.

    It filters as steeply as ours when it resamples, and leaves what a data set needs: the leads' mean and standard
    deviation, and the file's checksum.
    """
    import pandas as pd
    import tfrecord
    import wfdb
    from scipy.signal import firwin, kaiserord, resample_poly

    taps, beta = kaiserord(80, 0.2 / RATE_UP_DOWN[1])
    lowpass = firwin(taps | 1, 0.9 / RATE_UP_DOWN[1], window=("kaiser", beta))
    moments = []
    vitals = pd.read_csv(raw / "vitals.csv")
    vitals["window"] = vitals["seconds"] // WINDOW_SECONDS
    by_patient = dict(iter(vitals.groupby("patient")))
    writer = tfrecord.TFRecordWriter(str(out))
    count, length = 0, SIGNAL_SECONDS * RATE_HZ
    for header in sorted((raw / "waves").glob("*.hea")):
        record = wfdb.rdrecord(str(header.with_suffix("")))
        order = [record.sig_name.index(lead) for lead in LEADS]
        signals = []
        for window in range(WINDOWS):
            begin = window * WINDOW_SECONDS * RATE_HZ
            piece = record.p_signal[begin : begin + WINDOW_SECONDS * RATE_HZ, order]
            starts = range(0, len(piece) - length + 1, length)
            start = next((at for at in starts if not np.isnan(piece[at : at + length]).any()), 0)
            signals.append(resample_poly(piece[start : start + length], *RATE_UP_DOWN, axis=0, window=lowpass))
        columns = []
        for code in ("HR", "SpO2"):
            frame = by_patient[header.stem]
            grouped = frame[frame["code"] == code].groupby("window")["value"]
            columns.append(grouped.agg(list(STATISTICS)).reindex(range(WINDOWS)).to_numpy())
        values = np.concatenate(signals)
        moments.append((len(values), values.mean(axis=0), values.var(axis=0)))
        stored = np.clip(np.rint(np.stack(signals) * 1000), -32767, 32767).astype("<i2")
        writer.write(
            {
                "patient": (header.stem.encode(), "byte"),
                "signals": (stored.tobytes(), "byte"),
                "structured": (np.concatenate(columns, axis=1).astype("<f4").tobytes(), "byte"),
            }
        )
        count += 1
    writer.close()
    weights, means, variances = map(np.array, zip(*moments))
    mean = np.average(means, axis=0, weights=weights)
    std = np.sqrt(np.average(variances + (means - mean) ** 2, axis=0, weights=weights))
    facts = {"mean": mean.tolist(), "std": std.tolist(), "sha256": hashlib.sha256(out.read_bytes()).hexdigest()}
    out.with_suffix(".json").write_text(json.dumps(facts))
    return count


def compare(plain: Path, data: Path) -> dict[str, float]:
    """Returns the largest differences between the plain loop's trajectories and ours, patient by patient.

    The loop resamples each piece on its own, so its first and last half second differ and are left out.
    """
    from tfmmcl.cohorts.identity import keyed_hash
    from tfmmcl.cohorts.splits import SPLITS
    from tfmmcl.records.framing import read_records
    from tfmmcl.records.manifest import DataSet
    from tfmmcl.records.protos import example_pb2
    from tfmmcl.records.verify import read_trajectories

    dataset = DataSet.open(data)
    ours = {
        item.patient: item for split in SPLITS if dataset.count(split) for item in read_trajectories(dataset, split)
    }
    largest = {"structured": 0.0, "signals_mv": 0.0}
    edge = TO_HZ // 2
    for raw in read_records(str(plain)):
        feature = example_pb2.Example.FromString(raw).features.feature
        patient = keyed_hash(b"only for measuring", feature["patient"].bytes_list.value[0].decode())
        item = ours[patient]
        signals = np.frombuffer(feature["signals"].bytes_list.value[0], "<i2").reshape(item.signals.shape) / 1000
        structured = np.frombuffer(feature["structured"].bytes_list.value[0], "<f4").reshape(item.structured.shape)
        inner = np.abs(item.signals - signals)[:, edge:-edge]
        largest["signals_mv"] = max(largest["signals_mv"], float(np.nanmax(inner)))
        largest["structured"] = max(largest["structured"], float(np.nanmax(np.abs(item.structured - structured))))
    return largest


def _measure(work: Callable[[Path, Path, int], int], raw: Path, out: Path, workers: int) -> Measured:
    """Runs one way in a process of its own, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seconds, trajectories, peak = pool.submit(_timed, work, raw, out, workers).result()
    size = sum(path.stat().st_size for path in raw.rglob("*") if path.is_file())
    return Measured(seconds, trajectories, size / 1e6, peak)


def _timed(work: Callable[[Path, Path, int], int], raw: Path, out: Path, workers: int) -> tuple[float, int, float]:
    import pandas  # noqa: F401  # imports are not what is measured
    import polars  # noqa: F401
    import scipy.signal  # noqa: F401
    import tfrecord  # noqa: F401
    import wfdb  # noqa: F401

    began = time.perf_counter()
    trajectories = work(raw, out, workers)
    seconds = time.perf_counter() - began
    return seconds, trajectories, peak_bytes(children=workers > 1) / 1e6
