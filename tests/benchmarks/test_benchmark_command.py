import importlib.util
import json
import os
import subprocess
import sys
from statistics import median

import pytest
import yaml

TINY = {
    "data": {"path": "data", "batch_size": 4},
    "augmentation": {"segment": {"seconds": 2}},
    "encoder": {
        "signal": {"stem_filters": 2, "stage_filters": [2], "blocks_per_stage": 1, "kernel_size": 3, "units": 4},
        "structured_units": [4],
        "statics_units": [4],
        "recurrent_layers": 1,
        "recurrent_units": 4,
    },
}


def installed(package):
    return importlib.util.find_spec(package) is not None


needs_torch = pytest.mark.skipif(not installed("torch"), reason="torch is not installed")
needs_jax = pytest.mark.skipif(not installed("jax"), reason="jax is not installed")


@pytest.fixture
def benchmark(repository, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))

    def run(what, *arguments, backend="tensorflow", fails=False):
        if what != "loss":
            arguments = ("--config", str(config), *arguments)
        file = tmp_path / "figures.json"
        command = [
            sys.executable,
            str(repository / "tools" / "benchmark.py"),
            what,
            "--rounds",
            "2",
            "--json",
            str(file),
        ]
        environment = os.environ | {"KERAS_BACKEND": backend}
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment)
        if fails:
            assert done.returncode == 2, done.stderr
            return done.stderr.strip().splitlines()[-1]
        assert done.returncode == 0, done.stderr
        return json.loads(file.read_text()), done.stdout

    return run


def check_steps(figures, cases, names):
    """Checks that rows follow from raw times, and ratios lie between those of single rounds."""
    assert {"date", "machine", "benchmark", "cases"} <= figures.keys()
    assert len(figures["cases"]) == cases
    for case in figures["cases"]:
        rows = {row["name"]: row for row in case["rows"]}
        assert list(rows) == names
        for row in rows.values():
            assert row["failure"] is None
            assert len(row["seconds"]) == 2
            assert row["median_seconds"] == pytest.approx(median(row["seconds"]))
            assert row["per_second"] == pytest.approx(case["batch"] / row["median_seconds"])
            assert row["share_of_matmul"] == pytest.approx(row["gflops"] / row["matmul_gflops"])
            assert row["gflops"] * row["median_seconds"] == pytest.approx(case["rows"][0]["flops"] / 1e9)
            assert row["first_seconds"] > 0
            assert row["peak_megabytes"] > 10
        for ratio in case["ratios"]:
            pairs = zip(rows[ratio["ours"]]["seconds"], rows[ratio["peer"]]["seconds"])
            low, high = sorted(theirs / mine for mine, theirs in pairs)
            assert low * 0.999 <= ratio["times_as_fast"] <= high * 1.001


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=needs_jax)])
def test_step(benchmark, backend):
    figures, shown = benchmark("step", "--batch", "2", "--width", "3", "--recurrent-units", "5", backend=backend)
    check_steps(figures, 1, ["tfmmcl XLA auto"])
    assert "batch 2, precision float32" in shown
    row = figures["cases"][0]["rows"][0]
    gru, mlps = 5 * 3 * (12 + 5) + 2 * 15, 2 * (9 * 4 + 4)
    stem, block = 4 * 3 * 3 + 4 * 3, 2 * (3 * 3 * 3 + 4 * 3)
    assert row["parameters"] == gru + mlps + stem + block + 3 * 4 + 4
    assert ("TensorFlow" in row["versions"]) == (backend == "tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=needs_jax)])
def test_loss(benchmark, backend):
    figures, _ = benchmark("loss", "--batch", "8", backend=backend)
    check_steps(figures, 1, ["tfmmcl XLA auto"])
    assert figures["cases"][0]["rows"][0]["flops"] == 3 * 2 * 16 * 16 * 128


@needs_torch
@pytest.mark.slow
def test_step_and_loss_beside_pytorch(benchmark):
    names = ["tfmmcl XLA off", "tfmmcl XLA on", "PyTorch eager", "PyTorch compiled"]
    arguments = ("--xla", "off", "on", "--peer", "torch")
    figures, shown = benchmark("step", "--batch", "2", "--precision", "float32", "mixed_bfloat16", *arguments)
    check_steps(figures, 2, names)
    assert [len(case["ratios"]) for case in figures["cases"]] == [4, 4]
    assert "tfmmcl XLA off / PyTorch eager: " in shown
    check_steps(benchmark("loss", "--batch", "8", *arguments)[0], 1, names)


@pytest.mark.slow
def test_pipeline(benchmark, small_data):
    arguments = ("--data", str(small_data.path), "--trajectories", "20")
    figures, _ = benchmark("pipeline", *arguments)
    assert [row["name"] for row in figures["rows"]] == ["read", "parse", "views", "batch"]
    added = sum(row["added_seconds"] for row in figures["rows"])
    assert added == pytest.approx(figures["rows"][-1]["median_seconds"])
    for row in figures["rows"]:
        assert row["per_second"] == pytest.approx(1 / median(row["seconds"]))
    if installed("torch"):
        refused = benchmark("pipeline", *arguments, "--peer", "torch", fails=True)
        assert "paper's augmentations" in refused


@needs_torch
@pytest.mark.slow
def test_pipeline_beside_pytorch(benchmark):
    figures, _ = benchmark(
        "pipeline", "--set", "augmentation.segment.seconds=10", "--trajectories", "20", "--peer", "torch"
    )
    assert [ratio["peer"] for ratio in figures["ratios"]] == ["PyTorch, plain", "PyTorch, tfrecord"]
    rows = {row["name"]: row["seconds"] for row in figures["rows"]}
    for ratio in figures["ratios"]:
        low, high = sorted(theirs / mine for mine, theirs in zip(rows["batch"], rows[ratio["peer"]]))
        assert low * 0.999 <= ratio["times_as_fast"] <= high * 1.001


def test_wrong_input_is_one_sentence(benchmark):
    assert "'encoder.signall'" in benchmark("step", "--set", "encoder.signall=null", fails=True)
    assert "--width" in benchmark("step", "--width", "3", "--set", "encoder.signal=null", fails=True)
    if not installed("torch"):
        assert "[peer]" in benchmark("loss", "--peer", "torch", fails=True)


@pytest.mark.slow
def test_size_measures_the_same_work_on_more_and_more_patients(repository, tmp_path):
    cohort = yaml.safe_load((repository / "configs" / "cohorts" / "demo.yaml").read_text())
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(cohort | {"patients": 10}))
    (tmp_path / "tiny.yaml").write_text(
        yaml.safe_dump(TINY | {"data": {"path": "data", "cohort": "cohort.yaml", "batch_size": 4}})
    )
    command = [sys.executable, str(repository / "tools" / "benchmark.py"), "size", "--config", "tiny.yaml"]
    subprocess.run([*command, "--times", "1", "2", "--json", "figures.json"], cwd=tmp_path, check=True, timeout=300)
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [(row["work"], row["times"]) for row in rows] == [
        (work, times) for work in ("prepare", "verify", "pretrain") for times in (1, 2)
    ]
    prepared = {row["times"]: row["trajectories"] for row in rows if row["work"] == "prepare"}
    assert 1.2 * prepared[1] < prepared[2] < 3 * prepared[1]  # patients have about four trajectories each
    assert all(row["seconds_each"] > 0 and row["peak_megabytes"] > 50 for row in rows)


@pytest.mark.slow
def test_embed_is_measured_beside_predict_on_as_many_trajectories(repository, tmp_path):
    cohorts = repository / "configs" / "cohorts"
    (tmp_path / "cohort.yaml").write_text((cohorts / "demo.yaml").read_text())
    (tmp_path / "tiny.yaml").write_text(
        yaml.safe_dump(TINY | {"data": {"path": "data", "cohort": "cohort.yaml", "batch_size": 4}})
    )
    command = [sys.executable, str(repository / "tools" / "benchmark.py"), "embed", "--config", "tiny.yaml"]
    command += ["--trajectories", "60", "--rounds", "2", "--json", "figures.json"]
    shown = subprocess.run(command, cwd=tmp_path, check=True, timeout=300, capture_output=True, text=True).stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert 30 < figures["trajectories"] < 120
    assert figures["batch"] == 4
    embed, predict = figures["rows"]
    assert (embed["name"], predict["name"]) == ("embed", "model.predict")
    ratios = [theirs / ours for ours, theirs in zip(embed["seconds"], predict["seconds"])]
    assert figures["times_as_fast"] == pytest.approx(median(ratios))
    assert embed["facts"]["bytes"] > 16 * figures["trajectories"]  # a row has four numbers
    assert f"embed / model.predict: {median(ratios):.2f}×" in shown
