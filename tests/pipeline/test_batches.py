from itertools import chain

import numpy as np
import pytest
import tensorflow as tf

from tfmmcl.cohorts.settings import SplitSettings
from tfmmcl.cohorts.splits import split_of
from tfmmcl.cohorts.synthetic.cohort import SyntheticCohort
from tfmmcl.config import validate
from tfmmcl.errors import InputError
from tfmmcl.pipeline.batches import Batches
from tfmmcl.pipeline.views import trajectory_key
from tfmmcl.records.writer import write_dataset
from tfmmcl.settings import PretrainSettings

STILL = {"history_cutout": {"probability": 0}, "channel_dropout": 0}
NO_ECG = {"encoder": {"signal": None}}


def batches(data, *, augmentation=None, pipeline=None, training=None, **changes):
    tree = {
        "data": {"path": str(data.path), "batch_size": 16, "shuffle_buffer": 24} | (pipeline or {}),
        "augmentation": {"segment": {"seconds": 1.5}} | (augmentation or {}),
        "training": {"epochs": 3} | (training or {}),
    }
    return Batches(data, validate(tree | changes, PretrainSettings, "test"))


def listed(dataset):
    return [tf.nest.map_structure(lambda x: x.numpy(), batch) for batch in dataset]


def same(a, b):
    flat_a, flat_b = tf.nest.flatten(a), tf.nest.flatten(b)
    return len(flat_a) == len(flat_b) and all(np.array_equal(x, y) for x, y in zip(flat_a, flat_b))


def ids(run):
    """Which trajectories each batch holds, read off structured features that no augmentation has touched."""
    return [[row.tobytes() for row in views[0]["structured"]] for views in run]


@pytest.fixture(scope="module")
def reference(data):
    return listed(batches(data).training())


@pytest.fixture(scope="module")
def still(data):
    return batches(data, augmentation=STILL, training={"epochs": 6}, **NO_ECG)


@pytest.fixture(scope="module")
def epochs(still):
    """The trajectories of each of six epochs, in their order."""
    steps, made = still.steps_per_epoch(), ids(listed(still.training()))
    return [list(chain(*made[i : i + steps])) for i in range(0, len(made), steps)]


# Shapes.


def test_training_and_validation_have_static_shapes(data):
    made = batches(data)
    for dataset, size in [(made.training(), 16), (made.validation(), made.validation_batch_size())]:
        view = {
            "structured": tf.TensorSpec([size, 3, len(data.spec.structured)], tf.float32),
            "statics": tf.TensorSpec([size, len(data.spec.statics)], tf.float32),
            "signals": tf.TensorSpec([size, 3, 150, 2], tf.float32),
        }
        assert dataset.element_spec == (view, view)


def test_random_segments_have_static_shapes_too(data):
    made = batches(data, augmentation={"segment": {"seconds": 1.5, "position": "random"}})
    assert made.training().element_spec[1]["signals"].shape == (16, 3, 150, 2)


def test_as_many_views_come_as_were_asked_for(data):
    for number in (1, 3):
        assert len(batches(data).training(views=number).element_spec) == number


# The same batches, always.


@pytest.mark.parametrize("calls", [1, 8])
def test_batches_are_the_same_under_1_and_8_parallel_calls(data, reference, calls):
    assert same(listed(batches(data, pipeline={"parallel_calls": calls}).training()), reference)


@pytest.mark.parametrize("seed", [0, 12345])
def test_batches_do_not_depend_on_the_global_seed(data, reference, seed):
    tf.random.set_seed(seed)
    made = batches(data, training={"epochs": 1})
    assert same(listed(made.training()), reference[: made.steps_per_epoch()])
    validation = listed(made.validation())
    tf.random.set_seed(seed + 1)
    assert same(listed(made.validation()), validation)


def test_reading_batches_leaves_the_callers_random_numbers_alone(data):
    tf.random.set_seed(7)
    expected = [tf.random.uniform([]).numpy() for _ in range(2)]
    tf.random.set_seed(7)
    made = batches(data, training={"epochs": 1, "steps_per_epoch": 1}, **NO_ECG)
    found = [tf.random.uniform([]).numpy()]
    listed(made.training())
    found.append(tf.random.uniform([]).numpy())
    assert found == expected


@pytest.mark.parametrize("first_epoch", [1, 2])
def test_starting_at_an_epoch_gives_the_tail_of_a_whole_run(data, reference, first_epoch):
    made = batches(data)
    assert same(listed(made.training(first_epoch)), reference[first_epoch * made.steps_per_epoch() :])


def test_a_longer_run_begins_with_the_shorter_one(data, reference):
    shorter = listed(batches(data, training={"epochs": 1}).training())
    assert same(shorter, reference[: len(shorter)])
    assert len(reference) == 3 * len(shorter)


def test_reading_twice_gives_the_same(data):
    training = batches(data, training={"epochs": 1}, **NO_ECG).training()
    assert same(listed(training), listed(training))


def test_another_seed_gives_other_orders(still, data):
    other = batches(data, augmentation=STILL, training={"epochs": 1}, seed=1, **NO_ECG)
    assert ids(listed(other.training())) != ids(listed(still.training()))[: other.steps_per_epoch()]


def test_a_batch_holds_the_views_of_its_trajectories_in_that_epoch(data, reference):
    made, count = batches(data), data.count("train")
    for epoch in (0, 2):

        def augmented(example, _, epoch=epoch):
            return made.views.augmented(example, trajectory_key(0, epoch, example["trajectory"]))

        expected = listed(made.plain("train").map(augmented).batch(count))[0]
        stored = {row.tobytes(): i for i, row in enumerate(expected[0]["signals"])}
        for batch in reference[epoch * made.steps_per_epoch() :][: made.steps_per_epoch()]:
            rows = [stored[row.tobytes()] for row in batch[0]["signals"]]
            assert same(batch, tf.nest.map_structure(lambda x, rows=rows: x[rows], expected))


def test_a_steps_trajectories_can_be_named(data, reference):
    made, steps = batches(data), batches(data).steps_per_epoch()
    for epoch, step in ((0, 0), (1, 1), (2, steps - 1)):

        def augmented(example, _, epoch=epoch):
            views = made.views.augmented(example, trajectory_key(0, epoch, example["trajectory"]))
            return example["trajectory"], views[0]["signals"]

        name_of = {
            view.tobytes(): name.decode() for name, view in made.plain("train").map(augmented).as_numpy_iterator()
        }
        rows = reference[epoch * steps + step][0]["signals"]
        assert made.names(epoch, step) == [name_of[row.tobytes()] for row in rows]


def test_the_largest_seed_has_batches(data):
    made = batches(data, training={"epochs": 1}, seed=2**31 - 1, **NO_ECG)
    assert len(listed(made.training())) == made.steps_per_epoch()


# The order.


def test_an_epoch_visits_every_training_trajectory_once_but_for_the_remainder(still, data, epochs):
    everything = {view["structured"].numpy().tobytes() for _, view in still.plain("train")}
    count = data.count("train")
    assert len(everything) == count
    assert count % 16  # or there would be no remainder
    assert len(epochs) == 6
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == count // 16 * 16
        assert set(epoch) <= everything
    assert set().union(*epochs) == everything


def test_the_order_differs_between_epochs(epochs):
    for i, epoch in enumerate(epochs):
        for other in epochs[:i]:
            agreeing = sum(a == b for a, b in zip(epoch, other))
            assert agreeing < 0.1 * len(epoch)


def test_trajectories_of_a_shard_are_spread_over_the_epoch(still, data, epochs):
    stored = [view["structured"].numpy().tobytes() for _, view in still.plain("train")]
    order = [stored.index(row) for row in epochs[0]]
    assert np.mean(np.diff(order) == 1) < 0.1


def test_the_shuffle_buffer_changes_the_order_and_no_view(data):
    def epoch(buffer):
        pipeline = {"batch_size": data.count("train"), "shuffle_buffer": buffer}
        (batch,) = listed(batches(data, pipeline=pipeline, training={"epochs": 1}, **NO_ECG).training())
        parts = [array.reshape(len(array), -1) for array in tf.nest.flatten(batch)]
        return [row.tobytes() for row in np.concatenate(parts, axis=1)]

    one, other = epoch(1), epoch(1000)
    assert one != other
    assert sorted(one) == sorted(other)


def test_views_differ_between_epochs(data, reference):
    made = {view["statics"].tobytes() + view["structured"].tobytes() for views in reference for view in views}
    assert len(made) == 2 * len(reference)


def test_steps_per_epoch_cuts_every_epoch_short(data, reference):
    made, full = batches(data, training={"epochs": 3, "steps_per_epoch": 2}), batches(data).steps_per_epoch()
    assert made.steps_per_epoch() == 2
    assert same(listed(made.training()), [reference[full * epoch + step] for epoch in range(3) for step in (0, 1)])


def test_asking_for_more_steps_than_there_are_gives_them_all(data):
    assert (
        batches(data, training={"epochs": 1, "steps_per_epoch": 10_000}).steps_per_epoch() == data.count("train") // 16
    )


# Validation.


def test_validation_is_the_same_every_time_and_knows_its_length(data):
    made = batches(data)
    once = listed(made.validation())
    assert same(listed(made.validation()), once)
    assert same(listed(batches(data, pipeline={"parallel_calls": 8}).validation()), once)
    assert len(once) == made.validation().cardinality() == data.count("validation") // made.validation_batch_size()


def test_validation_holds_validation_trajectories_alone(still, data):
    allowed = {view["structured"].numpy().tobytes() for _, view in still.plain("validation")}
    found = list(chain(*ids(listed(still.validation()))))
    assert len(allowed) == data.count("validation")
    assert len(found) == len(set(found)) > 0
    assert set(found) <= allowed


def test_a_small_validation_split_is_one_batch(data):
    count = data.count("validation")
    made = batches(data, pipeline={"batch_size": count + 1}, **NO_ECG)
    assert made.validation_batch_size() == count
    assert len(listed(made.validation())) == 1


# Plain trajectories.


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_plain_gives_every_trajectory_of_the_split_with_its_labels(data, cohort, split):
    expected = {
        t.name: t
        for p in cohort.patients()
        if split_of(p, cohort.settings.split) == split
        for t in cohort.trajectories(p)
    }
    seen = []
    for example, view in batches(data).plain(split):
        name = example["trajectory"].numpy().decode()
        seen.append(name)
        for task in ("elevated_mpap", "mortality_24h"):
            label = np.float32(expected[name].labels.get(task, np.nan))
            np.testing.assert_array_equal(example[f"task/{task}"], label)
        assert view["signals"].shape == (3, 150, 2)
    assert sorted(seen) == sorted(expected)


def test_plain_views_are_not_augmented(data):
    one, other = (batches(data, seed=seed).plain("test").take(5) for seed in (0, 1))
    assert same([view for _, view in listed(one)], [view for _, view in listed(other)])


# No leak from the held-out splits.


def test_training_batches_do_not_change_when_held_out_patients_do(data, cohort, tampered, tmp_path, reference):
    held_out = [p for p in cohort.patients() if split_of(p, cohort.settings.split) != "train"]
    other = write_dataset(tampered(held_out), cohort.settings, tmp_path / "other")
    made = batches(other, training={"epochs": 1})
    assert same(listed(made.training()), reference[: made.steps_per_epoch()])
    assert not same(listed(batches(other).validation()), listed(batches(data).validation()))


# The No-ECG form.


def test_no_ecg_batches_have_no_signals_and_the_same_tabular_views(data, reference):
    made = batches(data, **NO_ECG)
    assert set(made.training().element_spec[0]) == {"structured", "statics"}
    tabular = [tuple({k: v for k, v in view.items() if k != "signals"} for view in views) for views in reference]
    assert same(listed(made.training()), tabular)


def test_no_ecg_reads_no_signal_that_a_record_has(data, rewritten):
    def strip(features):
        for name in ("signals", "signals_present"):
            features[f"other_{name}"].CopyFrom(features[name])  # a record of its size, but nothing to be read
            del features[name]

    stripped = rewritten(strip)
    short = {"training": {"epochs": 1}}
    assert same(
        listed(batches(stripped, **short, **NO_ECG).training()), listed(batches(data, **short, **NO_ECG).training())
    )
    with pytest.raises(tf.errors.InvalidArgumentError):
        listed(batches(stripped, **short).training().take(1))


def test_no_ecg_reads_a_data_set_without_signals(cohort, data, tmp_path):
    settings = cohort.settings.model_copy(update={"leads": ()})
    bare = write_dataset(SyntheticCohort(settings), settings, tmp_path / "bare")
    short = {"training": {"epochs": 1}}
    assert same(
        listed(batches(bare, **short, **NO_ECG).training()), listed(batches(data, **short, **NO_ECG).training())
    )
    with pytest.raises(InputError, match=r"bare: has no signals.*encoder\.signal=null"):
        batches(bare)


# What a user gets wrong.


def test_a_batch_larger_than_the_training_split_is_refused(data):
    count = data.count("train")
    assert batches(data, pipeline={"batch_size": count}).steps_per_epoch() == 1
    with pytest.raises(InputError, match=rf"data\.batch_size: found {count + 1}, expected at most the {count} "):
        batches(data, pipeline={"batch_size": count + 1}).training()


def test_a_validation_split_too_small_to_contrast_is_refused(cohort, tmp_path):
    settings = cohort.settings.model_copy(update={"split": SplitSettings(validation=0)})
    undivided = write_dataset(cohort, settings, tmp_path / "undivided")
    with pytest.raises(InputError, match="validation split has 0 trajectories, expected at least 2"):
        batches(undivided).validation()


def test_a_segment_longer_than_half_a_window_is_refused(data):
    with pytest.raises(InputError, match=r"augmentation\.segment\.seconds: found 2\.5 s"):
        batches(data, augmentation={"segment": {"seconds": 2.5}})
    batches(data, augmentation={"segment": {"seconds": 2.5}}, **NO_ECG)
