import importlib.util
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from tfmmcl.models.encoder import build_encoder, portable
from tfmmcl.models.heads import build_projection_head
from tfmmcl.models.precision import dtype_policy
from tfmmcl.models.resnet import build_signal_encoder
from tfmmcl.settings import EncoderSettings, SignalEncoderSettings

SMALL = EncoderSettings(
    signal=SignalEncoderSettings(stem_filters=4, stage_filters=(4, 8), blocks_per_stage=1, kernel_size=7, units=6),
    structured_units=(5, 5),
    statics_units=(3,),
    recurrent_layers=2,
    recurrent_units=7,
)


def small_encoder(settings=SMALL):
    return build_encoder(windows=3, structured=4, statics=2, samples=64, leads=2, settings=settings)


def inputs(batch=5, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"signals": (batch, 3, 64, 2), "structured": (batch, 3, 4), "statics": (batch, 2)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_the_papers_encoder_has_22_153_600_parameters():
    encoder = build_encoder(10, 9, 9, 2400, 4, EncoderSettings())
    assert encoder.count_params() == 22_153_600
    assert encoder.get_layer("signal_encoder").count_params() == 18_569_856
    assert encoder.get_layer("structured_encoder").count_params() == 17_792
    assert encoder.get_layer("statics_encoder").count_params() == 17_792
    assert sum(encoder.get_layer(f"gru{i}").count_params() for i in range(1, 5)) == 3_548_160
    assert encoder.output.shape == (None, 384)


def test_the_convolution_count_is_resnet_18s():
    encoder = build_signal_encoder(2400, 4, SignalEncoderSettings())
    convolutions = [layer for layer in encoder.layers if isinstance(layer, keras.layers.Conv1D)]
    assert len(convolutions) == 20  # 17 spatial ones and three shortcuts
    assert sorted({layer.kernel_size[0] for layer in convolutions}) == [1, 15]
    assert encoder.get_layer("stage4_block2_relu").output.shape == (None, 75, 512)


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_any_batch_size(batch):
    assert small_encoder()(inputs(batch)).shape == (batch, 7)


def test_no_ecg_drops_the_signal_encoder_and_keeps_the_rest():
    encoder = small_encoder(SMALL.model_copy(update={"signal": None}))
    assert set(encoder.input) == {"structured", "statics"}
    given = inputs()
    del given["signals"]
    assert encoder(given).shape == (5, 7)
    whole = small_encoder()
    assert encoder.get_layer("structured_encoder").count_params() == (
        whole.get_layer("structured_encoder").count_params()
    )


def test_time_is_folded_without_mixing_windows():
    encoder = small_encoder()
    signal_encoder = encoder.get_layer("signal_encoder")
    given = inputs()
    at_windows = keras.Model(encoder.input, encoder.get_layer("windows").output)(given)
    for window in range(3):
        alone = signal_encoder(given["signals"][:, window])
        np.testing.assert_allclose(at_windows[:, window, :6], alone, rtol=1e-5, atol=1e-6)
        static = encoder.get_layer("statics_encoder")(given["statics"])
        np.testing.assert_allclose(at_windows[:, window, 11:], static, rtol=1e-5, atol=1e-6)


def test_the_embedding_depends_on_every_input_and_on_the_order_of_windows():
    encoder, given = small_encoder(), inputs()
    before = encoder(given)
    for name in given:
        assert not np.allclose(encoder({**given, name: given[name] + 1.0}), before, atol=1e-5)
    backwards = {**given, "signals": given["signals"][:, ::-1]}
    assert not np.allclose(encoder(backwards), before, atol=1e-5)


def test_trajectories_of_a_batch_do_not_touch_one_another_at_inference():
    encoder, given = small_encoder(), inputs()
    alone = encoder({name: value[2:3] for name, value in given.items()})
    np.testing.assert_allclose(encoder(given)[2:3], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_float32_weights_and_restores_the_policy(policy):
    with dtype_policy(policy):
        encoder = small_encoder()
    assert keras.config.dtype_policy().name == "float32"
    assert encoder(inputs()).dtype.name == policy.removeprefix("mixed_")
    assert {variable.dtype for variable in encoder.trainable_variables} == {"float32"}


def test_the_projection_head_normalises_and_rectifies_each_layer():
    head = build_projection_head(384, (128, 128))
    kinds = [type(layer).__name__ for layer in head.layers[1:]]
    assert kinds == ["Dense", "BatchNormalization", "ReLU"] * 2
    assert head.output.shape == (None, 128)


def run_python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_saved_encoder_loads_without_tfmmcl(tmp_path):
    fourier = SMALL.model_copy(update={"signal": SMALL.signal.model_copy(update={"convolution": "fourier"})})
    encoder, given = small_encoder(portable(fourier)), inputs()
    encoder.save(tmp_path / "encoder.keras")
    np.savez(tmp_path / "inputs.npz", **given)
    done = run_python(
        """
        import sys, keras, numpy as np
        sys.modules["tfmmcl"] = None  # importing it fails
        given = dict(np.load(sys.argv[1] + "/inputs.npz"))
        np.save(sys.argv[1] + "/out.npy", keras.saving.load_model(sys.argv[1] + "/encoder.keras")(given))
        """,
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), encoder(given), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_models_and_objectives_run_on_another_backend_without_tensorflow():
    done = run_python(
        """
        import sys
        sys.modules["tensorflow"] = None
        import numpy as np
        from tfmmcl.models.encoder import build_encoder
        from tfmmcl.objectives.objective import make_objective
        from tfmmcl.settings import EncoderSettings, NTXentSettings, SignalEncoderSettings
        signal = SignalEncoderSettings(stem_filters=4, stage_filters=(4, 8), blocks_per_stage=1)
        encoder = build_encoder(3, 4, 2, 64, 2, EncoderSettings(signal=signal, recurrent_units=8))
        objective = make_objective(NTXentSettings())
        head = objective.build_head(8, 0.9)
        rng = np.random.default_rng(0)
        shapes = {"signals": (6, 3, 64, 2), "structured": (6, 3, 4), "statics": (6, 2)}
        views = [{k: rng.normal(size=s).astype("float32") for k, s in shapes.items()} for _ in range(2)]
        embeddings = [encoder(view) for view in views]
        print(float(objective(embeddings, [head(e) for e in embeddings])["loss"]))
        """,
        KERAS_BACKEND="jax",
    )
    assert done.returncode == 0, done.stderr
    assert np.isfinite(float(done.stdout))
