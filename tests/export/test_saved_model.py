import keras
import numpy as np
import pytest
import tensorflow as tf
from fresh import served
from small_labelled import write_labelled

from tfmmcl.config import validate
from tfmmcl.errors import InputError
from tfmmcl.export import export_run
from tfmmcl.finetune_settings import FinetuneSettings
from tfmmcl.pipeline.batches import Batches
from tfmmcl.records.verify import read_trajectories
from tfmmcl.training.finetune import finetune
from tfmmcl.training.pretrain import pretrain
from tfmmcl.training.run_directory import FinetuneDirectory, RunDirectory


def raw_inputs(data, signals=True):
    """Returns a split in physical units, straight from the records, NaNs and all."""
    trajectories = list(read_trajectories(data, "test"))
    names = ("signals", "structured", "statics") if signals else ("structured", "statics")
    return {name: np.stack([getattr(t, name) for t in trajectories]) for name in names}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        pytest.param(("encoder.signal=null",), marks=pytest.mark.slow),
        pytest.param(("training.precision=mixed_bfloat16", "training.epochs=1"), marks=pytest.mark.slow),
    ],
)
def test_a_fresh_process_without_tfmmcl_gives_the_pipelines_embedding(make_settings, small_data, tmp_path, overrides):
    settings = make_settings(*overrides)
    run = RunDirectory(tmp_path / "run")
    pretrain(settings, run)
    exported = export_run(run)
    assert exported == run.saved_model

    encoder = keras.saving.load_model(run.encoder)
    expected = np.concatenate(
        [encoder(view).numpy() for _, view in Batches(small_data, settings).plain("test").batch(4)]
    )
    inputs = raw_inputs(small_data, signals="encoder.signal=null" not in overrides)
    assert any(np.isnan(value).any() for value in inputs.values())
    found = served(exported, inputs, tmp_path)
    np.testing.assert_allclose(found["embedding"], expected, rtol=0, atol=1e-5)
    assert expected.std(axis=0).max() > 1e-3  # they are not all the same


def test_the_signature_names_its_inputs_and_takes_any_batch(make_settings, small_data, tmp_path):
    run = RunDirectory(tmp_path / "run")
    pretrain(make_settings("training.epochs=1"), run)
    serve = tf.saved_model.load(export_run(run, tmp_path / "elsewhere")).signatures["serving_default"]
    named = serve.structured_input_signature[1]
    assert {name: spec.shape.as_list() for name, spec in named.items()} == {
        "signals": [None, 3, 400, 2],
        "structured": [None, 3, 9],
        "statics": [None, 9],
    }
    inputs = raw_inputs(small_data)
    whole = serve(**{name: tf.constant(value) for name, value in inputs.items()})["embedding"]
    one = serve(**{name: tf.constant(value[3:4]) for name, value in inputs.items()})["embedding"]
    np.testing.assert_allclose(one[0], whole[3], atol=1e-5)
    # What no record could hold is missing here as it is there.
    odd = {name: value[:1].copy() for name, value in inputs.items()}
    odd["signals"][0, 0, :3, 0] = np.inf, -np.inf, 50.0
    gone = {**odd, "signals": np.where(np.abs(odd["signals"]) <= 32.767, odd["signals"], np.nan)}
    odd, gone = (serve(**{k: tf.constant(v) for k, v in x.items()})["embedding"] for x in (odd, gone))
    np.testing.assert_array_equal(odd, gone)
    nothing = {name: tf.fill(value[:1].shape, np.nan) for name, value in inputs.items()}
    assert np.isfinite(serve(**{k: tf.cast(v, tf.float32) for k, v in nothing.items()})["embedding"]).all()


def test_exporting_over_something_or_from_nothing_is_refused(make_settings, small_data, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(InputError, match=r"holds no run"):
        export_run(run)
    run.start(make_settings())
    with pytest.raises(InputError, match=r"encoder\.keras: no such file"):
        export_run(run, tmp_path / "out")
    run.encoder.write_bytes(b"")
    with pytest.raises(InputError, match="already exists"):
        export_run(run, tmp_path)
    with pytest.raises(InputError, match=r"encoder\.keras: cannot be loaded"):
        export_run(run, tmp_path / "out")
    run.write_settings(make_settings("data.fingerprint='0123456789abcdef'"))
    with pytest.raises(InputError, match=r"has the fingerprint [0-9a-f]{16}, expected 0123456789abcdef"):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("task", "output", "overrides"),
    [
        ("high", "probability", {"reading": {"part": "crops", "seconds": 1}}),
        pytest.param("high", "probability", {"encoder": {"signal": None}}, marks=pytest.mark.slow),
        pytest.param(
            "third", "probability", {"training": {"epochs": 1, "precision": "mixed_bfloat16"}}, marks=pytest.mark.slow
        ),
        pytest.param("pressure", "prediction", {"encoder": {"signal": None}}, marks=pytest.mark.slow),
    ],
)
def test_a_fresh_process_without_tfmmcl_gives_the_predictions_written(tmp_path, task, output, overrides):
    data = write_labelled(tmp_path / "data", number=24)
    small = {"stem_filters": 4, "stage_filters": [4], "blocks_per_stage": 1, "kernel_size": 5, "units": 4}
    tree = {"task": task, "data": {"path": str(data.path), "batch_size": 8}, "training": {"epochs": 1}} | overrides
    sizes = {"signal": small, "recurrent_layers": 1, "recurrent_units": 8, **overrides.get("encoder", {})}
    run = FinetuneDirectory(tmp_path / "run")
    finetune(validate(tree | {"encoder": sizes}, FinetuneSettings, "test"), run)
    exported = export_run(run)
    assert exported == run.saved_model

    rows = np.load(run.predictions)
    chosen = rows["split"] == "test"
    inputs = raw_inputs(data, signals=sizes["signal"] is not None)
    place = {item.name: index for index, item in enumerate(read_trajectories(data, "test"))}
    order = [place[name] for name in rows["trajectory"][chosen]]
    assert len(order) < len(place)
    found = served(exported, {name: value[order] for name, value in inputs.items()}, tmp_path)
    assert set(found) == {output, "embedding"}
    assert found["embedding"].shape == (len(order), 8)
    assert found[output].shape == ((len(order), 3) if task == "third" else (len(order),))
    np.testing.assert_allclose(found[output], rows["prediction"][chosen], rtol=1e-4, atol=1e-5)
    assert rows["prediction"][chosen].std(axis=0).max() > 1e-4  # they are not all the same
