import keras
import pytest

from tfmmcl.benchmarks.macs import macs_per_trajectory, model_macs, nt_xent_flops, training_flops
from tfmmcl.models.encoder import build_encoder
from tfmmcl.models.resnet import build_signal_encoder
from tfmmcl.settings import EncoderSettings, SignalEncoderSettings


def test_one_ten_second_signal_costs_1_98_gmac_forward():
    assert model_macs(build_signal_encoder(2400, 4, SignalEncoderSettings())) == pytest.approx(1.98e9, rel=0.003)


def test_recomputed_blocks_count_as_what_they_compute():
    plain, recomputed = (
        model_macs(build_signal_encoder(2400, 4, SignalEncoderSettings(recompute=recompute)))
        for recompute in (False, True)
    )
    assert recomputed == plain


def test_a_trajectory_of_the_paper_costs_237_gflop_to_train_on():
    encoder = build_encoder(10, 9, 9, 2400, 4, EncoderSettings())
    assert training_flops(encoder, 1) == pytest.approx(237e9, rel=0.01)
    assert training_flops(encoder, 4) == 4 * training_flops(encoder, 1)


def test_strided_convolutions_and_dense_layers_by_hand():
    model = keras.Sequential(
        [
            keras.Input((20, 3)),
            keras.layers.Conv1D(5, 7, 2, padding="same"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(11),
        ]
    )
    assert model_macs(model) == 10 * 7 * 3 * 5 + 5 * 11


def test_the_encoder_without_signals_by_hand():
    settings = EncoderSettings(
        signal=None, structured_units=(5, 6), statics_units=(7,), recurrent_layers=2, recurrent_units=8
    )
    windows, structured, statics = 3, 4, 2
    per_window = structured * 5 + 5 * 6
    recurrent = 3 * 8 * (6 + 7 + 8) + 3 * 8 * (8 + 8)
    encoder = build_encoder(windows, structured, statics, 0, 0, settings)
    assert macs_per_trajectory(encoder) == windows * (per_window + recurrent) + statics * 7


def test_the_losss_product_and_the_two_of_its_gradient():
    assert nt_xent_flops(3, 5) == 3 * (2 * 6 * 6 * 5)
