"""The trajectory encoder: signal ResNet and MLPs at every window, then a GRU over windows."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from tfmmcl.models.resnet import build_signal_encoder
from tfmmcl.settings import EncoderSettings


def build_mlp(features: int, units: Sequence[int], name: str) -> keras.Model:
    """Builds dense layers with ReLU after each, from `(…, features)` to `(…, units[-1])`.

    Args:
        features: Size of the last axis of the input.
        units: Size of each layer.
        name: The model's name.
    """
    layers = [keras.layers.Dense(size, activation="relu", name=f"dense{i}") for i, size in enumerate(units, start=1)]
    return keras.Sequential([keras.Input((features,)), *layers], name=name)


def build_encoder(
    windows: int, structured: int, statics: int, samples: int, leads: int, settings: EncoderSettings
) -> keras.Model:
    """Builds the encoder `f` of Raghu et al. 2022 as a functional model.

    Time is folded into the batch axis for the window-wise parts, so that each runs once over `B·T` windows and
    batch normalisation sees them all.

    Args:
        windows: Windows in a trajectory, T.
        structured: Structured features, M.
        statics: Static features, L.
        samples: Samples in a segment, Z; ignored without `settings.signal`.
        leads: Leads, C; ignored without `settings.signal`.
        settings: Sizes of the parts; `signal: null` leaves the ResNet and its input out (No ECG).

    Returns:
        A model from a dictionary of standardised `signals` `(B, T, Z, C)`, `structured` `(B, T, M)` and `statics`
        `(B, L)` to embeddings `(B, recurrent_units)`.
    """
    inputs = {
        "structured": keras.Input((windows, structured), name="structured"),
        "statics": keras.Input((statics,), name="statics"),
    }
    parts = [
        _per_window(build_mlp(structured, settings.structured_units, "structured_encoder"), inputs["structured"]),
        keras.layers.RepeatVector(windows, name="repeat_statics")(
            build_mlp(statics, settings.statics_units, "statics_encoder")(inputs["statics"])
        ),
    ]
    if settings.signal:
        inputs = {"signals": keras.Input((windows, samples, leads), name="signals"), **inputs}
        resnet = build_signal_encoder(samples, leads, settings.signal, settings.batch_norm_momentum)
        parts = [_per_window(resnet, inputs["signals"]), *parts]
    x = keras.layers.Concatenate(name="windows")(parts)
    for index in range(1, settings.recurrent_layers + 1):
        x = keras.layers.GRU(
            settings.recurrent_units,
            return_sequences=index < settings.recurrent_layers,
            # cuDNN's kernel would take the whole model out of XLA, and tie a SavedModel to a GPU.
            use_cudnn=False,
            name=f"gru{index}",
        )(x)
    return keras.Model(inputs, x, name="trajectory_encoder")


def portable(settings: EncoderSettings) -> EncoderSettings:
    """Returns the settings of the same encoder, made of Keras's own layers: its file needs nothing of ours to load."""
    if settings.signal is None:
        return settings
    plain = {"convolution": "direct", "recompute": False}
    return settings.model_copy(update={"signal": settings.signal.model_copy(update=plain)})


def _per_window(model: keras.Model, x: keras.KerasTensor) -> keras.KerasTensor:
    windows = x.shape[1]
    folded = model(ops.reshape(x, (-1, *x.shape[2:])))
    return ops.reshape(folded, (-1, windows, folded.shape[-1]))
