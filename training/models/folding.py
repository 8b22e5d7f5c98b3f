"""Batch norms of a weight file, for networks built without them: folded into the convolutions, or kept behind them (norm.py)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.models.backbone import Shape

NORM_FIELDS = ("weight", "bias", "running_mean", "running_var")
KEPT_EPS = 1e-5  # of the batch norms that norm.add_norm puts in

Units = Mapping[str, tuple[str, str]]  # path of a convolution -> a file's names of it and of its batch norm


def unit_shapes(network: nn.Module, units: Units) -> dict[str, Shape]:
    """Array name -> shape of the convolutions (without bias) and batch norms of a file, in the order of `units`."""
    shapes: dict[str, Shape] = {}
    for path, (conv, norm) in units.items():
        weight = network.get_parameter(f"{path}.weight")
        shapes[f"{conv}.weight"] = tuple(weight.shape)
        shapes |= norm_shapes(norm, len(weight))
    return shapes


def norm_shapes(norm: str, channels: int) -> dict[str, Shape]:
    """The arrays of one batch norm."""
    return {**{f"{norm}.{field}": (channels,) for field in NORM_FIELDS}, f"{norm}.num_batches_tracked": ()}


def unit_state(arrays: Mapping[str, Tensor], units: Units, eps: float, *, keep: bool) -> dict[str, Tensor]:
    """Tensors by state key: norms of a file, whose epsilon is `eps`, folded into convolutions or, with `keep`, behind them."""
    state: dict[str, Tensor] = {}
    for path, (conv, norm) in units.items():
        weight = arrays[f"{conv}.weight"]
        scale, shift, mean, variance = (arrays[f"{norm}.{field}"].double() for field in NORM_FIELDS)
        if keep:
            state |= {f"{path}.weight": weight, f"{path}.bias": torch.zeros_like(mean)}
            state |= {f"{path}.norm.{field}": arrays[f"{norm}.{field}"] for field in NORM_FIELDS}
            state[f"{path}.norm.weight"] = scale * torch.sqrt((variance + KEPT_EPS) / (variance + eps))
        else:
            factor = scale / torch.sqrt(variance + eps)
            state[f"{path}.weight"] = weight.double() * factor.view(-1, 1, 1, 1)
            state[f"{path}.bias"] = shift - mean * factor
    return state
