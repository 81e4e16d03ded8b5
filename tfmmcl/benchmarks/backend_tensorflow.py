"""Our training step and loss on TensorFlow: the step is the one that `tools/pretrain.py` runs."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfmmcl.benchmarks.generated import noise_views
from tfmmcl.benchmarks.macs import nt_xent_flops, training_flops
from tfmmcl.benchmarks.stepping import Work, matmul_size
from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.objectives.contrastive import nt_xent
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.pretrain import device, pretrainer_of_shape, uses_xla


def training_step(settings: PretrainSettings, spec: Spec) -> Work:
    """Returns the compiled training step of the pre-trainer, on a batch of noise that comes through tf.data."""
    _grow_memory()
    keras.utils.set_random_seed(settings.seed)
    trainer = pretrainer_of_shape(settings, spec, steps=1000)
    trainer.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(noise_views(spec, settings)).repeat())
    encoder = trainer.encoder
    facts = {"parameters": encoder.count_params(), "flops": training_flops(encoder, settings.data.batch_size)}
    return _work(lambda: trainer.train_function(batches)["loss"], encoder.compute_dtype, facts)


def loss_step(settings: PretrainSettings) -> Work:
    """Returns NT-Xent with its gradient, on projections of noise."""
    _grow_memory()
    shape = (settings.data.batch_size, settings.objective.projection_units[-1])
    first, second = (tf.random.stateless_normal(shape, (settings.seed, view)) for view in range(2))

    @tf.function(jit_compile=uses_xla(settings.training.jit_compile))
    def step() -> tuple[tf.Tensor, Any]:
        with tf.GradientTape() as tape:
            tape.watch((first, second))
            loss = nt_xent(first, second, settings.objective.temperature)
        return loss, tape.gradient(loss, (first, second))

    return _work(lambda: step()[0], "float32", {"flops": nt_xent_flops(*shape)})


def _work(step: Any, dtype: str, facts: dict[str, Any]) -> Work:
    graphics = tf.config.list_physical_devices("GPU")
    size = matmul_size(on_cpu=not graphics)
    matrix = tf.cast(tf.random.stateless_normal((size, size), (0, 0)), dtype)
    return Work(
        step=step,
        matmul=lambda: tf.matmul(matrix, matrix)[0, 0],
        matmul_size=size,
        device_peak_bytes=(lambda: tf.config.experimental.get_memory_info("GPU:0")["peak"]) if graphics else None,
        facts={"device": device(), "versions": f"TensorFlow {tf.__version__}, Keras {keras.__version__}", **facts},
    )


def _grow_memory() -> None:
    # Other contenders are on the same device.
    for graphics in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(graphics, True)
