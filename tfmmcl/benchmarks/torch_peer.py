"""The peer: the same architecture, loss and optimizer as one would write them in plain PyTorch, eager or compiled."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tfmmcl.benchmarks.generated import noise_views
from tfmmcl.benchmarks.stepping import Work, matmul_size
from tfmmcl.cohorts.trajectory import Spec
from tfmmcl.pipeline.shapes import encoder_shape
from tfmmcl.settings import EncoderSettings, PretrainSettings, SignalEncoderSettings

BATCH_NORM_EPSILON = 1e-3


class Convolution(nn.Sequential):
    """Convolution with batch normalisation, from `(N, C, Z)`; pads as TensorFlow does, on the right where it is odd."""

    def __init__(self, channels: int, filters: int, kernel_size: int, strides: int, momentum: float) -> None:
        total = max(kernel_size - strides, 0)  # of lengths that the stride divides
        symmetric = total % 2 == 0
        padding = [] if symmetric else [nn.ConstantPad1d((total // 2, total - total // 2), 0.0)]
        inside = total // 2 if symmetric else 0
        super().__init__(
            *padding,
            nn.Conv1d(channels, filters, kernel_size, strides, inside, bias=False),
            nn.BatchNorm1d(filters, BATCH_NORM_EPSILON, 1 - momentum),
        )


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, channels: int, filters: int, kernel_size: int, strides: int, momentum: float) -> None:
        super().__init__()
        changes = strides > 1 or channels != filters
        self.shortcut = Convolution(channels, filters, 1, strides, momentum) if changes else nn.Identity()
        self.first = Convolution(channels, filters, kernel_size, strides, momentum)
        self.second = Convolution(filters, filters, kernel_size, 1, momentum)

    def forward(self, x: Tensor) -> Tensor:
        """From `(N, channels, Z)` to `(N, filters, Z / strides)`."""
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


def resnet(leads: int, settings: SignalEncoderSettings, momentum: float) -> nn.Sequential:
    """Returns the 1-D ResNet, from `(N, C, Z)` to `(N, units)`."""
    blocks, channels = [], settings.stem_filters
    for stage, filters in enumerate(settings.stage_filters):
        for index in range(settings.blocks_per_stage):
            strides = 2 if stage and not index else 1
            blocks.append(Block(channels, filters, settings.kernel_size, strides, momentum))
            channels = filters
    return nn.Sequential(
        Convolution(leads, settings.stem_filters, settings.kernel_size, 2, momentum),
        nn.ReLU(),
        nn.MaxPool1d(3, 2, ceil_mode=True),
        *blocks,
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(channels, settings.units),
    )


def mlp(features: int, units: tuple[int, ...]) -> nn.Sequential:
    """Returns dense layers with ReLU after each."""
    sizes = [features, *units]
    return nn.Sequential(*(layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())))


class Encoder(nn.Module):
    """The trajectory encoder."""

    def __init__(self, structured: int, statics: int, leads: int, settings: EncoderSettings) -> None:
        super().__init__()
        self.signals = resnet(leads, settings.signal, settings.batch_norm_momentum)
        self.structured = mlp(structured, settings.structured_units)
        self.statics = mlp(statics, settings.statics_units)
        features = settings.signal.units + settings.structured_units[-1] + settings.statics_units[-1]
        self.gru = nn.GRU(features, settings.recurrent_units, settings.recurrent_layers, batch_first=True)

    def forward(self, signals: Tensor, structured: Tensor, statics: Tensor) -> Tensor:
        """From `(B, T, C, Z)`, `(B, T, M)` and `(B, L)` to `(B, recurrent_units)`."""
        batch, windows = structured.shape[:2]
        parts = [
            self.signals(signals.flatten(0, 1)).unflatten(0, (batch, windows)),
            self.structured(structured),
            self.statics(statics)[:, None].expand(-1, windows, -1),
        ]
        return self.gru(torch.cat(parts, dim=-1))[0][:, -1]


def projection_head(features: int, units: tuple[int, ...], momentum: float) -> nn.Sequential:
    """Returns the projection head: dense, batch normalisation, ReLU at each layer."""
    layers: list[nn.Module] = []
    for inside, outside in zip([features, *units], units):
        normalisation = nn.BatchNorm1d(outside, BATCH_NORM_EPSILON, 1 - momentum)
        layers += [nn.Linear(inside, outside, bias=False), normalisation, nn.ReLU()]
    return nn.Sequential(*layers)


def nt_xent(projections: Tensor, temperature: float) -> Tensor:
    """Returns NT-Xent of two views' projections `(2B, D)`, one view after the other."""
    z = functional.normalize(projections.float(), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(float("-inf"))
    anchors = len(z)
    return functional.cross_entropy(logits, torch.arange(anchors, device=z.device).roll(anchors // 2))


class Pretraining(nn.Module):
    """Encoder, head and loss as one module."""

    def __init__(self, settings: PretrainSettings, spec: Spec) -> None:
        super().__init__()
        _, structured, statics, _, leads = encoder_shape(spec, settings)
        self.encoder = Encoder(structured, statics, leads, settings.encoder)
        self.head = projection_head(
            settings.encoder.recurrent_units,
            settings.objective.projection_units,
            settings.encoder.batch_norm_momentum,
        )
        self._temperature = settings.objective.temperature

    def forward(self, signals: Tensor, structured: Tensor, statics: Tensor) -> Tensor:
        """Returns the loss of two views, one after the other in the batch."""
        projections = self.head(self.encoder(signals, structured, statics))
        with torch.autocast(signals.device.type, enabled=False):
            return nt_xent(projections, self._temperature)


def training_step(settings: PretrainSettings, spec: Spec, compiled: bool) -> Work:
    """Returns the training step on a batch of noise, with autocast where the settings' precision is bfloat16."""
    device = _device()
    torch.manual_seed(settings.seed)
    model = Pretraining(settings, spec).to(device)
    first, second = noise_views(spec, settings)
    views = {name: torch.from_numpy(np.concatenate([first[name], second[name]])).to(device) for name in first}
    views["signals"] = views["signals"].transpose(2, 3).contiguous()
    optimizer = torch.optim.Adam(model.parameters(), settings.optimizer.learning_rate, eps=1e-7, fused=True)
    forward = torch.compile(model) if compiled else model
    half = settings.training.precision == "mixed_bfloat16"

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = forward(**views)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return _work(step, torch.bfloat16 if half else torch.float32, {"parameters": count_parameters(model.encoder)})


def loss_step(settings: PretrainSettings, compiled: bool) -> Work:
    """Returns NT-Xent with its gradient, on projections of noise."""
    device = _device()
    shape = (2 * settings.data.batch_size, settings.objective.projection_units[-1])
    projections = torch.randn(shape, device=device, requires_grad=True)
    function = torch.compile(nt_xent) if compiled else nt_xent

    def step() -> Tensor:
        projections.grad = None
        loss = function(projections, settings.objective.temperature)
        loss.backward()
        return loss.detach()

    return _work(step, torch.float32, {})


def count_parameters(model: nn.Module) -> int:
    """Returns how many numbers a model has, running averages included as Keras counts them."""
    running = (buffer for name, buffer in model.named_buffers() if not name.endswith("num_batches_tracked"))
    return sum(tensor.numel() for tensor in (*model.parameters(), *running))


def _device() -> torch.device:
    if not torch.cuda.is_available():
        torch.set_num_threads(os.cpu_count() or 1)
        return torch.device("cpu")
    # What TensorFlow and JAX do with float32 on a GPU.
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")


def _work(step: Any, dtype: torch.dtype, facts: dict[str, Any]) -> Work:
    device = _device()
    on_cpu = device.type == "cpu"
    size = matmul_size(on_cpu)
    matrix = torch.randn((size, size), device=device).to(dtype)
    return Work(
        step=step,
        matmul=lambda: (matrix @ matrix)[0, 0],
        matmul_size=size,
        device_peak_bytes=None if on_cpu else torch.cuda.max_memory_allocated,
        facts={
            "device": f"the CPU ({os.cpu_count()} cores)" if on_cpu else torch.cuda.get_device_name(),
            "versions": f"PyTorch {torch.__version__}",
            **facts,
        },
    )
