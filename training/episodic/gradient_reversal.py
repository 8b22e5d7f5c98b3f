"""Gradient reversal: one loss that its own head learns and the features below unlearn (Ganin and Lempitsky, ICML 2015)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

Schedule = Literal["constant", "ramp"]
STEEPNESS = 10.0  # of the ramp, gamma in Ganin and Lempitsky


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return -ctx.strength * gradients[0], None


def reverse_gradient(features: Tensor, strength: float = 1.0) -> Tensor:
    """`features` [...] as they are; the gradient that comes back through them is multiplied by ``-strength``.

    Second derivatives go through it likewise. A strength of 0 lets no gradient through.
    """
    return _Reversal.apply(features, strength)  # type: ignore[no-untyped-call,no-any-return]


def strength_at(strength: float, schedule: Schedule, progress: float | None) -> float:
    """The strength at a moment of training.

    "constant": `strength` throughout. "ramp": ``strength * (2 / (1 + exp(-10 p)) - 1)`` from 0 to nearly `strength`, so that D
    knows something before the features listen to it (Ganin and Lempitsky 2015, section 4). `progress` p is the share of all steps
    that is done, 0 to 1; only the ramp needs it.

    Raises:
        ValueError: the ramp without a progress from 0 to 1.
    """
    if schedule == "constant":
        return strength
    if progress is None or not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress is {progress}, expected 0 to 1: the schedule 'ramp' has to know how much of training is done")
    return strength * math.tanh(0.5 * STEEPNESS * progress)  # the same as 2 / (1 + exp(-10 p)) - 1
