"""Shards → batches. What comes when is a function of (seed, epoch, position) alone, whatever the parallelism."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import tensorflow as tf

from tfmmcl.cohorts.splits import Split
from tfmmcl.pipeline.parse import parse
from tfmmcl.pipeline.preprocess import Preprocessor
from tfmmcl.pipeline.shapes import check_signals, segment_samples, steps_per_epoch, validation_batch_size
from tfmmcl.pipeline.views import View, Views
from tfmmcl.records.manifest import DataSet
from tfmmcl.settings import PretrainSettings

VALIDATION_EPOCH = 2**31 - 1
"""The epoch whose views validation uses every time, so that its loss compares from epoch to epoch."""

_INTERLEAVED_SHARDS = 8
_TOGETHER = 16
_COMPILED_FROM = 2**23
_ALONE = tf.distribute.InputContext()


class Batches:
    """The pipeline of one data set under one run's settings.

    Args:
        data: The data set.
        settings: The run's settings.
        context: Which part of every batch this pipeline makes, and for how many devices. Default: all, for one.

    Raises:
        InputError: If the encoder reads signals that the data set does not have, or not for long enough.
    """

    def __init__(
        self,
        data: DataSet,
        settings: PretrainSettings,
        context: tf.distribute.InputContext = _ALONE,
    ) -> None:
        self.data = data
        self.settings = settings
        self.context = context
        self.reads_signals = settings.encoder.signal is not None
        check_signals(data, settings)
        self.views = Views(Preprocessor(data.spec, data.statistics), settings.augmentation, signals=self.reads_signals)
        self._several = functools.cache(
            functools.partial(self.views.several, settings.seed, compiled=_pays_to_compile(data, settings))
        )

    def part(self, context: tf.distribute.InputContext) -> Batches:
        """Returns the same pipeline for another part of every batch; what is compiled is compiled once for both."""
        other = copy.copy(self)
        other.context = context
        return other

    def steps_per_epoch(self) -> int:
        """Returns training steps in an epoch; a last incomplete batch is dropped."""
        return steps_per_epoch(self.data, self.settings)

    def validation_batch_size(self) -> int:
        """Returns the training batch size, or what the devices can share evenly of a smaller validation split."""
        size, replicas = validation_batch_size(self.data, self.settings), self.context.num_replicas_in_sync
        return size // replicas * replicas

    def validation_steps(self) -> int:
        """Returns the validation split's batches."""
        return self.data.count("validation") // self.validation_batch_size()

    def training(self, first_epoch: int = 0, views: int = 2, *, first_step: int = 0) -> tf.data.Dataset:
        """Returns batches of views for all epochs from `first_epoch` on, one after the other.

        Args:
            first_epoch: Where to begin. Default 0.
            first_step: Batches of the first epoch to leave out. Default 0.
            views: Views of each trajectory. Default 2.

        Returns:
            A data set of `views`-tuples of dictionaries with static shapes `(B / R, …)`, R being the devices.
        """
        epochs, steps = range(first_epoch, self.settings.training.epochs), self.steps_per_epoch()
        return ordered(self._of_epochs(epochs, "train", views, steps, self.settings.data.batch_size, first_step))

    def validation(self, views: int = 2) -> tf.data.Dataset:
        """Returns the validation split's batches, the same ones with the same views every time.

        A last incomplete batch is dropped, as NT-Xent's level depends on the batch size.
        """
        epoch = range(VALIDATION_EPOCH, VALIDATION_EPOCH + 1)
        size, steps = self.validation_batch_size(), self.validation_steps()
        batches = ordered(self._of_epochs(epoch, "validation", views, steps, size))
        # Keras has to know where to stop: a step that runs past the end adds to the metrics' counts before it fails.
        replicas = self.context.num_replicas_in_sync // self.context.num_input_pipelines
        return batches.apply(tf.data.experimental.assert_cardinality(steps * replicas))

    def names(self, epoch: int, step: int) -> list[str]:
        """Returns the trajectories of a training step, as their ids are stored."""
        size = self.settings.data.batch_size

        def of(number: tf.Tensor) -> tf.data.Dataset:
            records = shuffled_records(
                self.data, "train", self.settings.seed, number, self.settings.data.shuffle_buffer
            )
            name = {"trajectory": tf.io.FixedLenFeature([], tf.string)}
            chosen = records.skip(step * size).take(size)
            return chosen.map(lambda record: tf.io.parse_single_example(record, name)["trajectory"])

        epochs = tf.data.Dataset.from_tensors(tf.constant(epoch, tf.int64))
        return [name.decode("utf-8", "replace") for name in epochs.flat_map(of).as_numpy_iterator()]

    def plain(self, split: Split) -> tf.data.Dataset:
        """Returns a split's trajectories one by one in stored order, as `(parsed example, view)`, not augmented."""

        def prepare(record: tf.Tensor) -> tuple[dict[str, tf.Tensor], View]:
            example = parse(record, self.data.spec, signals=self.reads_signals)
            return example, self.views.plain(example)

        records = tf.data.TFRecordDataset(self.data.shards(split))
        return ordered(records.map(prepare, self._parallel_calls()))

    def _of_epochs(
        self, epochs: range, split: Split, views: int, steps: int, batch_size: int, first_step: int = 0
    ) -> tf.data.Dataset:
        size = self.context.get_per_replica_batch_size(batch_size)

        def records(epoch: tf.Tensor) -> tf.data.Dataset:
            # The pipelines divide every batch, not the split: together they make the batches of a single one.
            return (
                shuffled_records(self.data, split, self.settings.seed, epoch, self.settings.data.shuffle_buffer)
                .take(steps * batch_size)
                .skip(tf.where(epoch == epochs.start, tf.constant(first_step * batch_size, tf.int64), 0))
                .shard(self.context.num_input_pipelines, self.context.input_pipeline_id)
            )

        numbers = tf.data.Dataset.range(epochs.start, epochs.stop)
        return self.augmented(numbers, records, views, together(size)).rebatch(size, drop_remainder=True)

    def augmented(
        self, epochs: tf.data.Dataset, records: Callable[[tf.Tensor], tf.data.Dataset], views: int, size: int
    ) -> tf.data.Dataset:
        """Returns `views`-tuples of the views `(size, …)` of epochs' records.

        Args:
            epochs: Their numbers.
            records: Returns an epoch's records; a last incomplete `size` of them is dropped.
            views: Views of each trajectory.
            size: Records whose views are made in one go.
        """
        make = self._several(views)

        def several(epoch: tf.Tensor) -> tf.data.Dataset:
            return records(epoch).batch(size, drop_remainder=True).map(lambda some: (some, epoch))

        # Outside of `flat_map`: the views of an epoch are made while the next one's shuffle buffer is being filled.
        return epochs.flat_map(several).map(lambda some, epoch: make(self.parsed(some), epoch), self._parallel_calls())

    def parsed(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns one parsed record or several."""
        return parse(records, self.data.spec, signals=self.reads_signals)

    def _parallel_calls(self) -> int:
        return self.settings.data.parallel_calls or tf.data.AUTOTUNE


def shuffled_records(data: DataSet, split: Split, seed: int, epoch: tf.Tensor, buffer: int) -> tf.data.Dataset:
    """Returns a split's serialised records in the order of an epoch: shards permuted, then a shuffle buffer.

    Args:
        data: The data set.
        split: The split.
        seed: The run's seed.
        epoch: The epoch's number, inside the function of a `flat_map`.
        buffer: Records held in memory.
    """
    # The buffer mixes its graph's seed into ours. This runs inside `flat_map`, so the graph is its own.
    tf.random.set_seed(1)
    key = epoch_key(seed, epoch)
    shards = tf.random.experimental.stateless_shuffle(tf.constant(data.shards(split)), key)
    records = tf.data.Dataset.from_tensor_slices(shards).interleave(
        tf.data.TFRecordDataset, _INTERLEAVED_SHARDS, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return records.shuffle(buffer, seed=key[0], reshuffle_each_iteration=False)


def _pays_to_compile(data: DataSet, settings: PretrainSettings) -> bool:
    """Returns whether an epoch has so many samples that the seconds of compiling are won back in some ten epochs.

    Epochs themselves do not count: a run that goes on for longer makes the views of the shorter one to the last bit.
    """
    if settings.encoder.signal is None:
        return False
    in_epoch = min(data.count("train"), settings.data.batch_size * (settings.training.steps_per_epoch or 2**62))
    spec = data.spec
    samples = spec.windows * segment_samples(spec, settings.augmentation) * len(spec.leads)
    return in_epoch * samples >= _COMPILED_FROM


def together(size: int) -> int:
    """Returns how many trajectories of a batch are augmented in one go: few enough for the processor's cache."""
    return max(number for number in range(1, _TOGETHER + 1) if size % number == 0)


def epoch_key(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the key `(2,)` that an epoch's order is drawn with."""
    return tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), epoch]), tf.constant(0, tf.int64))


def ordered(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the same elements, made ahead of time and never out of order."""
    options = tf.data.Options()
    options.deterministic = True
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
