"""Kills commands at random moments, has them continue, and compares what they make with what nobody disturbed.

    python tests/faults/kills.py --kills 30 --seed 1

kills each of prepare, pretrain, finetune and evaluate so many times and prints a table. After every kill the files that
a command leaves whole or not at all are looked at too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from small_network import OVERRIDES

REPOSITORY = Path(__file__).resolve().parent.parent.parent
COHORT = """
name: small
source: synthetic
patients: 120
trajectories_per_patient: 2
patients_per_shard: 10
windows: 2
window_seconds: 4
sampling_rate_hz: 100
leads: [II]
"""
EVALUATION = """
tasks: [mortality_24h]
arms: [rand_init_no_ecg, contrastive_no_ecg]
baselines: [best_static]
modes: [finetune, linear]
fractions: [1.0]
seeds: 2
encoder: {signal: null, structured_units: [4], statics_units: [4], recurrent_layers: 1, recurrent_units: 8}
pretraining: {batch_size: 8, objective: {projection_units: [4]}, training: {epochs: 2, deterministic: true}}
finetuning: {batch_size: 16, training: {epochs: 3}}
resamples: 100
"""


@dataclass
class Command:
    """A command under test.

    Attributes:
        name: Its tool.
        start: Its arguments.
        resume: Its arguments after it was killed.
        made: What it makes, in its folder.
    """

    name: str
    start: list[str]
    resume: list[str]
    made: str
    kills: int = 0
    lives: int = 0
    wrong: list[str] = field(default_factory=list)

    def launch(self, folder: Path, arguments: list[str]) -> subprocess.Popen[str]:
        """Starts it in a folder, in a session of its own, so that its workers die with it."""
        command = [sys.executable, str(REPOSITORY / "tools" / f"{self.name}.py"), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=pipe, text=True, start_new_session=True
        )

    def has_begun(self, folder: Path) -> bool:
        """Returns whether there is anything to continue."""
        return (folder / self.made / "config.yaml").exists()


def commands(data: Path) -> list[Command]:
    """Returns the four commands, to be run on a prepared data set."""
    common = ["--data", str(data), "--out", "made"]
    prepare = ["--cohort", str(data.parent / "cohort.yaml"), "--out", "made", "--workers", "2"]
    pretrain = ["--config", str(data.parent / "pretrain.yaml"), *common, *OVERRIDES]
    pretrain += ["training.deterministic=true", "training.checkpoint_minutes=0", "training.epochs=4"]
    pretrain += ["augmentation.segment.seconds=2", "data.batch_size=16", "objective.projection_units=[8]"]
    finetune = ["--task", "mortality_24h", *common, *OVERRIDES, "training.epochs=6", "training.patience=null"]
    evaluate = ["--config", str(data.parent / "evaluate.yaml"), *common, "--workers", "2"]
    resume = ["--resume", "--out", "made"]
    return [
        Command("prepare", prepare, prepare, "made"),
        Command("pretrain", pretrain, resume, "made"),
        Command("finetune", finetune, resume, "made"),
        Command("evaluate", evaluate, evaluate, "made"),
    ]


def product(command: Command, folder: Path) -> Any:
    """Returns what a command made, without what depends on the time."""
    made = folder / command.made
    if command.name == "prepare":
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(made.iterdir())}
    if command.name == "evaluate":
        found = json.loads((made / "results.json").read_text())
        cells = [{key: value for key, value in cell.items() if key != "seconds"} for cell in found["cells"]]
        return [cells, found["summary"], found["comparisons"]]
    times = ("seconds", "trajectories_per_second", "input_wait_ms", "input_wait_share")
    history = [json.loads(line) for line in (made / "history.jsonl").read_text().splitlines()]
    file = made / ("encoder.keras" if command.name == "pretrain" else "model.keras")
    return [[{key: value for key, value in line.items() if key not in times} for line in history], _weights(file)]


def _weights(file: Path) -> str:
    """Returns a digest of a Keras file's arrays; the file itself has the date in it."""
    import io
    import zipfile

    import h5py

    digest = hashlib.sha256()
    with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as arrays:
        arrays.visititems(
            lambda name, item: (
                digest.update(name.encode() + item[()].tobytes()) if isinstance(item, h5py.Dataset) else None
            )
        )
    return digest.hexdigest()


def check_whole(command: Command, folder: Path) -> str:
    """Returns what is half-written of the files that are there whole or not at all, or an empty string."""
    made = folder / command.made
    if command.name == "prepare" and made.exists() and not (made / "manifest.json").is_file():
        return "the data set's folder is there without its manifest"
    for file in made.rglob("*.json"):
        try:
            json.loads(file.read_text())
        except ValueError:
            return f"{file.name} is no JSON"
    for file in made.glob("*.keras"):
        try:
            _weights(file)
        except Exception as error:
            return f"{file.name} cannot be read: {error}"
    return ""


def is_done_already(command: Command, errors: str) -> bool:
    """Returns whether a command refuses to begin because it was killed after its last file, and has nothing to do."""
    return ("already exists" if command.name == "prepare" else "this run is finished") in errors


def live(command: Command, folder: Path, undisturbed: Any, seconds: float, kills: int, chance: random.Random) -> None:
    """Kills a command up to so many times, then lets it finish, and compares."""
    command.lives += 1
    for _ in range(kills):
        process = command.launch(folder, command.resume if command.has_begun(folder) else command.start)
        time.sleep(chance.uniform(0, seconds))
        ended = process.poll() is not None
        os.killpg(process.pid, signal.SIGKILL) if not ended else None
        _, errors = process.communicate()
        if ended:
            if process.returncode and not is_done_already(command, errors):
                command.wrong.append(f"it ended with {process.returncode}: {errors[-2000:]}")
            break
        command.kills += 1
        if problem := check_whole(command, folder):
            command.wrong.append(problem)
    if not (folder / command.made / "result.json").exists():
        process = command.launch(folder, command.resume if command.has_begun(folder) else command.start)
        _, errors = process.communicate()
        if process.returncode and not is_done_already(command, errors):
            command.wrong.append(f"it did not continue ({process.returncode}): {errors[-2000:]}")
            return
    if product(command, folder) != undisturbed:
        command.wrong.append("what it made is not what the undisturbed run made")


def run(kills: int, seed: int, names: list[str] | None = None) -> list[Command]:
    """Kills each command so many times, at least; prints the table."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "cohort.yaml").write_text(COHORT)
        (root / "evaluate.yaml").write_text(EVALUATION)
        (root / "pretrain.yaml").write_text("data: {path: unused}\n")
        tested = commands(root / "data")
        making = [sys.executable, str(REPOSITORY / "tools" / "prepare.py"), "--cohort", "cohort.yaml", "--out", "data"]
        subprocess.run(making, cwd=root, check=True, stdout=subprocess.DEVNULL)
        for command in tested:
            if names and command.name not in names:
                continue
            (folder := root / command.name).mkdir()
            began = time.monotonic()
            process = command.launch(folder, command.start)
            _, errors = process.communicate()
            assert process.returncode == 0, errors
            seconds, undisturbed = time.monotonic() - began, product(command, folder)
            while command.kills < kills and len(command.wrong) < 5:
                shutil.rmtree(folder)
                folder.mkdir()
                live(command, folder, undisturbed, seconds, chance.randint(1, 5), chance)
                print(f"{command.name}: {command.kills} kills", file=sys.stderr, flush=True)
    print(f"seed {seed}")
    print("| command | kills | runs | ended like the undisturbed run | anything else |\n|---|---|---|---|---|")
    for command in tested:
        same = command.lives - len(command.wrong)
        print(f"| `{command.name}.py` | {command.kills} | {command.lives} | {same} | {len(command.wrong)} |")
    return tested


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="of each command")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--only", nargs="+", help="commands")
    arguments = parser.parse_args()
    problems = [
        problem for command in run(arguments.kills, arguments.seed, arguments.only) for problem in command.wrong
    ]
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))
