"""Input of the paper's shape, made up."""

from __future__ import annotations

import numpy as np

from tfmmcl.cohorts.synthetic.cohort import SyntheticSettings
from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.pipeline.shapes import encoder_shape
from tfmmcl.settings import PretrainSettings

COHORT = SyntheticSettings(name="benchmark", patients=64)
"""Some 300 trajectories; the defaults have the paper's shape, 10 windows of 30 s at 240 Hz in 4 leads."""


def noise_views(spec: Spec, settings: PretrainSettings) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns two views `(B, …)` of standard normal noise, as the pipeline would give them to the encoder."""
    windows, structured, statics, samples, leads = encoder_shape(spec, settings)
    shapes = {"structured": (windows, structured), "statics": (statics,)}
    if settings.encoder.signal:
        shapes["signals"] = (windows, samples, leads)
    rng = np.random.default_rng(settings.seed)

    def view() -> dict[str, np.ndarray]:
        return {
            name: rng.standard_normal((settings.data.batch_size, *shape), np.float32) for name, shape in shapes.items()
        }

    return view(), view()
