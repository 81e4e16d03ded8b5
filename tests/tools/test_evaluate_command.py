"""evaluate.py: one command from a data set to a report."""

import csv
import json
import subprocess
import sys

import pytest
from small_labelled import write_labelled

TINY = """
arms: [rand_init, rand_init_no_ecg]
baselines: [best_static]
modes: [finetune, linear]
fractions: [1.0]
seeds: 1
encoder: {signal: null, structured_units: [4], statics_units: [4], recurrent_layers: 1, recurrent_units: 8}
pretraining: {batch_size: 8, objective: {projection_units: [4]}}
finetuning: {batch_size: 16, training: {epochs: 2}}
resamples: 100
"""


@pytest.fixture
def evaluate(repository, tmp_path):
    (tmp_path / "settings.yaml").write_text(TINY)

    def run(*arguments):
        tool = str(repository / "tools" / "evaluate.py")
        command = [sys.executable, tool, "--config", "settings.yaml", "--data", "data", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.mark.slow
def test_a_report_of_every_kind_of_task_without_signals(evaluate, tmp_path):
    write_labelled(tmp_path / "data", leads=())
    done = evaluate("--out", "report", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "evaluating: 9 of 9 results" in done.stdout
    assert "report: report/report.html" in done.stdout
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert {(cell["arm"], cell["mode"]) for cell in results["cells"]} == {
        ("best_static", "baseline"),
        ("rand_init_no_ecg", "finetune"),
        ("rand_init_no_ecg", "linear"),
    }  # without signals there is no arm with ECG
    assert {cell["task"] for cell in results["cells"]} == {"high", "third", "pressure"}
    page = (tmp_path / "report" / "report.html").read_text()
    assert "RandInit (No ECG)" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    with open(tmp_path / "report" / "results.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(results["summary"])
    again = evaluate("--out", "report", "--workers", 1)
    assert again.returncode == 0
    assert json.loads((tmp_path / "report" / "results.json").read_text())["cells"] == results["cells"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tasks", "hihg"), "has no task 'hihg', expected one of high, third, pressure; did you mean 'high'?"),
        (("--arms", "rand_init"), "has no signals, and every one of the arms rand_init reads them."),
        (("--arms", "randinit"), "override 'arms=[randinit]': key 'arms.0'"),
        (("--seeds", "0"), "override 'seeds=0': key 'seeds': found 0"),
        (("finetuning.trainig.epochs=3",), "unknown key 'finetuning.trainig'; did you mean 'training'?"),
    ],
)
def test_what_does_not_fit_is_one_sentence(evaluate, tmp_path, arguments, says):
    write_labelled(tmp_path / "data", leads=())
    done = evaluate("--out", "report", *arguments)
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]
    assert not (tmp_path / "report").exists()
