import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_labelled import write_labelled

from tfmmcl.config import validate
from tfmmcl.errors import InputError
from tfmmcl.finetune_settings import FinetuneSettings, ReadingSettings
from tfmmcl.pipeline import labelled
from tfmmcl.pipeline.labelled import LabelledBatches
from tfmmcl.pipeline.shapes import crop_starts, even_batches
from tfmmcl.records.verify import read_trajectories


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp("labelled") / "data")


@pytest.fixture(params=["held", "streamed"])
def _memory(request, monkeypatch):
    if request.param == "streamed":
        monkeypatch.setattr(labelled, "MEMORY_BYTES", 0)


def make(data, task="high", batch_size=16, **changes):
    tree = {"task": task, "data": {"path": str(data.path), "batch_size": batch_size}, **changes}
    return LabelledBatches(data, validate(tree, FinetuneSettings, "test"))


def numbers(batches):
    """Returns the statics, which tell trajectories apart, the labels and the weights of all batches."""
    parts = [(view["statics"].numpy(), label.numpy(), weight.numpy()) for view, label, weight in batches]
    return tuple(np.concatenate(part) for part in zip(*parts))


def of_records(data, split, task):
    """Returns a split's labelled trajectories, read without TensorFlow."""
    return [item for item in read_trajectories(data, split) if np.isfinite(item.labels[task])]


def epochs_of(batches):
    steps, size = batches.training_batches()
    statics, labels, weights = numbers(batches.training())
    count = batches.settings.training.epochs
    assert len(labels) == count * steps * size
    return [part.reshape(count, steps * size, *part.shape[1:]) for part in (statics, labels, weights)]


@given(st.integers(1, 500), st.integers(1, 200))
def test_batches_are_even_and_none_is_only_filling(count, batch_size):
    batches, size = even_batches(count, batch_size)
    assert size <= batch_size
    assert batches == -(-count // batch_size)
    assert 0 <= batches * size - count < size
    assert batches * size - count < batches


@pytest.mark.usefixtures("_memory")
@pytest.mark.parametrize("batch_size", [7, 16, 1000])
def test_an_epoch_has_every_labelled_trajectory_once(data, batch_size):
    batches = make(data, batch_size=batch_size, training={"epochs": 3})
    expected = of_records(data, "train", "high")
    assert len(expected) < data.count("train")
    mean, std = data.statistics.statics_mean, data.statistics.statics_std
    wanted = sorted(((item.statics - mean) / std)[0] for item in expected)
    statics, labels, weights = epochs_of(batches)
    for epoch in range(3):
        real = weights[epoch] > 0
        assert real.sum() == len(expected)
        np.testing.assert_allclose(np.sort(statics[epoch][real, 0]), wanted, rtol=1e-5)
        assert labels[epoch][real].sum() == sum(item.labels["high"] for item in expected)
        assert not np.isnan(labels[epoch]).any()
    if batch_size == 1000:
        assert batches.training_batches() == (1, len(expected))


@pytest.mark.usefixtures("_memory")
@pytest.mark.parametrize(("least", "passes"), [(1, 1), (3, 1), (4, 2), (20, 7)])
def test_an_epoch_of_few_labels_is_passed_over_until_it_has_the_least_steps(data, least, passes):
    expected = of_records(data, "train", "high")
    size = -(-len(expected) // 3)
    batches = make(data, batch_size=size, training={"epochs": 2, "least_steps": least})
    assert batches.training_batches() == (3 * passes, size)
    statics, _, weights = epochs_of(batches)
    orders = []
    for epoch in range(2):
        for rows, real in zip(np.split(statics[epoch], passes), np.split(weights[epoch] > 0, passes)):
            assert real.sum() == len(expected)
            orders.append(tuple(rows[real, 0]))
    assert len({tuple(sorted(order)) for order in orders}) == 1
    assert len(set(orders)) == 2 * passes


@pytest.mark.usefixtures("_memory")
def test_the_order_follows_from_seed_and_epoch(data):
    one, again, other = (
        epochs_of(make(data, seed=seed, training={"epochs": epochs}))[0] for seed, epochs in ((1, 3), (1, 2), (2, 3))
    )
    np.testing.assert_array_equal(one[:2], again)
    assert (one[0] != one[1]).any()
    assert (one[1] != one[2]).any()
    assert (one[0] != other[0]).any()


@pytest.mark.usefixtures("_memory")
@pytest.mark.parametrize("split", ["validation", "test"])
def test_inference_is_in_stored_order_the_same_every_time(data, split):
    batches = make(data, task="third", label_fraction=0.2)
    expected = of_records(data, split, "third")
    made = batches.inference(split)
    for _ in range(2):
        statics, labels, weights = numbers(made)
        assert weights.tolist() == [1.0] * len(expected) + [0.0] * (len(weights) - len(expected))
        assert labels[: len(expected)].tolist() == [item.labels["third"] for item in expected]
        mean, std = data.statistics.statics_mean, data.statistics.statics_std
        by_hand = [(item.statics - mean) / std for item in expected]
        np.testing.assert_allclose(statics[: len(expected)], by_hand, rtol=1e-5)
    assert [item.trajectory for item in batches.labels[split]] == [item.name for item in expected]


def test_a_fraction_trains_with_its_patients_alone(data):
    batches = make(data, label_fraction=0.3, training={"epochs": 1})
    patients = {item.patient for item in batches.labels["train"]}
    expected = [item for item in of_records(data, "train", "high") if item.patient in patients]
    statics, _, weights = numbers(batches.training())
    mean, std = data.statistics.statics_mean[0], data.statistics.statics_std[0]
    wanted = sorted((item.statics[0] - mean) / std for item in expected)
    np.testing.assert_allclose(np.sort(statics[weights > 0, 0]), wanted, rtol=1e-5)


def crops_by_hand(data, item, starts, samples):
    """Returns standardised crops `(K, T, S, C)` of a trajectory."""
    mean, std = data.statistics.signals_mean, data.statistics.signals_std
    signals = np.nan_to_num((item.signals - mean) / std)
    return np.stack([signals[:, start : start + samples] for start in starts])


@pytest.mark.parametrize(
    ("reading", "starts", "samples"),
    [
        ({}, [0], 100),
        ({"seconds": 1}, [0], 25),
        ({"part": "centre", "seconds": 1}, [37], 25),
        ({"part": "crops", "seconds": 1}, [0, 38, 75], 25),
        ({"part": "crops", "seconds": 2, "crops": 2}, [0, 50], 50),
    ],
)
def test_each_reading_is_as_by_hand(data, reading, starts, samples):
    batches = make(data, reading=reading, training={"epochs": 8})
    assert crop_starts(data.spec, ReadingSettings(**reading)) == starts
    expected = np.stack([crops_by_hand(data, item, starts, samples) for item in of_records(data, "test", "high")])
    found = np.concatenate([view["signals"].numpy() for view, _, _ in batches.inference("test")])
    assert found.shape[1:] == (len(starts), 2, samples, 1)
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-5)

    mean, std = data.statistics.statics_mean[0], data.statistics.statics_std[0]
    by_age = {
        round(float((item.statics[0] - mean) / std), 3): crops_by_hand(data, item, starts, samples)
        for item in of_records(data, "train", "high")
    }
    drawn = []
    for view, _, _ in batches.training():
        assert view["signals"].shape == (batches.training_batches()[1], 1, 2, samples, 1)
        for statics, signals in zip(view["statics"].numpy(), view["signals"].numpy()):
            distances = np.abs(by_age[round(float(statics[0]), 3)] - signals).max(axis=(1, 2, 3))
            assert distances.min() < 1e-5
            drawn.append(distances.argmin())
    often = np.bincount(drawn, minlength=len(starts)) / len(drawn)
    assert (np.abs(often - 1 / len(starts)) < 0.15).all()


def test_labels_of_a_regression_are_standardised_by_those_of_training(data):
    batches = make(data, task="pressure", training={"epochs": 1})
    training = np.array([item.labels["pressure"] for item in of_records(data, "train", "pressure")])
    _, labels, weights = numbers(batches.training())
    assert labels[weights > 0].mean() == pytest.approx(0, abs=1e-5)
    assert labels[weights > 0].std() == pytest.approx(1, abs=1e-5)
    test = np.array([item.labels["pressure"] for item in of_records(data, "test", "pressure")])
    _, labels, weights = numbers(batches.inference("test"))
    np.testing.assert_allclose(labels[weights > 0], (test - training.mean()) / training.std(), rtol=1e-5)


def test_balanced_weights_give_each_class_the_same_sum(data):
    batches = make(data, task="third", training={"epochs": 1, "class_weights": "balanced"})
    _, labels, weights = numbers(batches.training())
    sums = [weights[labels == label].sum() for label in range(3)]
    assert sums == pytest.approx([sum(sums) / 3] * 3)
    assert sum(sums) == pytest.approx(len(batches.labels["train"]))
    counts = np.bincount([int(item.label) for item in batches.labels["train"]])
    _, labels, weights = numbers(batches.inference("test"))
    for label in range(3):
        found = weights[(labels == label) & (weights > 0)]
        np.testing.assert_allclose(found, counts.sum() / 3 / counts[label], rtol=1e-5)


def test_what_does_not_fit_is_one_sentence(data, tmp_path):
    with pytest.raises(
        InputError, match=r"reading\.seconds: found 5 s \(125 samples\), expected at most .* 4-s windows"
    ):
        make(data, reading={"seconds": 5})
    with pytest.raises(InputError, match="has no task 'hihg'; did you mean 'high'"):
        make(data, task="hihg")
