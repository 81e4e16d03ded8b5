import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmmcl.errors import InputError, TrainingError
from tfmmcl.pipeline.batches import Batches
from tfmmcl.training.checkpoints import Checkpoints
from tfmmcl.training.health import Collapse, SkippedSteps, check_finite
from tfmmcl.training.pretrain import build_pretrainer, float32_encoder, pretrain
from tfmmcl.training.run_directory import RunDirectory
from tfmmcl.training.start import resume_settings


def trainer_and_batch(settings, data, seed=0):
    keras.utils.set_random_seed(seed)
    batches = Batches(data, settings)
    trainer = build_pretrainer(settings, data)
    return trainer, next(iter(batches.training()))


def losses(trainer, batch, steps):
    found = []
    for _ in range(steps):
        trainer.reset_metrics()
        found.append(float(trainer.train_on_batch_of_views(batch)["loss"]))
    return found


@pytest.fixture(autouse=True)
def _one_step(monkeypatch):
    """Lets a test take the very step that `fit` takes, on one batch."""
    from tfmmcl.training.pretrainer import Pretrainer

    def train_on_batch_of_views(self, batch):
        self.make_train_function()
        return self.train_function(iter(tf.data.Dataset.from_tensors(batch)))

    monkeypatch.setattr(Pretrainer, "train_on_batch_of_views", train_on_batch_of_views, raising=False)


def test_it_can_learn_one_batch_by_heart(make_settings, small_data):
    trainer, batch = trainer_and_batch(make_settings("optimizer.learning_rate=0.01"), small_data)
    found = losses(trainer, batch, 60)
    assert found[-1] < 0.5 * found[0]


@pytest.mark.slow
@pytest.mark.parametrize("signal", ["{}", "null"])
def test_xla_gives_the_same_losses_over_ten_steps(make_settings, small_data, signal):
    overrides = ["encoder.signal=null"] if signal == "null" else []
    found = {}
    for compiled in ("false", "true"):
        settings = make_settings(f"training.jit_compile={compiled}", *overrides)
        trainer, batch = trainer_and_batch(settings, small_data)
        assert trainer.jit_compile is (compiled == "true")
        found[compiled] = losses(trainer, batch, 10)
    assert found["true"][-1] != found["true"][0]
    np.testing.assert_allclose(found["true"], found["false"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains_with_a_float32_loss(make_settings, small_data, precision):
    settings = make_settings(f"training.precision={precision}", "optimizer.learning_rate=0.01")
    trainer, batch = trainer_and_batch(settings, small_data)
    stacked = {key: tf.concat([view[key] for view in batch], 0) for key in batch[0]}
    assert trainer(stacked)[0].dtype.name == precision.removeprefix("mixed_")
    assert trainer.objective(*zip(trainer(stacked), trainer(stacked)))["loss"].dtype == tf.float32
    found = losses(trainer, batch, 40)
    assert np.isfinite(found).all()
    assert found[-1] < 0.7 * found[0]


def test_a_step_is_the_gradient_of_the_objective_on_both_views_in_one_pass(make_settings, small_data):
    settings = make_settings()
    trainer, batch = trainer_and_batch(settings, small_data)
    trainer.compile(optimizer=keras.optimizers.SGD(1.0))
    variable = trainer.head.trainable_variables[0]
    stacked = {key: tf.concat([view[key] for view in batch], 0) for key in batch[0]}
    with tf.GradientTape() as tape:
        z = trainer.head(trainer.encoder(stacked, training=True), training=True)
        z = z / tf.norm(z, axis=1, keepdims=True)
        logits = tf.linalg.set_diag(z @ tf.transpose(z) / 0.1, tf.fill([16], -np.inf))
        partner = (np.arange(16) + 8) % 16
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(partner, logits))
    expected = tape.gradient(loss, variable.value).numpy()
    before = variable.numpy()
    trainer.train_on_batch_of_views(batch)
    np.testing.assert_allclose(before - variable.numpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_inference_mode_agrees_in_scale_with_training_mode_after_a_short_run(make_settings, small_data):
    settings = make_settings("training.epochs=6")
    batches = Batches(small_data, settings)
    trainer = build_pretrainer(settings, small_data)
    trainer.fit(batches.training(), epochs=6, steps_per_epoch=batches.steps_per_epoch(), verbose=0, shuffle=False)
    views = next(iter(Batches(small_data, make_settings("training.epochs=1", "data.batch_size=32")).training()))
    stacked = {key: tf.concat([view[key] for view in views], 0) for key in views[0]}
    for part in (0, 1):  # embedding and projection
        scale = {mode: np.std(trainer(stacked, training=mode)[part], axis=0).mean() for mode in (True, False)}
        assert 0.7 < scale[False] / scale[True] < 1.4, (part, scale)


def test_a_run_leaves_its_files_and_a_falling_loss(make_settings, small_data, tmp_path):
    run = RunDirectory(tmp_path / "run")
    result = pretrain(make_settings("training.epochs=4", "training.checkpoints=2"), run)
    for path in (run.config, run.history, run.encoder):
        assert path.is_file()
    saved = [file.name for file in Checkpoints(run).positions()]
    assert saved == ["epoch-00004-step-000000.json", "epoch-00003-step-000000.json"]
    lines = [json.loads(line) for line in run.history.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert result["final"]["val_loss"] == pytest.approx(lines[-1]["val_loss"])
    assert result["chance"]["loss"] == pytest.approx(np.log(2 * result["validation_batch_size"] - 1))
    assert run.load_settings() == make_settings("training.epochs=4", "training.checkpoints=2")
    assert not list(run.path.rglob(".partial*"))
    encoder = keras.saving.load_model(run.encoder)
    assert {variable.dtype for variable in encoder.trainable_variables} == {"float32"}


def test_validation_figures_equal_the_objective_computed_by_hand(make_settings, small_data, tmp_path):
    settings = make_settings("training.epochs=1")
    result = pretrain(settings, RunDirectory(tmp_path / "run"))
    batches = Batches(small_data, settings)
    trainer = build_pretrainer(settings, small_data)
    trainer.load_weights(tmp_path / "run/checkpoints/epoch-00001-step-000000.weights.h5")
    by_hand = []
    for first, second in batches.validation():
        outputs = [trainer(view, training=False) for view in (first, second)]
        by_hand.append(trainer.objective(*zip(*outputs)))
    for name in trainer.objective.metrics:
        mean = np.mean([float(values[name]) for values in by_hand])
        assert result["final"][f"val_{name}"] == pytest.approx(mean, rel=1e-4, abs=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "rtol"),
    [
        (("optimizer.decay=cosine", "optimizer.clip_norm=1"), 1e-3),
        pytest.param(
            ("training.precision=mixed_float16", "optimizer.name=lamb", "optimizer.weight_decay=0.01"),
            3e-2,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(make_settings, small_data, tmp_path, overrides, rtol):
    settings = make_settings("training.epochs=4", "training.checkpoints=9", *overrides)
    whole, part = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "part")
    pretrain(settings, whole)
    part.start(settings)
    for file in sorted(whole.checkpoints.glob("epoch-0000[12]-*")):
        (part.checkpoints / file.name).write_bytes(file.read_bytes())
    # A third epoch was under way: its line was written, its checkpoint was not.
    part.history.write_text("".join(whole.history.read_text().splitlines(keepends=True)[:3]))
    pretrain(settings, part, resume=True)
    for one, other in zip(
        keras.saving.load_model(whole.encoder).get_weights(), keras.saving.load_model(part.encoder).get_weights()
    ):
        np.testing.assert_allclose(other, one, rtol=rtol, atol=rtol / 10)
    histories = [[json.loads(line) for line in run.history.read_text().splitlines()] for run in (whole, part)]
    assert [line["epoch"] for line in histories[1]] == [1, 2, 3, 4]
    # Killed after its last epoch, before its result was written: nothing is trained again.
    assert pretrain(settings, part, resume=True)["final"] == histories[1][-1]
    np.testing.assert_allclose(
        [line["val_loss"] for line in histories[1]], [line["val_loss"] for line in histories[0]], rtol=rtol
    )


@pytest.mark.slow
def test_a_last_step_that_spoils_the_weights_is_noticed_before_they_are_saved(make_settings, small_data, tmp_path):
    run = RunDirectory(tmp_path / "run")
    settings = make_settings("optimizer.learning_rate=1e30", "training.epochs=1", "training.steps_per_epoch=1")
    with pytest.raises(TrainingError, match=r"the validation loss is nan at step 1"):
        pretrain(settings, run)
    assert not Checkpoints(run).positions()


def test_running_statistics_start_from_a_batch(make_settings, small_data):
    trainer, batch = trainer_and_batch(make_settings(), small_data)
    stacked = {key: tf.concat([view[key] for view in batch], 0) for key in batch[0]}
    before = [weights.numpy() for weights in trainer.trainable_variables]
    trainer.calibrate(batch)
    for one, other in zip(trainer(stacked, training=True), trainer(stacked, training=False)):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    for one, other in zip(before, trainer.trainable_variables):
        np.testing.assert_array_equal(one, other)


def test_a_nan_stops_the_run_with_the_step(make_settings, small_data, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+ on the trajectories \S+-\d+, "):
        pretrain(make_settings("optimizer.learning_rate=1e30"), run)
    assert not run.encoder.exists()


def test_a_folder_that_holds_something_is_refused_and_left_alone(make_settings, small_data, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="already exists"):
        pretrain(make_settings(), RunDirectory(folder))
    assert [file.name for file in folder.iterdir()] == ["thesis.tex"]


def test_a_run_that_goes_on_longer_can_be_interrupted_and_resumed_too(make_settings, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.start(make_settings("training.epochs=2"))
    run.write_result({"epochs": 2})
    with pytest.raises(InputError, match="this run is finished"):
        resume_settings(run, None, [])
    longer = resume_settings(run, None, ["training.epochs=5"])
    run.write_settings(longer)  # as resuming does; then it was interrupted
    assert resume_settings(run, None, []) == longer


@pytest.mark.slow
def test_of_damaged_checkpoints_the_one_before_is_taken_and_without_one_it_is_an_error(
    make_settings, small_data, tmp_path, capsys
):
    settings = make_settings("training.epochs=3", "training.checkpoints=3")
    run = RunDirectory(tmp_path / "run")
    expected = pretrain(settings, run)["final"]
    newest, middle, oldest = (file.with_suffix(".weights.h5") for file in Checkpoints(run).positions())
    newest.write_bytes(newest.read_bytes()[:-100])
    middle.unlink()
    found = pretrain(settings, run, resume=True)["final"]
    assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-3)
    assert f"{newest}: is damaged" in (said := capsys.readouterr().err)
    assert f"going on from {oldest.name}" in said
    assert [file.name for file in Checkpoints(run).positions()] == [newest.name.replace("weights.h5", "json")] + [
        file.name.replace("weights.h5", "json") for file in (middle, oldest)
    ]  # the damaged ones were made anew
    assert middle.exists()
    for file in Checkpoints(run).positions():
        file.with_suffix(".weights.h5").write_bytes(b"not HDF5")
    with pytest.raises(InputError, match=r"epoch-00003-step-000000.weights.h5: is damaged .* and there is no other"):
        pretrain(settings, run, resume=True)


def test_float32_copy_has_the_same_weights(make_settings, small_data):
    settings = make_settings("training.precision=mixed_bfloat16")
    trainer, _ = trainer_and_batch(settings, small_data)
    copy = float32_encoder(settings, small_data, trainer.encoder)
    assert copy.compute_dtype == "float32"
    for one, other in zip(copy.get_weights(), trainer.encoder.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_collapsed_embeddings_are_announced_once(capsys):
    collapse = Collapse()
    for spread in (0.9, 0.009, 0.001):
        collapse.on_epoch_end(0, {"val_embedding_std": spread})
    assert capsys.readouterr().err.count("the embeddings have collapsed") == 1


@pytest.mark.slow
def test_steps_that_half_precision_skips_are_counted(make_settings, small_data):
    settings = make_settings("training.precision=mixed_float16", "training.epochs=1")
    trainer, batch = trainer_and_batch(settings, small_data)
    trainer.optimizer.dynamic_scale.assign(3e38)  # so large that the first gradients overflow
    losses(trainer, batch, 4)
    skipped = SkippedSteps(4)
    skipped.set_model(trainer)
    skipped.on_epoch_end(0, logs := {})
    assert 1 <= logs["skipped_steps"] <= 4
    assert logs["skipped_steps"] == 4 - int(trainer.optimizer.inner_optimizer.iterations)


def test_weights_that_are_not_finite_are_not_saved(make_settings, small_data):
    trainer = build_pretrainer(make_settings(), small_data)
    check_finite(trainer)
    weights = trainer.trainable_variables[3]
    weights.assign(weights * np.nan)
    with pytest.raises(TrainingError, match=r"the weights .* are not finite"):
        check_finite(trainer)


@pytest.mark.slow
def test_damaged_records_are_skipped_counted_and_reported_if_asked(make_settings, small_data, tmp_path, capsys):
    data = shutil.copytree(small_data.path, tmp_path / "data")
    shard = next(shard for shard in small_data.manifest.shards if shard.split == "train")
    (data / shard.path).write_bytes((data / shard.path).read_bytes()[:-3])
    settings = make_settings(f"data.path='{data}'", "data.on_corrupt=skip", "training.epochs=1", "encoder.signal=null")
    result = pretrain(settings, RunDirectory(tmp_path / "run"))
    assert result["skipped_records"] == {"train": 1}
    assert f"1 of {small_data.count('train')} train records are damaged and skipped" in capsys.readouterr().err
