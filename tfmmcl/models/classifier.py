"""Encoder and head as one model that predicts, for use after training."""

from __future__ import annotations

import keras
from keras import ops

from tfmmcl.cohorts.trajectory import Task


def outputs_of(task: Task) -> int:
    """Returns how many numbers a task's head gives: one, or a logit for each class."""
    return len(task.classes) if task.kind == "multiclass" else 1


def output_name(task: Task) -> str:
    """Returns what a classifier calls its predictions."""
    return "prediction" if task.kind == "regression" else "probability"


def build_classifier(
    encoder: keras.Model, head: keras.Model, task: Task, mean: float = 0.0, std: float = 1.0
) -> keras.Model:
    """Puts a head on an encoder, and what makes predictions of its outputs on top.

    Args:
        encoder: The trajectory encoder; its layers are shared, not copied.
        head: From `(B, D)` to `outputs_of(task)`.
        task: What is predicted.
        mean: Of the training labels, for regression. Default 0.
        std: Their standard deviation. Default 1.

    Returns:
        A model from the encoder's inputs to a dictionary of `embedding` `(B, D)` and `probability` `(B,)` of label 1,
        `probability` `(B, K)` of each class, or `prediction` `(B,)` in the label's unit, by the task's kind.
    """
    inputs = {name: keras.Input(tensor.shape[1:], name=name) for name, tensor in encoder.input.items()}
    embedding = encoder(inputs)
    outputs = head(embedding)
    if task.kind == "multiclass":
        predictions = ops.softmax(outputs)
    elif task.kind == "binary":
        predictions = ops.sigmoid(ops.squeeze(outputs, -1))
    else:
        predictions = ops.squeeze(outputs, -1) * std + mean
    return keras.Model(inputs, {"embedding": embedding, output_name(task): predictions}, name="classifier")
