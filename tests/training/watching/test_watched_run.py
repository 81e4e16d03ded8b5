"""What a run that is watched leaves in TensorBoard's folder, and what watching leaves alone."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_labelled import write_labelled
from tensorboard.plugins.hparams import plugin_data_pb2

from tfmmcl.errors import InputError
from tfmmcl.pipeline.batches import Batches
from tfmmcl.records.manifest import DataSet
from tfmmcl.training.pretrain import build_pretrainer, pretrain
from tfmmcl.training.run_directory import RunDirectory
from tfmmcl.training.watching.frozen import FrozenEncoder, watched_task

pytestmark = pytest.mark.xdist_group("watched run")
OTHERS = {"loss/running mean, by step", "_hparams_/session_start_info"}


@pytest.fixture(scope="module")
def watched(small_overrides, tmp_path_factory):
    """A run of two epochs on a data set whose test split cannot be read."""
    from tfmmcl.config import load
    from tfmmcl.settings import PretrainSettings

    folder = tmp_path_factory.mktemp("watched")
    write_labelled(folder / "data")
    for shard in (folder / "data").glob("test-*"):
        shard.unlink()
    (folder / "settings.yaml").write_text(f"data: {{path: '{folder / 'data'}'}}\n")
    overrides = [*small_overrides, "watching.trajectories=16", "watching.every=2", "watching.profile=[3,4]"]
    settings = load(folder / "settings.yaml", PretrainSettings, overrides)
    run = RunDirectory(folder / "run")
    pretrain(settings, run)
    return run, settings


@pytest.fixture(scope="module")
def events(watched):
    """Run → tag → its values, as (step, array, metadata)."""
    folder, found = watched[0].tensorboard, {}
    for file in folder.rglob("events*"):
        values = found.setdefault(str(file.parent.relative_to(folder)), {})
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            if event.graph_def:
                values["graph"] = event.graph_def
            for value in event.summary.value:
                row = (event.step, tf.make_ndarray(value.tensor), value.metadata)
                values.setdefault(value.tag, []).append(row)
    return found


def test_scalars_come_in_groups_each_with_its_sentence(events):
    expected = {
        "train": {
            *("loss/by epoch", "accuracy/contrastive", "optimizer/learning rate", "optimizer/gradient norm"),
            *("optimizer/parameter norm", "optimizer/update norm", "speed/trajectories per second"),
            *("speed/input wait, ms a step", "speed/input wait, share of the time", "speed/seconds an epoch"),
            *("representation/alignment", "representation/uniformity", "representation/embedding std"),
        },
        "validation": {
            *("loss/by epoch", "accuracy/contrastive", "representation/effective rank"),
            *("representation/alignment", "representation/uniformity", "representation/embedding std"),
            *("probe/linear, AUROC", "probe/k-NN, AUROC"),
        },
        "chance": {"loss/by epoch", "accuracy/contrastive", "probe/linear, AUROC", "probe/k-NN, AUROC"},
    }
    for run, tags in expected.items():
        assert tags == {tag for tag in events[run] if "/" in tag} - OTHERS, run
        for tag in tags:
            assert [step for step, _, _ in events[run][tag]] == [1, 2]
            assert all(metadata.summary_description for _, _, metadata in events[run][tag][:1])
            assert np.isfinite([value for _, value, _ in events[run][tag]]).all()


def test_chance_is_that_of_a_random_network(events):
    assert events["chance"]["loss/by epoch"][0][1] == pytest.approx(np.log(15))
    assert events["chance"]["accuracy/contrastive"][0][1] == pytest.approx(1 / 15)
    assert events["chance"]["probe/linear, AUROC"][0][1] == 0.5


def test_the_graph_the_settings_and_pictures_are_there(events):
    whole = events["."]
    assert whole["graph"]
    assert b"temperature: 0.1" in whole["settings"][0][1].item()
    ((step, trajectory, _),) = whole["pictures/a trajectory and its two views"]
    assert step == 0
    assert tf.io.decode_png(trajectory[2]).numpy().std() > 20
    assert [step for step, _, _ in whole["pictures/similarity of views, validation"]] == [2]  # watching.every


def test_hparams_are_the_settings_and_stand_beside_validation_figures(events):
    ((_, _, metadata),) = events["validation"]["_hparams_/session_start_info"]
    content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    found = content.session_start_info.hparams
    assert found["optimizer.learning_rate"].number_value == pytest.approx(1e-3)
    assert found["encoder.signal.stage_filters"].string_value == "[8, 16]"
    assert found["optimizer.clip_norm"].string_value == "none"
    assert not any(name.startswith(("data.path", "watching")) for name in found)


def test_the_profile_has_its_steps(watched):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (file,) = watched[0].tensorboard.glob("plugins/profile/*/*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    numbers = set()
    for plane in space.planes:
        names = {key: item.name for key, item in plane.stat_metadata.items()}
        events = {key for key, item in plane.event_metadata.items() if item.name == "train"}
        for event in (event for line in plane.lines for event in line.events if event.metadata_id in events):
            numbers |= {
                stat.int64_value or stat.uint64_value for stat in event.stats if names[stat.metadata_id] == "step_num"
            }
    assert numbers == {3, 4}


def test_history_has_a_finite_number_for_each_figure(watched):
    for line in watched[0].read_history():
        assert 1 <= line["val_effective_rank"] <= 16
        assert 0 <= line["val_linear_probe_auroc"] <= 1
        assert all(isinstance(value, int | float) and np.isfinite(value) for value in line.values())


def test_the_projector_has_a_row_of_metadata_for_each_embedding(watched):
    run, settings = watched
    data = DataSet.open(settings.data.path)
    embeddings = np.loadtxt(run.tensorboard / "embeddings.tsv", delimiter="\t")
    header, *rows = (line.split("\t") for line in (run.tensorboard / "metadata.tsv").read_text().splitlines())
    assert header == ["split", "trajectory", "patient", *(task.name for task in data.spec.tasks)]
    assert len(rows) == len(embeddings)
    assert {row[0] for row in rows} == {"train", "validation"}
    # As the finished encoder embeds them.
    encoder = keras.saving.load_model(run.encoder)
    found = {
        example["trajectory"].numpy().decode(): encoder({name: tensor[None] for name, tensor in view.items()})[0]
        for example, view in Batches(data, settings).plain("validation")
    }
    compared = [(row[1], embedding) for row, embedding in zip(rows, embeddings) if row[0] == "validation"]
    assert compared
    for name, embedding in compared:
        np.testing.assert_allclose(found[name], embedding, rtol=1e-3, atol=1e-4)
    assert "embeddings.tsv" in (run.tensorboard / "projector_config.pbtxt").read_text()


def test_only_trajectories_with_a_label_are_embedded_and_no_more_than_asked_for(make_settings, small_data):
    settings = make_settings()
    task = watched_task(small_data, "auto")
    assert task == next(task for task in small_data.spec.tasks if task.kind == "binary")
    frozen = FrozenEncoder(build_pretrainer(settings, small_data), Batches(small_data, settings), task, 5)
    for item in frozen.embed().values():
        assert len(item.embeddings) <= 5
        assert np.isfinite(item.labels[task.name]).all()


def test_similarities_are_those_of_the_heads_outputs(make_settings, small_data):
    settings = make_settings("data.batch_size=3")
    trainer = build_pretrainer(settings, small_data)
    found = FrozenEncoder(trainer, Batches(small_data, settings), None, 4).similarity()
    assert found.shape == (small_data.count("validation"),) * 2
    assert np.abs(found).max() < 1 + 1e-5
    # Validation has the same views, in another order.
    by_hand = []
    for views in Batches(small_data, settings).validation():
        first, second = (trainer.head(trainer.encoder(view)).numpy() for view in views)
        by_hand += list(np.sum(first * second, 1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1))
    np.testing.assert_allclose(np.sort(np.diag(found)), np.sort(by_hand), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_watching_changes_nothing_that_is_trained(make_settings, tmp_path):
    path = write_labelled(tmp_path / "data").path
    found = []
    for name, overrides in (("much", ()), ("little", ("watching.task=null", "watching.trajectories=2"))):
        run, exact = RunDirectory(tmp_path / name), ("training.deterministic=true", "training.epochs=1")
        pretrain(make_settings(f"data.path='{path}'", *exact, *overrides), run)
        found.append((run.read_history()[0], keras.saving.load_model(run.encoder).get_weights()))
    (much, weights), (little, others) = found
    assert much["val_loss"] == little["val_loss"]
    for one, other in zip(weights, others):
        np.testing.assert_array_equal(one, other)
    assert "val_linear_probe_auroc" in much
    assert not any("probe" in name or "knn" in name for name in little)


def test_a_task_or_a_step_that_is_not_there_is_named_before_anything_is_written(make_settings, small_data, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(InputError, match=r"watching.task: .* has no task 'elevated_mpa'; did you mean 'elevated_mpap'"):
        pretrain(make_settings("watching.task=elevated_mpa"), run)
    with pytest.raises(InputError, match=r"watching.profile: found a first step of 900, expected one of the run's \d+"):
        pretrain(make_settings("watching.profile=[900,901]"), run)
    with pytest.raises(InputError, match=r"watching.profile is 3,2, expected FROM,TO"):
        make_settings("watching.profile=[3,2]")
    assert not run.path.exists()


def test_a_data_set_without_tasks_is_not_probed(small_data):
    manifest = json.loads((small_data.path / "manifest.json").read_text())
    manifest["spec"]["tasks"] = []
    data = DataSet(small_data.path, type(small_data.manifest).model_validate(manifest))
    assert watched_task(data, "auto") is None
