"""Feeds mutated files to whatever reads them: each is accepted, or refused with one sentence; nothing else, ever.

    python tests/faults/mutations.py --inputs 2500 --seed 1

prints a table. What is accepted has to read the same again after it was written out, where there is a writer.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
LIMIT_SECONDS = 60
SCRAPS = (
    "",
    "0",
    "-1",
    "1e308",
    "nan",
    "null",
    "~",
    "[]",
    "{}",
    "999999999999",
    "\x00",
    "ü",
    "../../etc/passwd",
    "&a *a",
)

Check = Callable[[], None]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Returns some bytes flipped, cut out, repeated, or replaced by something that hurts."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(found) + 1)
        stop = min(len(found), start + chance.choice((0, 1, 2, 8, 64)))
        kind = chance.randrange(6)
        if kind == 0 and found:
            found[min(start, len(found) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del found[start:stop]
        elif kind == 2:
            found[start:start] = found[start:stop]
        elif kind == 3:
            found[start:stop] = chance.choice(SCRAPS).encode()
        elif kind == 4:
            del found[start:]
        else:
            found[start:stop] = chance.randbytes(chance.randint(1, 8))
    return bytes(found)


def mutate_tree(data: bytes, chance: random.Random) -> bytes:
    """Returns JSON with one of its values, anywhere, replaced by another kind of value; it is still JSON."""
    tree = json.loads(data)
    places = []

    def visit(node: object) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            places.append((node, key))
            visit(value)

    visit(tree)
    node, key = chance.choice(places)
    kind = chance.randrange(4)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    else:
        node[key] = chance.choice((None, -1, 0, 10**12, 1e308, "", "../x", [], {}, True, [None], "x" * 1000))
    return json.dumps(tree).encode()


def readers(folder: Path) -> dict[str, tuple[Path, Check]]:
    """Makes sound files; returns for each kind the file to mutate, and what reads it and raises `InputError` or not."""
    import numpy as np
    import wfdb

    from tfmmcl.cohorts.catalog import load_cohort
    from tfmmcl.cohorts.recorded.cohort import RecordedCohort
    from tfmmcl.cohorts.recorded.settings import RecordedSettings
    from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort, SyntheticSettings
    from tfmmcl.config import dump, load, validate
    from tfmmcl.records.manifest import DataSet
    from tfmmcl.records.verify import read_trajectories, verify
    from tfmmcl.records.writer import write_dataset
    from tfmmcl.settings import PretrainSettings

    made = SyntheticSettings(name="small", patients=8, windows=2, window_seconds=4, sampling_rate_hz=50, leads=("II",))
    data = write_dataset(SyntheticCohort(made), made, folder / "data").path
    shard = next(data.glob("train-*.tfrecord"))
    whole = {item.name: item for item in read_trajectories(DataSet.open(data), "train")}

    settings = folder / "settings.yaml"
    shutil.copy(REPOSITORY / "configs" / "paper.yaml", settings)
    cohort = folder / "cohort.yaml"
    shutil.copy(REPOSITORY / "configs" / "cohorts" / "challenge2015.yaml", cohort)

    raw = folder / "raw"
    raw.mkdir()
    signal_mv = np.sin(np.arange(1500) / 5)[:, None]
    wfdb.wrsamp("a", 50, ["mV"], ["II"], signal_mv, fmt=["16"], write_dir=str(raw))
    (raw / "events.csv").write_text("who,when,code,value\na,5,HR,80\na,12,HR,85\n")
    recorded = RecordedSettings.model_validate(
        {
            "name": "tiny",
            "source": "recorded",
            "inputs": {
                "waveforms": [{"format": "wfdb", "path": "*.hea", "start": "zero"}],
                "events": [
                    {
                        "format": "long",
                        "path": "events.csv",
                        "subject": {"column": "who"},
                        "time": {"column": "when", "unit": "s"},
                        "code": "code",
                        "value": "value",
                    }
                ],
            },
            "variables": {"hr": {"codes": ["HR"], "unit": "bpm"}},
            "stays": {"start": "time_zero"},
            "anchors": [{"after_start": "20 s"}],
            "windows": {"count": 2, "length": "10 s"},
            "signals": {"leads": {"II": ["II"]}, "length": "4 s", "sampling_rate_hz": 50, "flat_mv": 0},
            "structured": [{"variable": "hr", "statistics": ["mean"]}],
            "statics": {"hr": {}},
        }
    )

    def prepare() -> None:
        out = folder / "prepared"
        try:
            write_dataset(RecordedCohort(recorded, raw, b"key"), recorded, out)
            assert verify(DataSet.open(out)) == []
        finally:
            for left in (out, folder / ".prepared.partial"):
                shutil.rmtree(left, ignore_errors=True)

    def read_settings() -> None:
        found = load(settings, PretrainSettings)
        (folder / "again.yaml").write_text(dump(found), encoding="utf-8")
        assert load(folder / "again.yaml", PretrainSettings) == found

    def read_cohort() -> None:
        found = load_cohort(cohort)
        tree = found.model_dump(mode="json")
        assert validate(tree, type(found), "again").model_dump(mode="json") == tree

    def read_shard() -> None:
        for item in read_trajectories(DataSet.open(data), "train"):
            assert np.array_equal(item.signals, whole[item.name].signals, equal_nan=True)

    return {
        "settings (YAML)": (settings, read_settings),
        "cohort file (YAML)": (cohort, read_cohort),
        "manifest.json": (data / "manifest.json", lambda: verify(DataSet.open(data))),
        "statistics.npz": (data / "statistics.npz", lambda: DataSet.open(data).statistics),
        "shard (TFRecord)": (shard, read_shard),
        "WFDB header": (raw / "a.hea", prepare),
        "event table (CSV)": (raw / "events.csv", prepare),
    }


def run(inputs: int, seed: int, show: bool = True) -> list[str]:
    """Tries so many mutations of each kind of file, prints the table, and returns what went wrong."""
    from tfmmcl.errors import InputError

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {LIMIT_SECONDS} s")

    chance, failures = random.Random(seed), []
    signal.signal(signal.SIGALRM, late)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for kind, (file, check) in readers(Path(name)).items():
            original, counts = file.read_bytes(), Counter()
            check()  # sound as it is
            for _ in range(inputs):
                by_tree = file.suffix == ".json" and chance.random() < 0.5
                data = (mutate_tree if by_tree else mutate)(original, chance)
                file.write_bytes(data)
                signal.alarm(LIMIT_SECONDS)
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        check()
                    counts["accepted"] += 1
                except InputError as error:
                    sentence = str(error)
                    counts["refused"] += 1
                    if "\n" in sentence or not sentence:
                        failures.append(f"{kind}: not one sentence: {sentence!r} for {data[:2000]!r}")
                except Exception:
                    failures.append(f"{kind}: {traceback.format_exc()} for {data[:2000]!r}")
                finally:
                    signal.alarm(0)
            file.write_bytes(original)
            rows.append((kind, inputs, counts["accepted"], counts["refused"], inputs - sum(counts.values())))
    if show:
        print(f"seed {seed}")
        print("| file | mutated | accepted | refused in one sentence | anything else |")
        print("|---|---|---|---|---|")
        for row in [*rows, ("all", *(sum(column) for column in list(zip(*rows))[1:]))]:
            print("| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in row) + " |")
    return failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2500, help="mutations of each kind of file")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    problems = run(arguments.inputs, arguments.seed)
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))
