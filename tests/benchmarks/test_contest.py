import os
import time
from statistics import median

import pytest

from tfmmcl.benchmarks.contest import Entry, Outcome, contest, times_as_fast
from tfmmcl.benchmarks.stepping import Stepping, Work
from tfmmcl.errors import InputError


class Logged:
    """Appends its name to a file whenever it is measured."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def start(self):
        return {"process": os.getpid()}

    def measure(self):
        with open(self.log, "a") as file:
            file.write(self.name)
        return {"seconds": 1.0}


class Failing(Logged):
    def measure(self):
        raise ValueError("no more memory\nand a long story")


class Dying(Logged):
    def measure(self):
        os._exit(1)


def wrong_input():
    raise InputError("key: found this, expected that.")


def test_contenders_take_turns_each_in_a_process_of_its_own(tmp_path):
    log = tmp_path / "log"
    outcomes = contest([Entry(name, Logged, (name, log)) for name in "ab"], 3, "turns")
    assert log.read_text() == "ababab"
    assert len({os.getpid(), *(outcome.facts["process"] for outcome in outcomes)}) == 3
    assert [outcome.each("seconds") for outcome in outcomes] == [[1.0] * 3] * 2


def test_the_others_go_on_when_one_fails_or_dies(tmp_path):
    log = tmp_path / "log"
    kinds = {"a": Logged, "f": Failing, "d": Dying}
    fine, failed, died = contest([Entry(name, kind, (name, log)) for name, kind in kinds.items()], 2, "failing")
    assert fine.failure is None
    assert log.read_text() == "aa"
    assert failed.failure == "ValueError: no more memory"
    assert "killed" in died.failure
    assert failed.rounds == died.rounds == []


def test_wrong_input_is_no_failure_of_a_contender():
    with pytest.raises(InputError, match="expected that"):
        contest([Entry("wrong", wrong_input, ())], 1, "wrong")


def test_ratios_are_taken_within_rounds():
    # The machine was ten times slower in the second round, for both.
    ours = Outcome("ours", rounds=[{"seconds": s} for s in (1.0, 10.0, 1.1)])
    peer = Outcome("peer", rounds=[{"seconds": s} for s in (2.0, 20.0, 2.2)])
    assert times_as_fast(ours, peer) == pytest.approx(2)
    assert median(peer.each("seconds")) / median(ours.each("seconds")) == pytest.approx(2)


def test_short_steps_are_repeated_and_one_is_reported():
    calls = []

    def step():
        calls.append(time.sleep(0.01))
        return 0.0

    work = Work(step, step, matmul_size=100, device_peak_bytes=lambda: 7_000_000, facts={"device": "none"})
    contender = Stepping(work)
    facts = contender.start()
    assert facts["peak_megabytes"] == 7
    assert facts["device"] == "none"
    before = len(calls)
    measured = contender.measure()
    assert len(calls) - before > 2
    assert measured["matmul_gflops"] <= 2 * 100**3 / 0.01 / 1e9
    assert measured["seconds"] >= 0.01
