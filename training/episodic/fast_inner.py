"""The inner loop of training/inner_loop.py on inner products alone, with gradients of second order written out.

The gradient of the triplet loss is a combination of the outputs themselves, dL/dU = R U with R [m,m] from the inner products
M = U U^T alone, so the loop can leave the embedding's width D behind as the span form leaves the features' width C:

    T_t = I + K C_t,   M_t = T_t M_0 T_t^T,   C_{t+1} = C_t - a_t R(M_t) T_t,   A = C_T U_0,   K = X X^T + 1

The same A as `training.inner_loop.adapt` gives, but for rounding: a step costs O(m^3), free of C and D, and neither the step nor
its derivative asks autograd for anything, which for matrices as small as these spends its time on calls, not on arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.inner_loop import DISTANCE_FLOOR, Support, support_outputs

NORM_FLOOR = 1e-24  # of squared norms, as that of torch's normalize


@dataclass(frozen=True)
class _Rules:
    """What every step needs beside the inner products. `shares` [E,k,m-k]: what each triplet counts in its episode's mean."""

    pairs: int
    shares: Tensor
    sharpness: float
    photos_move: bool


@dataclass(frozen=True)
class _Step:
    """A step's gradient R [E,m,m] and what its derivative needs again, by sketch and photo [E,k,m-k] unless said otherwise."""

    R: Tensor
    inverse: Tensor  # 1 / |u|, [E,m]
    scale: Tensor  # 1 / (|u_i| |u_j|)
    cosine: Tensor
    near: Tensor  # 1 / distance; 0 where the distance stands at its floor
    slope: Tensor  # of softplus, times shares
    curvature: Tensor  # of softplus, times shares
    pull: Tensor  # dL / d cosine


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
    """Coefficients A [E,m,D] of a head `weight` [D,C], `bias` [D] after len(rates) steps; rows that do not move are zero.

    Arguments and result are those of `training.inner_loop.adapt`. Not differentiable twice; `second_order` False treats the
    gradient of every step as a constant, so that only the rates learn from it.
    """
    features = support.features
    outputs = support_outputs(weight, bias, support)
    gram = features @ features.transpose(1, 2) + 1.0 if len(rates) > 1 else None  # the first step needs no inner products
    shares = support.mask / support.mask.sum((1, 2), keepdim=True).clamp_min(1.0)
    rules = _Rules(support.pairs, shares, sharpness, side == "both")
    if not second_order:
        with torch.no_grad():
            steps = _descend(outputs @ outputs.transpose(1, 2), gram, rates, margin, rules)[1]
            moves = torch.stack([_moving(step.R @ T if T is not None else step.R, rules) @ outputs for step, T in steps])
        return -(rates[:, None, None, None] * moves).sum(0)
    coefficients: Tensor = _Descent.apply(outputs, gram, rates, margin, rules)  # type: ignore[no-untyped-call]
    return coefficients


_Steps = list[tuple[_Step, "Tensor | None"]]  # with T_t, None for the identity


def _descend(products: Tensor, gram: Tensor | None, rates: Tensor, margin: Tensor, rules: _Rules) -> tuple[Tensor, _Steps]:
    """C_T [E,m,m] from M_0 and K [E,m,m], and every step taken."""
    steps: _Steps = []
    M, T = products, None
    coefficients = torch.zeros_like(products)
    for number, rate in enumerate(rates.tolist()):
        if number and gram is not None:
            T = _moving(gram @ coefficients, rules)
            T.diagonal(dim1=1, dim2=2).add_(1.0)
            M = T @ products @ T.transpose(1, 2)
        step = _gradient(M, margin, rules)
        steps.append((step, T))
        coefficients = coefficients.add(_moving(step.R if T is None else step.R @ T, rules), alpha=-rate)
    return coefficients, steps


def _moving(rows: Tensor, rules: _Rules) -> Tensor:
    """Rows [E,m,n] with those of photos zero where photos do not move."""
    if rules.photos_move:
        return rows
    moved = torch.zeros_like(rows)
    moved[:, : rules.pairs] = rows[:, : rules.pairs]
    return moved


def _gradient(M: Tensor, margin: Tensor, rules: _Rules) -> _Step:
    """R of inner products M [E,m,m]: the triplet loss's gradient for outputs U is R U."""
    k = rules.pairs
    inverse = M.diagonal(dim1=1, dim2=2).clamp_min(NORM_FLOOR).rsqrt()
    scale = inverse[:, :k, None] * inverse[:, None, k:]
    cosine = M[:, :k, k:] * scale
    squared = torch.rsub(cosine, 2.0, alpha=2.0)
    distance = squared.clamp_min(DISTANCE_FLOOR).sqrt_()
    near = (squared >= DISTANCE_FLOOR) / distance
    own = distance.diagonal(dim1=1, dim2=2) + margin.unsqueeze(1)
    violation = own.unsqueeze(2) - distance
    if rules.sharpness > 0:
        sigmoid = violation.mul_(rules.sharpness).sigmoid_()
        slope = sigmoid * rules.shares
        curvature = torch.addcmul(slope, slope, sigmoid, value=-1.0).mul_(rules.sharpness)
    else:
        slope = (violation > 0) * rules.shares
        curvature = torch.zeros_like(slope)
    pull = slope.clone()
    pull.diagonal(dim1=1, dim2=2).sub_(slope.sum(2))
    pull.mul_(near)
    R = torch.zeros_like(M)
    across = pull * scale
    R[:, :k, k:] = across
    R[:, k:, :k] = across.transpose(1, 2)
    radial = pull * cosine
    R.diagonal(dim1=1, dim2=2).copy_(torch.cat([radial.sum(2), radial.sum(1)], 1).mul_(inverse).mul_(inverse).neg_())
    return _Step(R, inverse, scale, cosine, near, slope, curvature, pull)


def _gradient_back(step: _Step, dR: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """dM [E,m,m] (of the inner products that R reads: sketch by photo, and the diagonal) and dmargin [E], from dR."""
    dacross = dR[:, :k, k:] + dR[:, k:, :k].transpose(1, 2)
    dradial = dR.diagonal(dim1=1, dim2=2) * step.R.diagonal(dim1=1, dim2=2)  # -dc_i c_i: what both factors of R_ii share
    dc = dR.diagonal(dim1=1, dim2=2) * step.inverse * step.inverse
    pairwise = (dc[:, :k, None] + dc[:, None, k:]).neg_()
    dpull = torch.addcmul(dacross * step.scale, pairwise, step.cosine)
    dcosine = pairwise * step.pull
    dpush = dpull * step.near  # to q = pull x distance
    ddistance = (dpull * step.pull).mul_(step.near).neg_()
    dslope = dpush - dpush.diagonal(dim1=1, dim2=2).unsqueeze(2)
    dviolation = dslope.mul_(step.curvature)
    by_sketch = dviolation.sum(2)
    ddistance.sub_(dviolation).diagonal(dim1=1, dim2=2).add_(by_sketch)
    dcosine.addcmul_(ddistance, step.near, value=-1.0)
    both = (dacross * step.pull).mul_(step.scale).addcmul_(dcosine, step.cosine)
    rescaled = torch.cat([both.sum(2), both.sum(1)], 1).add_(dradial, alpha=2.0)
    dM = torch.zeros_like(dR)
    dM[:, :k, k:] = dcosine * step.scale
    dM.diagonal(dim1=1, dim2=2).copy_(rescaled.mul_(step.inverse).mul_(step.inverse).mul_(-0.5))
    return dM, by_sketch.sum(1)


class _Descent(torch.autograd.Function):
    """(U_0 [E,m,D], K [E,m,m] or None for one step, rates [T], margin [E]) to A [E,m,D]."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, gram: Tensor | None, rates: Tensor, margin: Tensor, rules: _Rules) -> Tensor:
        products = outputs @ outputs.transpose(1, 2)
        coefficients, steps = _descend(products, gram, rates, margin, rules)
        ctx.save_for_backward(outputs, gram, rates)
        ctx.products, ctx.coefficients, ctx.steps, ctx.rules = products, coefficients, steps, rules
        return coefficients @ outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dA: Tensor) -> tuple[Tensor | None, ...]:
        outputs, gram, rates = ctx.saved_tensors
        products, rules, k = ctx.products, ctx.rules, ctx.rules.pairs
        dC = _moving(dA @ outputs.transpose(1, 2), rules)
        dgram = None if gram is None else torch.zeros_like(gram)
        drates: list[Tensor] = []
        dmargins: list[Tensor] = []
        dproducts: list[Tensor] = []
        ahead = ctx.coefficients
        for (step, T), rate in zip(reversed(ctx.steps), reversed(rates.tolist()), strict=True):
            taken = step.R if T is None else step.R @ T
            drates.append((dC * taken).sum().neg_())
            back = dC * -rate
            dM, dmargin = _gradient_back(step, back if T is None else back @ T.transpose(1, 2), k)
            dmargins.append(dmargin)
            if T is None or dgram is None:
                dproducts.append(dM)
                break
            ahead = ahead.add(_moving(taken, rules), alpha=rate)  # C_t, from C_{t+1}
            dproducts.append(T.transpose(1, 2) @ dM @ T)
            dT = _moving(torch.baddbmm(step.R @ back, dM + dM.transpose(1, 2), T @ products), rules)
            dgram.baddbmm_(dT, ahead.transpose(1, 2))
            dC = dC + _moving(gram @ dT, rules)
        summed = dproducts[0] if len(dproducts) == 1 else torch.stack(dproducts).sum(0)
        doutputs = ctx.coefficients.transpose(1, 2) @ dA
        doutputs.baddbmm_(summed + summed.transpose(1, 2), outputs)
        return doutputs, dgram, torch.stack(drates[::-1]), torch.stack(dmargins).sum(0), None
