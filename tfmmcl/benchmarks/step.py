"""The training step: the paper's encoder with NT-Xent, on input made up, against the same in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tfmmcl.benchmarks.contest import Entry
from tfmmcl.benchmarks.generated import COHORT
from tfmmcl.benchmarks.stepping import Stepping
from tfmmcl.benchmarks.steps import PYTORCH, XLA, check_peer, compare_steps, our_backend
from tfmmcl.benchmarks.table import with_machine
from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort
from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.config import load
from tfmmcl.errors import InputError
from tfmmcl.settings import PretrainSettings


def run(
    config: str | Path,
    overrides: Sequence[str] = (),
    width: int | None = None,
    recurrent_units: int | None = None,
    batch: Sequence[int] = (4,),
    precision: Sequence[str] = ("float32",),
    convolution: Sequence[str] = (),
    xla: Sequence[str] = ("auto",),
    rounds: int = 5,
    peer: str | None = None,
) -> dict[str, Any]:
    """Measures training steps at each batch size and precision; prints as it goes.

    Args:
        config: The settings file that has the encoder's sizes.
        overrides: Dotted `key=value` assignments to it.
        width: Filters of stem and first stage, twice as many in each later one; None: the settings' own.
        recurrent_units: Of each GRU layer; None: the settings' own.
        batch: Trajectories in a step.
        precision: Keras dtype policies.
        convolution: Values of `encoder.signal.convolution`; none: the settings' own.
        xla: Any of `auto`, `off` and `on`.
        rounds: Measurements of each.
        peer: `torch`, or None.

    Returns:
        Every figure printed, by name.
    """
    check_peer(peer)
    spec = SyntheticCohort(COHORT).spec
    sizes = [*overrides, *_sizes(config, overrides, width, recurrent_units)]
    cases = []
    for size, policy in product(batch, precision):
        given = [*sizes, f"data.batch_size={size}", f"training.precision={policy}"]
        ours = []
        for layer, compiler in product(convolution or [""], xla):
            chosen = [f"encoder.signal.convolution={layer}"] if layer else []
            settings = load(config, PretrainSettings, [*given, *chosen, f"training.jit_compile={XLA[compiler]}"])
            ours.append(Entry(" ".join(filter(None, ["tfmmcl", layer, f"XLA {compiler}"])), our_step, (settings, spec)))
        peers = []
        if peer:
            settings = load(config, PretrainSettings, given)
            if settings.encoder.signal is None:
                raise InputError(f"--peer {peer}: found encoder.signal=null, expected an encoder that reads signals.")
            peers = [Entry(name, peer_step, (settings, spec, compiled)) for name, compiled in PYTORCH.items()]
        cases.append(compare_steps({"batch": size, "precision": policy}, ours, peers, rounds))
    return with_machine({"benchmark": "step", "cases": cases})


def our_step(settings: PretrainSettings, spec: Spec) -> Stepping:
    """Makes our training step on the backend that Keras has."""
    return Stepping(our_backend().training_step(settings, spec))


def peer_step(settings: PretrainSettings, spec: Spec, compiled: bool) -> Stepping:
    """Makes PyTorch's."""
    from tfmmcl.benchmarks import torch_peer

    return Stepping(torch_peer.training_step(settings, spec, compiled))


def _sizes(config: str | Path, overrides: Sequence[str], width: int | None, units: int | None) -> list[str]:
    """Returns the assignments that a width and a number of units stand for."""
    sizes = [] if units is None else [f"encoder.recurrent_units={units}"]
    if width is not None:
        encoder = load(config, PretrainSettings, overrides).encoder
        if encoder.signal is None:
            raise InputError("--width: found encoder.signal=null, expected an encoder that reads signals.")
        stages = [width * 2**stage for stage in range(len(encoder.signal.stage_filters))]
        sizes += [f"encoder.signal.stem_filters={width}", f"encoder.signal.stage_filters={stages}"]
    return sizes
