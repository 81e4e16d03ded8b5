"""NT-Xent with its gradient, alone, against the same in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmmcl.benchmarks.contest import Entry
from tfmmcl.benchmarks.stepping import Stepping
from tfmmcl.benchmarks.steps import PYTORCH, XLA, check_peer, compare_steps, our_backend
from tfmmcl.benchmarks.table import with_machine
from tfmmcl.settings import PretrainSettings


def run(
    batch: Sequence[int], xla: Sequence[str] = ("auto",), rounds: int = 5, peer: str | None = None
) -> dict[str, Any]:
    """Measures the loss of two views of 128 numbers at each batch size; prints as it goes.

    Args:
        batch: Trajectories in a batch, B: the loss compares 2B views with one another.
        xla: Any of `auto`, `off` and `on`.
        rounds: Measurements of each.
        peer: `torch`, or None.

    Returns:
        Every figure printed, by name.
    """
    check_peer(peer)
    cases = []
    for size in batch:
        ours = [Entry(f"tfmmcl XLA {name}", our_loss, (_settings(size, name),)) for name in xla]
        peers = []
        if peer:
            peers = [Entry(name, peer_loss, (_settings(size, "auto"), mode)) for name, mode in PYTORCH.items()]
        cases.append(compare_steps({"batch": size}, ours, peers, rounds))
    return with_machine({"benchmark": "loss", "cases": cases})


def our_loss(settings: PretrainSettings) -> Stepping:
    """Makes our loss on the backend that Keras has."""
    return Stepping(our_backend().loss_step(settings))


def peer_loss(settings: PretrainSettings, compiled: bool) -> Stepping:
    """Makes PyTorch's."""
    from tfmmcl.benchmarks import torch_peer

    return Stepping(torch_peer.loss_step(settings, compiled))


def _settings(batch: int, xla: str) -> PretrainSettings:
    """Returns the paper's settings with another batch size."""
    return PretrainSettings(data={"path": "", "batch_size": batch}, training={"jit_compile": XLA[xla]})
