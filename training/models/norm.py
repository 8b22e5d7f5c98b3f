"""Fresh normalisation for weights whose batch norm was folded into the convolutions.

Folded weights infer fast and cannot be trained from far: nothing holds the scale of the maps. A fresh batch norm behind every
convolution gives that back. `calibrate` sets its running statistics to those of real batches and its scale and shift to undo
them, so that the network computes what it did before, in evaluation exactly and in training as nearly as a batch resembles them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from training.models.depthwise import convolve


class NormConv2d(nn.Conv2d):
    """A convolution and its batch norm under the convolution's own name: `weight` and `bias` keep their keys in a checkpoint."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            _pair(conv.kernel_size),
            _pair(conv.stride),
            _pair(conv.padding),
            _pair(conv.dilation),
            conv.groups,
            conv.bias is not None,
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.norm = nn.BatchNorm2d(conv.out_channels)
        nn.init.constant_(self.norm.weight, math.sqrt(1.0 + self.norm.eps))  # with running variance 1: the identity

    def forward(self, x: Tensor) -> Tensor:  # [B,in,H,W] -> [B,out,H',W']
        normed: Tensor = self.norm(convolve(self, x))
        return normed


def _pair(value: str | tuple[int, ...]) -> tuple[int, int]:
    if isinstance(value, str) or len(value) != 2:
        raise ValueError(f"convolution geometry {value!r} is not two integers")
    return value[0], value[1]


def add_norm(network: nn.Module) -> None:
    """Replace every plain convolution below `network` by a NormConv2d that holds the same weights."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and not isinstance(child, NormConv2d):
                setattr(module, name, NormConv2d(child))


class _Moments:
    """Sums over batches, positions and images of what enters a batch norm, one a channel, in float64."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].detach().double().transpose(0, 1).flatten(1)
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(1)
        self.squares = self.squares + (rows * rows).sum(1)

    def result(self) -> tuple[Tensor, Tensor]:
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean * mean).clamp_min(0.0)


@torch.no_grad()
def calibrate(network: nn.Module, batches: Iterable[Tensor], run: Callable[[Tensor], object] | None = None) -> int:
    """Give every fresh norm below `network` the statistics of `batches` ([B,3,S,S] each) without changing what it computes.

    `run` sends a batch through (default: `network` itself). Returns the number of layers set.
    Raises ValueError when there are no batches or no fresh norm.
    """
    layers = [module.norm for module in network.modules() if isinstance(module, NormConv2d)]
    if not layers:
        raise ValueError('nothing to calibrate: the network has no fresh norm; build it with norm "fresh"')
    moments = [_Moments() for _ in layers]
    handles = [layer.register_forward_pre_hook(item.add) for layer, item in zip(layers, moments, strict=True)]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        for batch in batches:
            (run or network)(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    if not moments[0].count:
        raise ValueError("nothing to calibrate with: no batches")
    for layer, item in zip(layers, moments, strict=True):
        _restate(layer, *item.result())
    return len(layers)


def _restate(layer: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """New running statistics; scale and shift changed so that evaluation gives what it gave before."""
    old_mean, old_variance = layer.running_mean, layer.running_var
    if old_mean is None or old_variance is None:
        raise ValueError("a fresh norm keeps running statistics")
    ratio = layer.weight.double() / torch.sqrt(old_variance.double() + layer.eps)
    layer.bias.copy_(layer.bias.double() + ratio * (mean - old_mean.double()))
    layer.weight.copy_(ratio * torch.sqrt(variance + layer.eps))
    old_mean.copy_(mean)
    old_variance.copy_(variance)
