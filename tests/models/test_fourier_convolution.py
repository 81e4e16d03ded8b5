"""The convolution through Fourier tiles is Keras's `Conv1D` up to rounding, wherever that one can be used."""

import importlib.util
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmmcl.models.fourier_convolution import Conv1D, convolution_layer
from tfmmcl.models.fourier_tiles import Fold, Tiling, best_tiling, bilinear
from tfmmcl.models.precision import dtype_policy
from tfmmcl.models.resnet import build_signal_encoder
from tfmmcl.settings import SignalEncoderSettings

SHAPES = {
    "samples": st.integers(1, 130),
    "channels": st.integers(1, 5),
    "filters": st.integers(1, 5),
    "kernel_size": st.integers(1, 16),
    "strides": st.integers(1, 3),
}


def pair(samples, channels, filters, kernel_size, strides, dtype="float32"):
    """Returns Keras's layer and ours with the same weights."""
    options = {"padding": "same", "use_bias": False, "dtype": dtype}
    layers = [kind(filters, kernel_size, strides, **options) for kind in (keras.layers.Conv1D, Conv1D)]
    for layer in layers:
        layer.build((None, samples, channels))
    layers[1].set_weights(layers[0].get_weights())
    return layers


def noise(*shape, dtype="float32", seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def outputs_and_gradients(layer, x, jit_compile=False):
    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            weighted = tf.reduce_sum(y * noise(*y.shape, dtype=y.dtype, seed=1))
        return [y, *tape.gradient(weighted, [x, layer.kernel.value])]

    return [tensor.numpy() for tensor in (tf.function(compute, jit_compile=True) if jit_compile else compute)(x)]


@settings(max_examples=25, deadline=None)
@given(**SHAPES)
def test_outputs_and_gradients_are_those_of_keras(**shape):
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        x = noise(3, shape["samples"], shape["channels"], dtype=dtype)
        expected, found = (outputs_and_gradients(layer, x) for layer in pair(**shape, dtype=dtype))
        for one, other in zip(expected, found):
            np.testing.assert_allclose(other, one, rtol=0, atol=tolerance * max(1, np.abs(one).max()))


@settings(max_examples=100, deadline=None)
@given(
    tiles=st.integers(1, 4), length=st.integers(1, 70), left=st.integers(0, 8), right=st.integers(0, 8), data=st.data()
)
def test_every_tiling_correlates(tiles, length, left, right, data):
    tiling = Tiling(tiles, length, left, right)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    kernel, own = rng.normal(size=left + 1 + right), rng.normal(size=length)
    before, after = (rng.normal(size=n) if tiles > 1 else np.zeros(n) for n in (left, right))
    whole = np.concatenate([before, own, after])
    analysis, of_kernel, synthesis = bilinear(tiling)
    assert len(analysis) == len(of_kernel) == synthesis.shape[1] == tiling.points
    found = synthesis @ ((analysis @ (whole if tiles > 1 else own)) * (of_kernel @ kernel))
    np.testing.assert_allclose(found, scipy.signal.correlate(whole, kernel, "valid"), atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(**SHAPES)
def test_tiles_cover_the_signal_and_reach_only_their_neighbours(samples, channels, filters, kernel_size, strides):
    fold = Fold(samples, kernel_size, strides)
    tiling = best_tiling(fold.outputs, fold.left, fold.right, channels * strides, filters)
    assert tiling.tiles * tiling.length >= fold.outputs
    assert tiling.tiles == 1 or tiling.length >= max(fold.left, fold.right)
    assert (fold.left + 1 + fold.right) * strides == sum(fold.zeros) + kernel_size


@pytest.mark.parametrize(("samples", "strides"), [(150, 1), (75, 2)])
def test_it_compiles_with_xla(samples, strides):
    expected, found = pair(samples, 4, 6, 15, strides)
    x = noise(2, samples, 4)
    for one, other in zip(outputs_and_gradients(expected, x), outputs_and_gradients(found, x, jit_compile=True)):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_rounds_little_more_than_keras_does(policy):
    reference, _ = pair(150, 16, 16, 15, 1)
    layers = pair(150, 16, 16, 15, 1, policy)
    for layer in layers:
        layer.set_weights(reference.get_weights())
    x = noise(4, 150, 16)
    expected = outputs_and_gradients(reference, x)
    keras_errors, errors = (
        [
            np.std(np.float32(one) - other) / np.std(other)
            for one, other in zip(outputs_and_gradients(layer, x), expected)
        ]
        for layer in layers
    )
    assert layers[1](x).dtype == policy.removeprefix("mixed_")
    assert layers[1].kernel.dtype == "float32"
    for one, other in zip(errors, keras_errors):
        assert one < 4 * other


def test_bias_and_activation():
    layers = [kind(3, 15, padding="same", activation="relu") for kind in (keras.layers.Conv1D, Conv1D)]
    x = noise(2, 40, 2)
    for layer in layers:
        layer.build(x.shape)
        layer.set_weights([noise(15, 2, 3), noise(3, seed=2)])
    np.testing.assert_allclose(layers[1](x), layers[0](x), rtol=0, atol=1e-4)


def test_what_it_cannot_do_is_refused():
    for options in ({"padding": "valid"}, {"groups": 2}, {"dilation_rate": 2}, {"data_format": "channels_first"}):
        with pytest.raises(ValueError, match=f"Expected {next(iter(options))}="):
            Conv1D(4, 3, **options)
    with pytest.raises(ValueError, match="known length"):
        Conv1D(4, 3).build((None, None, 2))


SMALL = SignalEncoderSettings(stem_filters=6, stage_filters=(6, 12), blocks_per_stage=1, units=5)


def signal_encoder(convolution, samples=201, seed=0, policy="float32"):
    keras.utils.set_random_seed(seed)
    with dtype_policy(policy):
        return build_signal_encoder(samples, 3, SMALL.model_copy(update={"convolution": convolution}))


def test_the_setting_picks_the_layer():
    for convolution, ours in (("fourier", 5), ("direct", 0)):
        assert sum(isinstance(layer, Conv1D) for layer in signal_encoder(convolution).layers) == ours


def test_the_whole_signal_encoder_is_the_same(tmp_path):
    direct, fourier = signal_encoder("direct", seed=1), signal_encoder("fourier", seed=1)
    x = noise(8, 201, 3)
    for training in (False, True):
        np.testing.assert_allclose(fourier(x, training=training), direct(x, training=training), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("writer", "reader"), [("direct", "fourier"), ("fourier", "direct")])
def test_a_weights_file_written_with_either_loads_in_the_other(tmp_path, writer, reader):
    one, other = signal_encoder(writer, seed=1), signal_encoder(reader, seed=2)
    one.save_weights(tmp_path / "all.weights.h5")
    other.load_weights(tmp_path / "all.weights.h5")
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_is_saved_and_loaded(tmp_path):
    encoder, x = signal_encoder("fourier"), noise(4, 201, 3)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    assert type(loaded.get_layer("stem_convolution")) is Conv1D
    np.testing.assert_array_equal(loaded(x), encoder(x))
    encoder.export(tmp_path / "saved_model", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "saved_model"))
    for batch in (1, 4):
        np.testing.assert_allclose(exported.serve(x[:batch]), encoder(x[:batch]), rtol=0, atol=1e-5)


def test_auto_takes_tiles_for_wide_long_layers_on_a_cpu_and_never_with_an_accelerator(monkeypatch):
    def classes():
        layers = [(2400, 4, 64, 15, 2), (600, 64, 64, 15, 1), (150, 256, 512, 15, 2), (150, 256, 512, 1, 2)]
        return [
            convolution_layer("auto", (None, samples, channels), filters, kernel, strides) is Conv1D
            for samples, channels, filters, kernel, strides in layers
        ]

    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    assert classes() == [False, True, True, False]
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
    assert not any(classes())


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_it_runs_on_another_backend():
    code = """
        import sys
        sys.modules["tensorflow"] = None
        import jax, keras, numpy as np
        from tfmmcl.models.fourier_convolution import Conv1D, convolution_layer
        convolution_layer("auto", (None, 150, 64), 64, 15, 1)
        layers = [kind(5, 15, 2, padding="same", use_bias=False) for kind in (keras.layers.Conv1D, Conv1D)]
        x = np.random.default_rng(0).normal(size=(3, 201, 4)).astype("float32")
        for layer in layers:
            layer.build(x.shape)
        layers[1].set_weights(layers[0].get_weights())
        found = [jax.grad(lambda x: (layer(x) ** 2).sum())(x) for layer in layers]
        print(abs(found[0] - found[1]).max())
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-4
