"""Heads that objectives put on the encoder."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def build_projection_head(features: int, units: Sequence[int], batch_norm_momentum: float = 0.9) -> keras.Model:
    """Builds the projection head `g` of Raghu et al. 2022: dense, batch normalisation, ReLU at each layer.

    The output is normalised to unit length by the objective, in float32.

    Args:
        features: Size of the trajectory embedding.
        units: Size of each layer.
        batch_norm_momentum: Of the running averages. Default 0.9.

    Returns:
        A model from `(N, features)` to `(N, units[-1])`.
    """
    embeddings = x = keras.Input((features,), name="embeddings")
    for index, size in enumerate(units, start=1):
        # The normalisation that follows has the offset; a bias before it would do nothing.
        x = keras.layers.Dense(size, use_bias=False, name=f"dense{index}")(x)
        x = keras.layers.BatchNormalization(momentum=batch_norm_momentum, name=f"normalisation{index}")(x)
        x = keras.layers.ReLU(name=f"relu{index}")(x)
    return keras.Model(embeddings, x, name="projection_head")


def build_task_head(features: int, units: Sequence[int], outputs: int) -> keras.Model:
    """Builds a task's head, in float32 whatever the dtype policy: dense layers with ReLU, and a linear one.

    Args:
        features: Size of the trajectory embedding.
        units: Size of each hidden layer; none: a linear head, as in Raghu et al. 2022.
        outputs: How many numbers it gives.

    Returns:
        A model from `(N, features)` to `(N, outputs)`.
    """
    embeddings = x = keras.Input((features,), name="embeddings", dtype="float32")
    for index, size in enumerate(units, start=1):
        x = keras.layers.Dense(size, activation="relu", dtype="float32", name=f"dense{index}")(x)
    x = keras.layers.Dense(outputs, dtype="float32", name="outputs")(x)
    return keras.Model(embeddings, x, name="task_head")
