"""Multiplications and additions of an encoder, counted from its layers as if every convolution were direct."""

from __future__ import annotations

import math

import keras

VIEWS = 2
TRAINING = 3
"""Work of a step over that of its forward pass: the backward pass has two products for each of the forward's."""


def macs_per_trajectory(encoder: keras.Model) -> int:
    """Returns the multiply-accumulates of one view's forward pass through a trajectory encoder.

    Convolutions, dense layers and GRUs are counted; what is done element by element is not.
    """
    windows = encoder.input["structured"].shape[1]
    total = 0
    for layer in encoder.layers:
        if isinstance(layer, keras.Model):
            total += model_macs(layer) * (1 if layer.name == "statics_encoder" else windows)
        elif isinstance(layer, keras.layers.GRU):
            kernels = (layer.cell.kernel, layer.cell.recurrent_kernel)
            total += windows * sum(math.prod(kernel.shape) for kernel in kernels)
    return total


def model_macs(model: keras.Model) -> int:
    """Returns the multiply-accumulates of one example through the convolutions and dense layers of a model."""
    return sum(
        model_macs(layer.layer)
        if isinstance(layer, keras.layers.Wrapper)
        else math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        for layer in model.layers
        if hasattr(layer, "kernel") or isinstance(layer, keras.layers.Wrapper)
    )


def training_flops(encoder: keras.Model, batch_size: int) -> int:
    """Returns the floating-point operations of a training step on two views of each of `batch_size` trajectories."""
    return TRAINING * 2 * macs_per_trajectory(encoder) * VIEWS * batch_size


def nt_xent_flops(batch_size: int, dimensions: int) -> int:
    """Returns those of NT-Xent with its gradient: of the product of all 2B projections with one another."""
    return TRAINING * 2 * (VIEWS * batch_size) ** 2 * dimensions
