"""Learning rates and parameter groups."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training.models.encoder import Encoder
from training.network import PairNetwork


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW (Loshchilov and Hutter, ICLR 2019) with linear warm-up and half a cosine.

    rate           of the new layers: projection, head, attention, the loss's own parameters
    backbone_rate  the backbone's rate as a share of it
    weight_decay   of matrices and kernels; vectors and scalars have none
    warmup         steps
    final          the last step's rate as a share of the highest
    clip           largest norm of the gradient
    average        decay of the moving average of weights that is validated and kept; 0 keeps the weights themselves
    frozen         modules of the backbone, from the input on, that do not train
    projection     whether the projection trains; a fixed one holds the pooled features still while the backbone learns
    """

    rate: float = 4e-4
    backbone_rate: float = 0.25
    weight_decay: float = 0.02
    warmup: int = 100
    final: float = 0.02
    clip: float = 1.0
    average: float = 0.998
    frozen: int = 0
    projection: bool = True

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.backbone_rate < 0 or self.weight_decay < 0 or self.clip <= 0:
            raise ValueError("rate and clip must be positive, backbone_rate and weight_decay not negative")
        if not 0 <= self.average < 1 or not 0 <= self.final <= 1 or self.warmup < 0 or self.frozen < 0:
            raise ValueError("average must lie in [0,1), final in [0,1]; warmup and frozen must not be negative")

    def factor(self, step: int, steps: int) -> float:
        """What `rate` is multiplied by at `step` (from 0) of `steps`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(steps - self.warmup, 1)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def freeze(encoder: Encoder, config: OptimiserConfig) -> None:
    """Stop what is not to train. Raises ValueError where the backbone has fewer modules than are to be frozen."""
    steps = encoder.backbone.steps
    if config.frozen >= len(steps):
        raise ValueError(
            f"optimiser.frozen is {config.frozen}, the backbone has {len(steps)} modules: {', '.join(path for path, _ in steps)}"
        )
    for path, _ in steps[: config.frozen]:
        encoder.backbone.get_submodule(path).requires_grad_(False)
    encoder.projection.requires_grad_(config.projection)


def build_optimizer(network: PairNetwork, config: OptimiserConfig) -> torch.optim.AdamW:
    """Parameter groups with their base rates under "base"."""
    return grouped_optimizer(network, network.encoder.backbone, config)


def grouped_optimizer(network: nn.Module, backbone_of: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW over what of a network trains: its backbone at a rate of its own, vectors without decay."""
    backbone = {id(parameter) for parameter in backbone_of.parameters()}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = []
    for old in (True, False):
        for decayed in (True, False):
            chosen = [item for item in trained if (id(item) in backbone) == old and (item.dim() > 1) == decayed]
            base = config.rate * (config.backbone_rate if old else 1.0)
            if chosen:
                groups.append({"params": chosen, "base": base, "lr": base, "weight_decay": config.weight_decay * decayed})
    return torch.optim.AdamW(groups, lr=config.rate)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """The rates of a step."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * factor


class MovingAverage:
    """An exponential moving average of tensors by name (Polyak averaging), faster at first: min(decay, (1+t)/(10+t))."""

    def __init__(self, tensors: Iterable[tuple[str, torch.Tensor]], decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors}

    @torch.no_grad()
    def update(self, tensors: Iterable[tuple[str, torch.Tensor]], step: int) -> None:
        """Take in the weights after `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        for name, tensor in tensors:
            kept = self.tensors[name]
            if kept.is_floating_point():
                kept.lerp_(tensor.detach(), 1.0 - decay)
            else:
                kept.copy_(tensor)

    def copy_to(self, module: nn.Module) -> None:
        """Load the average into a module with the same names."""
        module.load_state_dict(self.tensors, strict=False)
