"""The 1-D residual network that embeds one window's signals."""

from __future__ import annotations

import keras

from tfmmcl.models.fourier_convolution import convolution_layer
from tfmmcl.models.recomputed import Recomputed
from tfmmcl.settings import SignalEncoderSettings


def build_signal_encoder(
    samples: int, leads: int, settings: SignalEncoderSettings, batch_norm_momentum: float = 0.9
) -> keras.Model:
    """Builds a ResNet with 1-D convolutions: stem, stages of basic blocks, average pooling, linear layer.

    Raghu et al. 2022 (ResNet-18 with every spatial kernel 15); He et al. 2016, https://arxiv.org/abs/1512.03385.

    Args:
        samples: Length of the signals, Z.
        leads: Number of leads, C.
        settings: Width, depth, kernel and embedding size.
        batch_norm_momentum: Of the running averages. Default 0.9.

    Returns:
        A model from `(N, Z, C)` to `(N, units)`.
    """

    def convolution(x: keras.KerasTensor, filters: int, kernel_size: int, strides: int, name: str) -> keras.KerasTensor:
        layer = convolution_layer(settings.convolution, x.shape, filters, kernel_size, strides)
        x = layer(
            filters,
            kernel_size,
            strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_convolution",
        )(x)
        return keras.layers.BatchNormalization(momentum=batch_norm_momentum, name=f"{name}_normalisation")(x)

    def block(x: keras.KerasTensor, filters: int, strides: int, name: str) -> keras.KerasTensor:
        shortcut = x
        if strides > 1 or x.shape[-1] != filters:
            shortcut = convolution(x, filters, 1, strides, f"{name}_shortcut")
        x = convolution(x, filters, settings.kernel_size, strides, f"{name}_first")
        x = keras.layers.ReLU(name=f"{name}_first_relu")(x)
        x = convolution(x, filters, settings.kernel_size, 1, f"{name}_second")
        x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
        return keras.layers.ReLU(name=f"{name}_relu")(x)

    def recomputed(x: keras.KerasTensor, filters: int, strides: int, name: str) -> keras.KerasTensor:
        inputs = keras.Input(x.shape[1:])
        return Recomputed(keras.Model(inputs, block(inputs, filters, strides, name), name=name))(x)

    add_block = recomputed if settings.recompute else block
    signals = keras.Input((samples, leads), name="signals")
    x = convolution(signals, settings.stem_filters, settings.kernel_size, 2, "stem")
    x = keras.layers.ReLU(name="stem_relu")(x)
    x = keras.layers.MaxPooling1D(3, 2, padding="same", name="stem_pool")(x)
    for stage, filters in enumerate(settings.stage_filters, start=1):
        for index in range(1, settings.blocks_per_stage + 1):
            x = add_block(x, filters, 2 if stage > 1 and index == 1 else 1, f"stage{stage}_block{index}")
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(signals, keras.layers.Dense(settings.units, name="embedding")(x), name="signal_encoder")
