"""Memory for time: a part of a network that remembers its input alone, and computes the rest again for the gradient."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="tfmmcl")
class Recomputed(keras.layers.Wrapper):
    """Computes what the wrapped layer does; in training its activations are dropped, and computed again when needed.

    Outputs, gradients and updates, those of batch normalisation included, are the layer's own: it is called as a
    function of its weights, so that computing again changes nothing (`keras.RematScope` would update twice). The
    method is Chen et al. 2016, https://arxiv.org/abs/1604.06174.

    Args:
        layer: A layer or model with one input and one output, built.
        **options: Of `keras.layers.Layer`.
    """

    def __init__(self, layer: keras.Layer, **options: Any) -> None:
        super().__init__(layer, name=options.pop("name", layer.name), **options)

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Returns the layer's output."""
        if not training or keras.backend.is_keras_tensor(inputs):
            return self.layer(inputs, training=training)
        learned, kept = self.layer.trainable_variables, self.layer.non_trainable_variables

        def compute(inputs: Any, *values: Any) -> tuple[Any, ...]:
            output, updated = self.layer.stateless_call(
                values[: len(learned)], values[len(learned) :], inputs, training=True
            )
            return output, *updated

        values = [variable.value for variable in (*learned, *kept)]
        output, *updated = keras.remat(compute)(inputs, *values)
        for variable, value in zip(kept, updated):
            variable.assign(value)
        return output

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the layer's."""
        return self.layer.compute_output_shape(input_shape)
