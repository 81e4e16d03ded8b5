"""Sizes that follow from a data set and a run's settings, without TensorFlow, so that a misfit is said at once."""

from __future__ import annotations

from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.errors import InputError
from tfmmcl.finetune_settings import FinetuneSettings, ReadingSettings
from tfmmcl.records.manifest import DataSet
from tfmmcl.settings import AugmentationSettings, PretrainSettings


def segment_samples(spec: Spec, settings: AugmentationSettings) -> int:
    """Returns the samples in a segment; raises `InputError` if two disjoint ones do not fit in a window."""
    samples = round(settings.segment.seconds * spec.sampling_rate_hz)
    if not 1 <= samples <= spec.samples // 2:
        raise InputError(
            f"augmentation.segment.seconds: found {settings.segment.seconds:g} s ({samples} samples), expected at most "
            f"half of the data set's {spec.window_seconds:g}-s windows ({spec.samples} samples)."
        )
    return samples


def reading_samples(spec: Spec, settings: ReadingSettings) -> int:
    """Returns the samples that are read of a window; raises `InputError` if it has not as many."""
    samples = spec.samples if settings.seconds is None else round(settings.seconds * spec.sampling_rate_hz)
    if not 1 <= samples <= spec.samples:
        raise InputError(
            f"reading.seconds: found {settings.seconds:g} s ({samples} samples), expected at most the data set's "
            f"{spec.window_seconds:g}-s windows ({spec.samples} samples)."
        )
    return samples


def crop_starts(spec: Spec, settings: ReadingSettings) -> list[int]:
    """Returns the sample of a window at which each part that is read begins; several only for `crops`."""
    spare = spec.samples - reading_samples(spec, settings)
    if settings.part == "crops":
        return [round(index * spare / (settings.crops - 1)) for index in range(settings.crops)]
    return [spare // 2 if settings.part == "centre" else 0]


def encoder_shape(spec: Spec, settings: PretrainSettings) -> tuple[int, int, int, int, int]:
    """Returns windows, structured features, statics, samples in a segment and leads, as `build_encoder` takes them."""
    samples = segment_samples(spec, settings.augmentation) if settings.encoder.signal else 0
    return spec.windows, len(spec.structured), len(spec.statics), samples, len(spec.leads)


def even_batches(count: int, batch_size: int) -> tuple[int, int]:
    """Returns how many batches hold `count` trajectories, and the size of each, at most `batch_size`.

    They are as even as can be, so that none is left with a few trajectories: 65 in batches of at most 64 are two of 33.
    """
    batches = -(-count // batch_size)
    return batches, -(-count // batches)


def steps_per_epoch(data: DataSet, settings: PretrainSettings) -> int:
    """Returns training batches in an epoch; a last incomplete one is dropped, and so is a last incomplete accumulation.

    Raises:
        InputError: If the training split is smaller than the batches that are accumulated.
    """
    batch_size, count = settings.data.batch_size, data.count("train")
    if count < batch_size:
        raise InputError(
            f"data.batch_size: found {batch_size}, expected at most the {count} trajectories that the training "
            f"split of {data.path} has."
        )
    steps = min(count // batch_size, settings.training.steps_per_epoch or count)
    accumulate = settings.training.accumulate
    if steps < accumulate:
        raise InputError(f"training.accumulate: found {accumulate}, expected at most the {steps} batches of an epoch.")
    return steps // accumulate * accumulate


def validation_batch_size(data: DataSet, settings: PretrainSettings) -> int:
    """Returns the training batch size, or the size of the validation split if that is smaller.

    Raises:
        InputError: If the validation split has fewer than two trajectories, which leaves nothing to contrast.
    """
    count = data.count("validation")
    if count < 2:
        raise InputError(f"{data.path}: the validation split has {count} trajectories, expected at least 2.")
    return min(settings.data.batch_size, count)


def check_identity(data: DataSet, settings: PretrainSettings | FinetuneSettings) -> None:
    """Raises `InputError` if the settings ask for a data set with another fingerprint."""
    if settings.data.fingerprint not in (None, data.fingerprint):
        raise InputError(
            f"{data.path}: has the fingerprint {data.fingerprint}, expected {settings.data.fingerprint}, the data set "
            "that the run was started with (data.fingerprint=null takes any)."
        )


def check_signals(data: DataSet, settings: PretrainSettings) -> None:
    """Raises `InputError` if the encoder reads signals that the data set does not have, or not for long enough."""
    if settings.encoder.signal is None:
        return
    if not data.spec.leads:
        raise InputError(
            f"{data.path}: has no signals, but encoder.signal asks for them; set encoder.signal=null (No ECG)."
        )
    segment_samples(data.spec, settings.augmentation)


def check_fit(data: DataSet, settings: PretrainSettings) -> None:
    """Raises `InputError` if a run with these settings cannot train and validate on the data set."""
    check_identity(data, settings)
    check_signals(data, settings)
    steps_per_epoch(data, settings)
    validation_batch_size(data, settings)
    _ = data.statistics
    if settings.data.on_corrupt == "skip":
        return
    for split in ("train", "validation"):
        data.shards(split)
