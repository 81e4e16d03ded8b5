"""Takes one plain gradient step on one device and on two, and prints how far apart they end. Arguments: settings."""

import sys

import keras
import numpy as np
import tensorflow as tf

from tfmmcl.config import load
from tfmmcl.pipeline.batches import Batches
from tfmmcl.records.manifest import DataSet
from tfmmcl.settings import PretrainSettings
from tfmmcl.training.distribution import expect_summed_gradients
from tfmmcl.training.pretrain import build_pretrainer

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
settings = load(sys.argv[1], PretrainSettings)
data = DataSet.open(settings.data.path)


def weights_after_a_step(strategy, clip_norm):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        trainer = build_pretrainer(settings, data)
        # Unlike Adam it shows the gradient's size.
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=clip_norm)
        expect_summed_gradients(optimizer)
        trainer.compile(optimizer=optimizer)
    before = [variable.numpy() for variable in trainer.variables]
    batches = strategy.distribute_datasets_from_function(lambda context: Batches(data, settings, context).training())
    trainer.fit(batches, epochs=1, steps_per_epoch=1, verbose=0, shuffle=False)
    return before, [variable.numpy() for variable in trainer.variables]


for clip_norm in (None, 0.5):
    before, one = weights_after_a_step(tf.distribute.get_strategy(), clip_norm)
    _, two = weights_after_a_step(tf.distribute.MirroredStrategy(), clip_norm)
    moved = max(np.abs(a - b).max() for a, b in zip(before, one))
    apart = max(np.abs(a - b).max() for a, b in zip(one, two))
    print(moved, apart)
