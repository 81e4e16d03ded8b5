"""What `step` and `loss` share: contenders that take steps in turn, as rows of a table with ratios below it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from types import ModuleType
from typing import Any, Literal

from tfmmcl.benchmarks.contest import Entry, Outcome, contest, times_as_fast
from tfmmcl.benchmarks.table import print_table
from tfmmcl.errors import InputError

HEADINGS = ("first s", "median s", "minimum s", "per s", "GFLOP/s", "product", "share", "peak MB")
XLA: dict[str, Literal["auto"] | bool] = {"auto": "auto", "off": False, "on": True}
"""What the command line calls the values of `training.jit_compile`."""

PYTORCH = {"PyTorch eager": False, "PyTorch compiled": True}
"""The peers, and whether each goes through `torch.compile`."""


def check_peer(peer: str | None) -> None:
    """Raises `InputError` if the peer is not installed."""
    if peer and find_spec(peer) is None:
        raise InputError(f"--peer {peer}: it is not installed; expected it after pip install -e '.[peer]'.")


def our_backend() -> ModuleType:
    """Returns our steps on the backend that Keras has (`KERAS_BACKEND`); raises `InputError` where there are none."""
    import keras

    name = keras.config.backend()
    if name not in ("tensorflow", "jax"):
        raise InputError(f"KERAS_BACKEND: found {name}, expected tensorflow or jax.")
    return import_module(f"tfmmcl.benchmarks.backend_{name}")


def compare_steps(case: dict[str, Any], ours: Sequence[Entry], peers: Sequence[Entry], rounds: int) -> dict[str, Any]:
    """Measures contenders on one case, prints a table and ratios, and returns every figure.

    Args:
        case: What distinguishes this case: `batch` and so on.
        ours: Our contenders.
        peers: Those they are compared with.
        rounds: Measurements of each.

    Returns:
        The case with its `rows`, one for each contender, and `ratios`, one for each of ours and each peer.
    """
    label = ", ".join(f"{key} {value}" for key, value in case.items())
    outcomes = contest([*ours, *peers], rounds, label)
    _check_parameters(outcomes)
    done = [outcome for outcome in outcomes if outcome.failure is None]
    # The peer does the same work, so that ours says what that is.
    flops = next((outcome.facts["flops"] for outcome in done if "flops" in outcome.facts), None)
    rows = [_row(outcome, case["batch"], flops) for outcome in outcomes]
    names = [entry.name for entry in ours]
    ratios = [
        {"ours": one.name, "peer": other.name, "times_as_fast": times_as_fast(one, other)}
        for one in done
        for other in done
        if one.name in names and other.name not in names
    ]
    print_table((label, *HEADINGS), [_cells(row) for row in rows])
    for row in rows:
        if row["failure"]:
            print(f"{row['name']}: {row['failure']}")
    for ratio in ratios:
        print(f"{ratio['ours']} / {ratio['peer']}: {ratio['times_as_fast']:.2f}× as fast")
    print(flush=True)
    return {**case, "rows": rows, "ratios": ratios}


def _check_parameters(outcomes: Sequence[Outcome]) -> None:
    counts = {outcome.name: outcome.facts["parameters"] for outcome in outcomes if "parameters" in outcome.facts}
    if len(set(counts.values())) > 1:
        raise AssertionError(f"the contenders are not the same network: {counts} parameters")


def _row(outcome: Outcome, batch: int, flops: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": outcome.name, "failure": outcome.failure, **outcome.facts}
    if outcome.failure is None:
        row["seconds"], row["matmul_gflops"] = outcome.each("seconds"), median(outcome.each("matmul_gflops"))
        row["median_seconds"], row["minimum_seconds"] = median(row["seconds"]), min(row["seconds"])
        row["per_second"] = batch / row["median_seconds"]
        row["gflops"] = None if flops is None else flops / row["median_seconds"] / 1e9
        row["share_of_matmul"] = None if flops is None else row["gflops"] / row["matmul_gflops"]
    return row


def _cells(row: dict[str, Any]) -> list[str]:
    if row["failure"]:
        return [row["name"], *("–" for _ in HEADINGS)]
    return [
        row["name"],
        f"{row['first_seconds']:.1f}",
        f"{row['median_seconds']:.4g}",
        f"{row['minimum_seconds']:.4g}",
        f"{row['per_second']:,.2f}",
        "–" if row["gflops"] is None else f"{row['gflops']:,.0f}",
        f"{row['matmul_gflops']:,.0f}",
        "–" if row["gflops"] is None else f"{row['share_of_matmul']:.0%}",
        f"{row['peak_megabytes']:,.0f}",
    ]
