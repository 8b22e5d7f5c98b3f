"""What the losses share: precision, distances, who may be whose negative, and the choice among those who may."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

MININGS = ("random", "semi-hard", "batch-hard")

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Runs `function` outside autocast, with its bfloat16 and float16 tensors widened to float32.

    An exponential of a cosine over 0.07 has no digits left in bfloat16, and autocast would take the products back down to it
    whatever their inputs are. Wider tensors stay as they are, so that gradients can be checked in float64.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        values = [*args, *kwargs.values()]
        device = next((value.device.type for value in values if isinstance(value, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            wide = [_widen(value) for value in args]
            return function(*wide, **{name: _widen(value) for name, value in kwargs.items()})  # type: ignore[arg-type]

    return wrapper


def _widen(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (not squared): [N,D], [M,D] -> [N,M]; at distance 0 the gradient is 0, not infinite.

    Taken from differences, not from inner products, which near 0 would leave only half the digits.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def own_distances(a: Tensor, b: Tensor) -> Tensor:
    """Distance of each row to the same row of the other: [N,D], [N,D] -> [N]; gradient 0 at distance 0."""
    return torch.cdist(a[:, None], b[:, None], compute_mode="donot_use_mm_for_euclid_dist")[:, 0, 0]


def different(photo_index: Tensor) -> Tensor:
    """Which rows [B,B] are of different photos: the only ones that can be each other's negatives."""
    return photo_index[:, None] != photo_index[None, :]


def prefer_category(allowed: Tensor, category_index: Tensor) -> Tensor:
    """`allowed` [B,B] cut down to the row's own category; a row that this would leave with nothing keeps all it had."""
    narrow = allowed & (category_index[:, None] == category_index[None, :])
    return torch.where(narrow.any(dim=1, keepdim=True), narrow, allowed)


@torch.no_grad()
def mine(negative: Tensor, positive: Tensor, allowed: Tensor, mining: str) -> Tensor:
    """One negative for each anchor.

    Args:
        negative: distances [N,M] from anchors to candidates.
        positive: distance [N] of each anchor to its positive.
        allowed: bool [N,M], candidates of other photos. A row with none of them gets a meaningless index.
        mining: "random": any, each as likely, from PyTorch's global CPU generator, so that a step that seeds it repeats itself on
            any device; "batch-hard": the nearest (Hermans et al. 2017, eq. 5); "semi-hard": the nearest of those farther than
            the positive (Schroff et al. 2015, section 3.2), and where none is farther the farthest of all: FaceNet does not say
            what to do then, and the nearest would be batch-hard, which is what semi-hard is there to avoid.

    Returns:
        Columns [N], int64.
    """
    if mining == "random":
        return torch.rand(negative.shape).to(negative.device).masked_fill(~allowed, -1.0).argmax(dim=1)
    if mining == "batch-hard":
        return negative.masked_fill(~allowed, torch.inf).argmin(dim=1)
    if mining != "semi-hard":
        raise ValueError(f"mining is {mining!r}, expected one of {', '.join(MININGS)}")
    farther = allowed & (negative > positive[:, None])
    nearest = negative.masked_fill(~farther, torch.inf).argmin(dim=1)
    return torch.where(farther.any(dim=1), nearest, negative.masked_fill(~allowed, -torch.inf).argmax(dim=1))


def mean_of(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid ones (same shape, bool); 0 with gradient 0 where there are none."""
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)
