"""Our training step and loss on JAX, without TensorFlow: the same models and objective in a step of plain functions."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other contenders are on the same device

import jax
import keras
from jax import numpy as jnp
from keras import ops

from tfmmcl.benchmarks.generated import noise_views
from tfmmcl.benchmarks.macs import nt_xent_flops, training_flops
from tfmmcl.benchmarks.stepping import Work, matmul_size
from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.errors import InputError
from tfmmcl.models.encoder import build_encoder
from tfmmcl.models.precision import dtype_policy
from tfmmcl.objectives.contrastive import nt_xent
from tfmmcl.objectives.objective import make_objective
from tfmmcl.pipeline.shapes import encoder_shape
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.optimizer import build_optimizer


def training_step(settings: PretrainSettings, spec: Spec) -> Work:
    """Returns a jitted training step on a batch of noise that is on the device already."""
    _check_xla(settings)
    keras.utils.set_random_seed(settings.seed)
    objective = make_objective(settings.objective)
    with dtype_policy(settings.training.precision):
        encoder = build_encoder(*encoder_shape(spec, settings), settings.encoder)
        head = objective.build_head(encoder.output.shape[-1], settings.encoder.batch_norm_momentum)
        model = keras.Model(encoder.input, [encoder.output, head(encoder.output)])
    optimizer = build_optimizer(settings.optimizer, settings.training.epochs, steps_per_epoch=1000)
    optimizer.build(model.trainable_variables)

    def loss_of(trainable: Any, others: Any, views: Any) -> tuple[jax.Array, Any]:
        stacked = {name: ops.concatenate([view[name] for view in views]) for name in views[0]}
        (embeddings, outputs), others = model.stateless_call(trainable, others, stacked, training=True)
        results = objective(ops.split(embeddings, len(views)), ops.split(outputs, len(views)))
        return results["loss"], (others, results)

    def step(state: Any, views: Any) -> tuple[Any, dict[str, jax.Array]]:
        trainable, others, slots = state
        gradients, (others, results) = jax.grad(loss_of, has_aux=True)(trainable, others, views)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return (trainable, others, slots), results

    compiled = jax.jit(step, donate_argnums=0)
    views = jax.device_put(noise_views(spec, settings))
    models_variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = [[variable.value for variable in variables] for variables in models_variables]

    def advance() -> jax.Array:
        nonlocal state
        state, results = compiled(state, views)
        return results["loss"]

    facts = {"parameters": encoder.count_params(), "flops": training_flops(encoder, settings.data.batch_size)}
    return _work(advance, encoder.compute_dtype, facts)


def loss_step(settings: PretrainSettings) -> Work:
    """Returns NT-Xent with its gradient, on projections of noise."""
    _check_xla(settings)
    shape = (settings.data.batch_size, settings.objective.projection_units[-1])
    projections = [jax.random.normal(jax.random.key(view), shape) for view in range(2)]

    def loss(first: jax.Array, second: jax.Array) -> jax.Array:
        return nt_xent(first, second, settings.objective.temperature)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return _work(lambda: step(*projections)[0], "float32", {"flops": nt_xent_flops(*shape)})


def _check_xla(settings: PretrainSettings) -> None:
    if settings.training.jit_compile is False:
        raise InputError("--xla off: JAX compiles with XLA always; expected auto or on.")


def _work(step: Callable[[], jax.Array], dtype: str, facts: dict[str, Any]) -> Work:
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    size = matmul_size(on_cpu)
    matrix = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    product = jax.jit(jnp.matmul)
    return Work(
        step=step,
        matmul=lambda: product(matrix, matrix)[0, 0],
        matmul_size=size,
        device_peak_bytes=None if on_cpu else lambda: device.memory_stats()["peak_bytes_in_use"],
        facts={
            "device": f"the CPU ({os.cpu_count()} cores)" if on_cpu else device.device_kind,
            "versions": f"JAX {jax.__version__}, Keras {keras.__version__}",
            **facts,
        },
    )
