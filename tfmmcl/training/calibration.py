"""Running statistics of batch normalisation that are right from the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def calibrate(model: keras.Model, forward: Callable[[], Any]) -> None:
    """Sets every batch normalisation's running statistics to those of a batch.

    They start at mean 0 and variance 1; what is left of that after a few steps, multiplied up over twenty layers,
    would make inference useless in a short run.

    Args:
        model: The model.
        forward: Takes a batch through it in training mode.
    """
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        forward()
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
