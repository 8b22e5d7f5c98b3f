"""Parameters, multiply-accumulates and CPU latency of networks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 3


@dataclass(frozen=True)
class Count:
    """Size of a network for one image: trainable numbers, and multiply-accumulates inside convolutions and linear layers.

    Norms, activations, pooling and attention's products are not counted, as is usual.
    """

    parameters: int
    macs: int


def count(network: nn.Module, size: int, channels: int = 3) -> Count:
    """Count for one square input of `size` pixels, on tensors without data: nothing is computed or changed."""
    total = 0

    def add(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            each = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
            total += output.numel() * each
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    handles = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    state = {name: tensor.to("meta") for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        torch.func.functional_call(network, state, (torch.empty(1, channels, size, size, device="meta"),))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return Count(sum(parameter.numel() for parameter in network.parameters()), total)


@torch.inference_mode()
def latency(network: nn.Module, size: int, *, rounds: int = 20, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median milliseconds of one forward pass of one image on this CPU in PyTorch, with as many threads as PyTorch is set to."""
    network.eval()
    pixels = torch.zeros(1, 3, size, size)
    times = []
    for turn in range(WARM_UP + rounds):
        start = clock()
        network(pixels)
        if turn >= WARM_UP:
            times.append(clock() - start)
    return 1e3 * statistics.median(times)
