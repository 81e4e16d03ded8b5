import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit
from small_labelled import rewritten, write_labelled

from tfmmcl.cohorts.trajectory import Feature
from tfmmcl.config import validate
from tfmmcl.errors import InputError, TrainingError
from tfmmcl.finetune_settings import FinetuneSettings
from tfmmcl.models.encoder import build_encoder
from tfmmcl.models.heads import build_task_head
from tfmmcl.pipeline.labelled import LabelledBatches
from tfmmcl.records.labels import labelled
from tfmmcl.records.manifest import DataSet
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.finetune import finetune, fit
from tfmmcl.training.finetuner import Finetuner
from tfmmcl.training.pretrain import pretrain
from tfmmcl.training.run_directory import FinetuneDirectory, RunDirectory
from tfmmcl.training.start_finetuning import complete

ENCODER = {
    "signal": {"stem_filters": 4, "stage_filters": [4], "blocks_per_stage": 1, "kernel_size": 5, "units": 4},
    "structured_units": [8],
    "statics_units": [8],
    "recurrent_layers": 1,
    "recurrent_units": 8,
}
NO_ECG = {**ENCODER, "signal": None}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp("finetune") / "data")


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    """A finished pre-training run."""
    settings = validate(
        {
            "data": {"path": str(data.path), "batch_size": 16, "fingerprint": data.fingerprint},
            "augmentation": {"segment": {"seconds": 2}},
            "encoder": ENCODER,
            "objective": {"projection_units": [8]},
            "training": {"epochs": 1},
        },
        PretrainSettings,
        "test",
    )
    run = RunDirectory(tmp_path_factory.mktemp("pretrained") / "run")
    run.write_result(pretrain(settings, run))
    return run


def make(data, task="high", encoder=NO_ECG, training=None, batch_size=16, **changes):
    tree = {
        "task": task,
        "data": {"path": str(data.path), "batch_size": batch_size},
        "encoder": encoder,
        "training": {"epochs": 2, "patience": None, **(training or {})},
        **changes,
    }
    return validate(tree, FinetuneSettings, "test")


class Weights(keras.callbacks.Callback):
    """Keeps the network's weights after each epoch, and those before the first."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_train_begin(self, logs=None):
        self.epochs.append(self._now())

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self._now())

    def _now(self):
        return {part: [w.copy() for w in getattr(self.model, part).get_weights()] for part in ("encoder", "head")}


def parts(fitted):
    encoder, head = (fitted.model.get_layer(name) for name in ("trajectory_encoder", "task_head"))
    return {"encoder": encoder.get_weights(), "head": head.get_weights()}


def are_equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def fastest(rate=0.3):
    return {"learning_rate": rate}


@pytest.mark.parametrize("patience", [None, 2])
def test_the_weights_of_the_best_epoch_are_restored(data, patience):
    weights = Weights()
    settings = make(data, optimizer=fastest(), training={"epochs": 9, "patience": patience})
    fitted = fit(settings, data, callbacks=[weights])
    losses = [epoch["val_loss"] for epoch in fitted.history]
    best = int(np.argmin(losses)) + 1
    assert fitted.best_epoch == best < len(losses), "the best must not be the last for this to show anything"
    assert len(losses) == (9 if patience is None else best + patience)
    assert not are_equal(weights.epochs[best]["head"], weights.epochs[-1]["head"])
    for part, restored in parts(fitted).items():
        assert are_equal(restored, weights.epochs[best][part]), part
    found = fitted.predictions["validation"]
    by_hand = -np.log(np.where(found.labels == 1, found.predictions, 1 - found.predictions)).mean()
    assert by_hand == pytest.approx(losses[best - 1], rel=1e-4)


def test_a_frozen_encoder_does_not_change_by_a_bit(data, pretrained):
    weights = Weights()
    settings = make(
        data, pretrained=str(pretrained.path), optimizer=fastest(), training={"epochs": 3, "frozen_epochs": "all"}
    )
    fitted = fit(settings, data, callbacks=[weights])
    before = keras.saving.load_model(pretrained.encoder)
    assert any("moving_variance" in variable.path for variable in before.variables)
    for epoch in weights.epochs:
        assert are_equal(epoch["encoder"], before.get_weights())
    assert are_equal(parts(fitted)["encoder"], before.get_weights())
    assert not are_equal(weights.epochs[1]["head"], weights.epochs[0]["head"])


@pytest.mark.slow
def test_an_encoder_frozen_for_some_epochs_learns_after_them(data, pretrained):
    weights = Weights()
    settings = make(data, pretrained=str(pretrained.path), training={"epochs": 4, "frozen_epochs": 2})
    fit(settings, data, callbacks=[weights])
    encoders = [epoch["encoder"] for epoch in weights.epochs]
    assert are_equal(encoders[0], encoders[2])
    changed = [not np.array_equal(a, b) for a, b in zip(encoders[2], encoders[3])]
    assert all(changed)  # every kernel, offset and running statistic
    assert not are_equal(encoders[3], encoders[4])
    for one, other in zip(weights.epochs, weights.epochs[1:]):
        assert not are_equal(one["head"], other["head"])


@pytest.mark.slow
def test_a_new_frozen_encoder_stays_as_it_was_calibrated(data):
    weights = Weights()
    fit(make(data, encoder=ENCODER, training={"frozen_epochs": "all"}), data, callbacks=[weights])
    encoders = [epoch["encoder"] for epoch in weights.epochs]
    assert are_equal(encoders[0], encoders[-1])
    settings = complete(make(data, encoder=ENCODER), data)
    keras.utils.set_random_seed(settings.seed)
    untouched = build_encoder(2, 2, 2, 100, 1, settings.encoder)
    running = ["moving" in variable.path for variable in untouched.weights]
    same = [np.array_equal(a, b) for a, b in zip(encoders[0], untouched.get_weights())]
    assert same == [not moves for moves in running]
    assert any(running)


def test_the_encoders_rate_is_a_fraction_of_the_heads(data):
    """The first step of Adam moves every number by the learning rate."""
    moved = {}
    for rate in (1.0, 0.1):
        weights = Weights()
        settings = make(data, training={"epochs": 1, "encoder_rate": rate}, batch_size=99)
        fit(settings, data, callbacks=[weights])
        before, after = weights.epochs
        moved[rate] = {
            part: max(np.abs(a - b).max() for a, b in zip(after[part], before[part])) for part in ("encoder", "head")
        }
    assert moved[1.0] == pytest.approx({"encoder": 1e-3, "head": 1e-3}, rel=1e-2)
    assert moved[0.1] == pytest.approx({"encoder": 1e-4, "head": 1e-3}, rel=1e-2)


def poisoned(item, task):
    if np.isfinite(item.labels[task]):
        return item
    labels = {name: 1.0 - label if name != "pressure" else 1e6 for name, label in item.labels.items() if name != task}
    return dataclasses.replace(
        item,
        signals=np.where(np.isnan(item.signals), 0, 30).astype(np.float32) * np.sign(item.signals + 0.5),
        structured=np.full_like(item.structured, 1e9),
        statics=np.full_like(item.statics, -1e9),
        labels=labels,
    )


@pytest.mark.parametrize("task", ["high", pytest.param("pressure", marks=pytest.mark.slow)])
def test_a_trajectory_without_a_label_is_never_seen(data, tmp_path, task):
    other = rewritten(data, tmp_path / "poisoned", lambda item: poisoned(item, task))
    found = [fit(make(which, task, ENCODER if task == "high" else NO_ECG), which) for which in (data, other)]
    assert found[0].history[0]["loss"] == found[1].history[0]["loss"]
    for split in ("validation", "test"):
        one, two = (item.predictions[split] for item in found)
        np.testing.assert_array_equal(one.predictions, two.predictions)
        assert one.trajectories.tolist() == [item.trajectory for item in labelled(data, split, task)]
        assert len(one.labels) < data.count(split)
        assert not np.isnan(one.labels).any()
    assert len(found[0].training) < data.count("train")


def test_class_weights_weigh_the_loss(data):
    settings = complete(make(data, "third", training={"class_weights": "balanced", "epochs": 1}), data)
    batches = LabelledBatches(data, settings)
    counts = np.bincount([int(item.label) for item in batches.labels["train"]])
    assert counts.min() < counts.max()
    fitted = fit(settings, data)
    found = fitted.predictions["validation"]
    weights = (counts.sum() / 3 / counts)[found.labels.astype(int)]
    losses = -np.log(found.predictions[np.arange(len(weights)), found.labels.astype(int)])
    assert fitted.history[0]["val_loss"] == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-4)


def test_a_step_follows_the_gradient_of_the_weighted_mean(data):
    settings = complete(make(data, training={"class_weights": "balanced"}), data)
    batches = LabelledBatches(data, settings)
    keras.utils.set_random_seed(0)
    encoder, head = build_encoder(2, 2, 2, 0, 1, settings.encoder), build_task_head(8, (), 1)
    trainer = Finetuner(encoder, head, batches.task)
    trainer.compile(optimizer=keras.optimizers.SGD(1.0))
    view, label, weight = next(iter(batches.training()))
    assert len(set(weight.numpy())) > 1
    before = [tensor.numpy() for tensor in head.trainable_variables]
    embedding = encoder(view, training=True).numpy()
    logits = embedding @ before[0] + before[1]
    error = (weight.numpy() * (expit(logits[:, 0]) - label.numpy()) / weight.numpy().sum())[:, None]
    trainer.train_step((view, label, weight))
    np.testing.assert_allclose(before[0] - head.trainable_variables[0].numpy(), embedding.T @ error, atol=1e-5)
    np.testing.assert_allclose(before[1] - head.trainable_variables[1].numpy(), error.sum(axis=0), atol=1e-5)


@pytest.mark.parametrize(
    "task", ["high", pytest.param("third", marks=pytest.mark.slow), pytest.param("pressure", marks=pytest.mark.slow)]
)
def test_it_learns_better_than_a_constant(data, task):
    settings = make(data, task, optimizer=fastest(0.02), training={"epochs": 25}, head_units=[8])
    fitted = fit(settings, data)
    training = np.array([item.label for item in fitted.training])
    found = fitted.predictions["test"]
    if task == "pressure":
        constant = np.mean((found.labels - training.mean()) ** 2)
        loss = np.mean((found.labels - found.predictions) ** 2)
        assert found.predictions.mean() == pytest.approx(found.labels.mean(), abs=3)  # in mmHg
    else:
        columns = found.predictions if task == "third" else np.stack([1 - found.predictions, found.predictions], axis=1)
        np.testing.assert_allclose(columns.sum(axis=1), 1, rtol=1e-5)
        rates = np.bincount(training.astype(int)) / len(training)
        places = found.labels.astype(int)
        constant, loss = -np.log(rates[places]).mean(), -np.log(columns[np.arange(len(places)), places]).mean()
    assert loss < 0.7 * constant
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


@pytest.mark.parametrize("kind", ["ecg", "no ecg"])
def test_crops_are_averaged_in_probability(data, kind):
    reading = {"part": "crops", "seconds": 1, "crops": 3}
    encoder = ENCODER if kind == "ecg" else NO_ECG
    fitted = fit(make(data, "third", encoder, reading=reading), data)
    settings = complete(make(data, "third", encoder, reading=reading), data)
    view, _, _ = next(iter(LabelledBatches(data, settings).inference("test")))
    if kind == "no ecg":
        expected = fitted.model(view)["probability"].numpy()
    else:
        crops = [fitted.model({**view, "signals": view["signals"][:, i]})["probability"].numpy() for i in range(3)]
        assert np.abs(crops[0] - crops[2]).max() > 1e-3
        expected = np.mean(crops, axis=0)
    found = fitted.predictions["test"].predictions[: len(expected)]
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "training"),
    [("mixed_bfloat16", {}), ("mixed_float16", {"encoder_rate": 0.5})],
)
def test_half_precision_learns_and_leaves_a_float32_model(data, precision, training):
    settings = make(data, "high", ENCODER, {"precision": precision, "epochs": 8, **training}, optimizer=fastest(0.01))
    fitted = fit(settings, data)
    assert min(epoch["loss"] for epoch in fitted.history) < 0.9 * fitted.history[0]["loss"]
    assert fitted.model.compute_dtype == "float32"
    assert fitted.predictions["test"].predictions.dtype == np.float32
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_network_and_another_one_another(data):
    found = [fit(make(data, seed=seed), data).predictions["test"].predictions for seed in (4, 4, 5)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    assert np.abs(found[0] - found[2]).max() > 1e-2


def test_one_labelled_patient_is_enough(data):
    fitted = fit(make(data, label_fraction=1e-6), data)
    assert len({item.patient for item in fitted.training}) == 1
    assert np.isfinite(fitted.predictions["test"].predictions).all()


def test_a_loaded_encoder_serves_as_the_run_it_is_from(data, pretrained):
    settings = make(data, pretrained=str(pretrained.path))
    loaded = keras.saving.load_model(pretrained.encoder)
    before = [w.copy() for w in loaded.get_weights()]
    found = [fit(settings, data, encoder=encoder).predictions["test"].predictions for encoder in (None, loaded)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    assert are_equal(before, loaded.get_weights())


def test_a_pretrained_encoder_brings_its_sizes_and_what_it_read(data, pretrained):
    settings = complete(make(data, pretrained=str(pretrained.path)), data)
    assert settings.encoder.signal.units == 4
    assert settings.reading.seconds == 2
    assert complete(make(data, pretrained=str(pretrained.path), reading={"seconds": 1}), data).reading.seconds == 1
    whole = fit(make(data, pretrained=str(pretrained.path), reading={"seconds": 4}, training={"epochs": 1}), data)
    assert whole.model.input["signals"].shape == (None, 2, 100, 1)


def test_an_encoder_goes_to_another_data_set_with_the_same_features_only(data, pretrained, tmp_path):
    other = write_labelled(tmp_path / "other", number=24)
    assert other.fingerprint != data.fingerprint
    fitted = fit(make(other, pretrained=str(pretrained.path), training={"epochs": 1}), other)
    assert np.isfinite(fitted.predictions["test"].predictions).all()

    changes = {
        "structured": (Feature(name="rate", unit="Hz"), Feature(name="noise", unit="1")),
        "statics": (Feature(name="age", unit="a"),),
        "leads": ("V1",),
        "sampling_rate_hz": 50.0,
        "windows": 3,
    }
    expected = {
        "structured": r"has structured rate \(Hz\), noise \(1\), expected rate \(bpm\), noise \(1\), which the encoder",
        "statics": r"has statics age \(a\), expected lactate \(mmol/L\), age \(a\)",
        "leads": r"has leads V1, expected II",
        "sampling_rate_hz": r"has sampling_rate_hz 50\.0, expected 25\.0",
        "windows": r"has windows 3, expected 2",
    }
    for key, value in changes.items():
        manifest = other.manifest.model_copy(update={"spec": other.spec.model_copy(update={key: value})})
        with pytest.raises(InputError, match=expected[key]):
            complete(make(other, pretrained=str(pretrained.path)), DataSet(other.path, manifest))
    result = json.loads(pretrained.result.read_text())
    del result["data"]["spec"]
    copy = RunDirectory(tmp_path / "run")
    copy.path.mkdir()
    for file in (pretrained.config, pretrained.encoder):
        (copy.path / file.name).write_bytes(file.read_bytes())
    copy.write_result(result)
    with pytest.raises(InputError, match=r"result\.json: does not say which features"):
        complete(make(other, pretrained=str(copy.path)), other)
    assert complete(make(data, pretrained=str(copy.path)), data)


def test_what_does_not_fit_is_one_sentence(data, pretrained, tmp_path):
    tabular = write_labelled(tmp_path / "tabular", number=24, leads=())
    with pytest.raises(InputError, match=r"has no signals, but encoder\.signal asks for them"):
        fit(make(tabular, encoder=ENCODER), tabular)
    with pytest.raises(InputError, match=r"holds no run \(no config\.yaml\)"):
        fit(make(data, pretrained=str(tmp_path / "nowhere")), data)
    unfinished = RunDirectory(tmp_path / "unfinished")
    unfinished.start(pretrained.load_settings())
    with pytest.raises(
        InputError, match=r"encoder\.keras: no such file; expected a run that pretrain\.py has finished"
    ):
        fit(make(data, pretrained=str(unfinished.path)), data)

    def without(split):
        return lambda item: dataclasses.replace(item, labels={}) if item.patient in patients[split] else item

    patients = {split: {item.patient for item in labelled(data, split, "high")} for split in ("train", "validation")}
    for split in patients:
        bare = rewritten(data, tmp_path / split, without(split))
        with pytest.raises(InputError, match=rf"no trajectory of the {split} split has a label of 'high'\.$"):
            fit(make(bare), bare)


def test_a_nan_stops_the_run_with_a_sentence(data):
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) at step \d"):
        fit(make(data, "pressure", optimizer=fastest(1e30)), data)


def test_a_run_leaves_its_files(data, tmp_path):
    run = FinetuneDirectory(tmp_path / "run")
    settings = make(data, "pressure", ENCODER, {"epochs": 3})
    result = finetune(settings, run)
    assert {path.name for path in run.path.iterdir()} == {
        *("config.yaml", "tensorboard", "history.jsonl", "checkpoints", "model.keras", "predictions.npz")
    }
    assert run.load_settings() == settings
    assert [line["epoch"] for line in run.read_history()] == [1, 2, 3]
    assert result["final"] == run.read_history()[result["best_epoch"] - 1]
    assert result["training"]["trajectories"] == len(labelled(data, "train", "pressure"))
    assert result["data"]["fingerprint"] == data.fingerprint
    json.dumps(result, allow_nan=False)

    rows = np.load(run.predictions)
    every = [(split, item) for split in ("validation", "test") for item in labelled(data, split, "pressure")]
    assert list(zip(rows["split"], rows["trajectory"], rows["patient"])) == [
        (split, item.trajectory, item.patient) for split, item in every
    ]
    np.testing.assert_array_equal(rows["label"], [item.label for _, item in every])
    model = keras.saving.load_model(run.model)
    view, _, _ = next(iter(LabelledBatches(data, settings).inference("validation")))
    found = model({**view, "signals": view["signals"][:, 0]})["prediction"]
    np.testing.assert_allclose(found, rows["prediction"][: len(found)], rtol=1e-4)
    tags = {
        value.tag
        for file in run.tensorboard.rglob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert {"loss/by epoch", "settings", "optimizer/learning rate"} <= tags
    with pytest.raises(InputError, match=r"already exists; expected a new folder, or --resume"):
        finetune(settings, run)
