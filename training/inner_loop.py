"""The inner loop in the span of the support features, differentiable to second order and batched over episodes.

With frozen features X every gradient of the head is a combination of the rows of X, so the loop runs on the outputs U = X W^T + b
alone (m x D numbers) and on the Gram matrix K = X X^T + 1; W itself is never touched (exact, not an approximation):

    G = dL/dU,   U <- U - a_t K G,   A <- A - a_t G,   W' = W + A^T X

Where a task is centred, sketches start without what the support's sketches have in common: U0 = X W^T + b + shift in the rows of
sketches, shift = -(k / (k + p)) mean_i(W s_i + b) over its k sketches, p as many pairs' worth of zeros (`centring`). The loss of
pairs cannot find that shift: the pulls and pushes of a support's own photos on it cancel.

Losses: METHODS C.5, softplus_b(mu + beta+ - beta-) averaged over triplets; sharpness 0 is the plain hinge.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DISTANCE_FLOOR = 1e-12  # under the square root, as in the native op


@dataclass(frozen=True)
class Support:
    """Support sets of E episodes with k pairs each: rows 0..k-1 are sketches, k..2k-1 their photos, the rest further negatives.

    features [E,m,C]; mask [E,k,m-k] is 1 where sketch i may have photo j as its negative (another photo than its own); shift
    [E,D] is what the outputs of every sketch of the task are moved by from the start, None where they are not.
    """

    features: Tensor
    mask: Tensor
    shift: Tensor | None = None

    @property
    def pairs(self) -> int:
        return int(self.mask.shape[1])


def centring(weight: Tensor, bias: Tensor, support: Support, prior: Tensor) -> Tensor:
    """The shift [E,D] by which sketches lose the mean output of the support's sketches, drawn to zero by `prior` [] p >= 0."""
    pairs = support.pairs
    common = (support.features[:, :pairs] @ weight.T + bias).mean(1)
    return -(pairs / (pairs + prior)) * common


def support_outputs(weight: Tensor, bias: Tensor, support: Support) -> Tensor:
    """U0 [E,m,D]: the support's outputs before the first step, sketches shifted."""
    outputs = support.features @ weight.T + bias
    if support.shift is None:
        return outputs
    pairs = support.pairs
    return torch.cat([outputs[:, :pairs] + support.shift.unsqueeze(1), outputs[:, pairs:]], dim=1)


def triplet_distances(outputs: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """beta+ [E,k] and the distances of every sketch to every photo row [E,k,m-k], on normalised outputs."""
    z = F.normalize(outputs, dim=-1)
    squared = ((z[:, :pairs, None] - z[:, None, pairs:]) ** 2).sum(-1)
    distances = squared.clamp_min(DISTANCE_FLOOR).sqrt()
    return distances[:, :, :pairs].diagonal(dim1=1, dim2=2), distances


def triplet_loss(outputs: Tensor, support: Support, margin: Tensor, sharpness: float) -> Tensor:
    """Mean triplet loss of every episode: outputs [E,m,D], margin [E] -> [E]."""
    positive, distances = triplet_distances(outputs, support.pairs)
    violation = margin[:, None, None] + positive.unsqueeze(-1) - distances
    loss = F.softplus(violation, beta=sharpness) if sharpness > 0 else violation.clamp_min(0.0)
    return (loss * support.mask).sum((1, 2)) / support.mask.sum((1, 2)).clamp_min(1.0)


def adapt(
    weight: Tensor,
    bias: Tensor,
    support: Support,
    rates: Tensor,
    margin: Tensor,
    *,
    sharpness: float = 10.0,
    side: str = "both",
    second_order: bool = True,
) -> Tensor:
    """Coefficients A [E,m,D] after T steps from the head `weight` [D,C], `bias` [D]; rows that do not move are zero.

    `rates` are step sizes [T], or [T,D] for one of each row of the head.
    """
    features = support.features
    outputs = support_outputs(weight, bias, support)
    gram = features @ features.transpose(1, 2) + 1.0
    moves = features.new_ones(features.shape[1], 1)
    if side == "sketch":
        moves[support.pairs :] = 0.0
    coefficients = torch.zeros_like(outputs)
    with torch.enable_grad():
        if not outputs.requires_grad:
            outputs = outputs.requires_grad_()
        for rate in rates:
            loss = triplet_loss(outputs, support, margin, sharpness).sum()
            (gradient,) = torch.autograd.grad(loss, outputs, create_graph=second_order)
            step = -rate * gradient * moves
            coefficients = coefficients + step
            outputs = outputs + moves * (gram @ step)
    return coefficients


def adapted_outputs(
    weight: Tensor, bias: Tensor, support: Support, coefficients: Tensor, features: Tensor, *, sketches: bool = True
) -> Tensor:
    """Outputs of the adapted head for features [E,n,C] -> [E,n,D]: f W^T + b + (f X^T + 1) A, with the shift for `sketches`."""
    learned = (features @ support.features.transpose(1, 2) + 1.0) @ coefficients
    outputs = features @ weight.T + bias + learned
    return outputs + support.shift.unsqueeze(1) if sketches and support.shift is not None else outputs
