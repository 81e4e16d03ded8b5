"""What TensorBoard calls each figure of an epoch, and what it says about it."""

from __future__ import annotations

from typing import NamedTuple


class Scalar(NamedTuple):
    """A chart: its tag, whose part before the slash is the group that it is drawn in, and a sentence for its corner."""

    tag: str
    description: str


RUNNING_LOSS = Scalar("loss/running mean, by step", "The mean of the loss over the epoch's steps so far.")

SCALARS = {
    "loss": Scalar(
        "loss/by epoch", "The objective. The validation split's is without dropout and with the same views every time."
    ),
    "contrastive_accuracy": Scalar(
        "accuracy/contrastive",
        "Part of the views whose nearest other view is of the same trajectory. Chance is 1 / (2B − 1).",
    ),
    "alignment": Scalar(
        "representation/alignment",
        "Mean squared distance of two views of a trajectory on the unit sphere; 0 is perfect (Wang and Isola 2020).",
    ),
    "uniformity": Scalar(
        "representation/uniformity",
        "Log of the mean Gaussian potential between trajectories; lower is more evenly spread (Wang and Isola 2020).",
    ),
    "embedding_std": Scalar(
        "representation/embedding std",
        "About 1 when embeddings spread over the sphere, 0 when they have collapsed to a point (Chen and He 2021).",
    ),
    "effective_rank": Scalar(
        "representation/effective rank",
        "How many dimensions the embeddings use: exp of the entropy of their singular values (Roy and Vetterli 2007). "
        "At most the size of the embedding; 1 when they have collapsed to a line.",
    ),
    "learning_rate": Scalar("optimizer/learning rate", "At the end of the epoch."),
    "gradient_norm": Scalar(
        "optimizer/gradient norm", "Euclidean norm over all weights, before clipping; mean over the epoch's updates."
    ),
    "parameter_norm": Scalar("optimizer/parameter norm", "Euclidean norm of all weights after the epoch."),
    "update_norm": Scalar(
        "optimizer/update norm",
        "How far the epoch's last update moved all weights; a thousandth of the parameter norm is common.",
    ),
    "skipped_steps": Scalar("optimizer/skipped steps", "Updates that half precision had to leave out so far."),
    "trajectories_per_second": Scalar("speed/trajectories per second", "Training steps alone, without the first."),
    "input_wait_ms": Scalar(
        "speed/input wait, ms a step",
        "How long a step waits for its batch while the device has nothing to do. Without a GPU the pipeline takes "
        "processor time from the step as well, which is not in it.",
    ),
    "input_wait_share": Scalar(
        "speed/input wait, share of the time",
        "Near 0 the device is busy; near 1 the pipeline is the bottleneck: more cores, or data.cache on a fast disk.",
    ),
    "seconds": Scalar("speed/seconds an epoch", "Validation, probes and pictures included."),
    "linear_probe_auroc": Scalar("probe/linear, AUROC", "Logistic regression on frozen embeddings of both splits."),
    "knn_auroc": Scalar("probe/k-NN, AUROC", "Nearest neighbours by cosine similarity of frozen embeddings."),
    "linear_probe_r2": Scalar("probe/linear, R²", "Ridge regression on frozen embeddings of both splits."),
    "knn_r2": Scalar("probe/k-NN, R²", "Nearest neighbours by cosine similarity of frozen embeddings."),
}

CHANCE = {"linear_probe_auroc": 0.5, "knn_auroc": 0.5, "linear_probe_r2": 0.0, "knn_r2": 0.0}
"""What a probe scores on embeddings that know nothing of the task."""


def scalar(name: str) -> Scalar:
    """Returns the chart of a figure; of one that is not known here, under `other`."""
    return SCALARS.get(name) or Scalar(f"other/{name.replace('_', ' ')}", "")
