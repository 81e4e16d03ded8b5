"""The losses of fine-tuning, one per kind of task, in float32."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from tfmmcl.cohorts.trajectory import Task

Tensor = Any


def supervised_losses(task: Task, outputs: Tensor, labels: Tensor) -> Tensor:
    """Returns each trajectory's loss.

    Cross-entropy for binary and multiclass tasks, squared error for regression. Of several crops' outputs, it is that
    of the mean prediction: of the mean probability, not of the mean logit.

    Args:
        task: What the labels are.
        outputs: `(N, K, U)` of K crops: U logits, one for each class, or a single one where the task is binary;
            a single standardised number for regression.
        labels: `(N,)`: 0 or 1, the class's position, or the standardised number.

    Returns:
        `(N,)`.
    """
    outputs = ops.cast(outputs, "float32")
    if task.kind == "regression":
        return ops.square(ops.mean(outputs[..., 0], axis=1) - labels)
    if task.kind == "binary":
        outputs = outputs[..., 0]
        log_probability = ops.log_sigmoid(ops.where(labels[:, None] > 0.5, outputs, -outputs))
    else:
        one_hot = ops.one_hot(ops.cast(labels, "int32"), len(task.classes))
        log_probability = ops.sum(ops.log_softmax(outputs) * one_hot[:, None], axis=-1)
    return math.log(outputs.shape[1]) - ops.logsumexp(log_probability, axis=1)
