"""A batch of meta-training episodes that all competitors solve, and its float64 answer. Needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.rounds import Verdict
from training.inner_loop import DISTANCE_FLOOR, Support

EPISODES, QUERIES = 8, 16  # tasks of an outer step, and query pairs of each (METHODS C.4)
MARGIN, SHARPNESS, STEP_SIZE = 0.3, 10.0, 0.2
BOUND = 1e-3  # largest error let through, relative to the largest entry of the same tensor
LEARNED = ("W", "b", "X", "queries", "rates", "margin")  # what the outer loss has gradients for

Heads = tuple[Tensor, Tensor]  # W' [E, D, C], b' [E, D]
Outer = tuple[Tensor, tuple[Tensor, ...]]  # outer loss, and its gradients for LEARNED (none where only the loss was asked for)


@dataclass(frozen=True)
class MetaTask:
    """Episodes of ``pairs`` support pairs and 16 query pairs each, a head from C features to D outputs, ``steps`` inner steps.

    Every row moves with the head; every sketch is told from every other photo of its episode, in the inner and the outer loss. A
    single pair gives no triplet, so one further photo stands beside it.
    """

    features: int  # C
    outputs: int  # D
    pairs: int  # k
    steps: int  # T
    episodes: int = EPISODES
    queries: int = QUERIES  # pairs

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"C={self.features} D={self.outputs} k={self.pairs}, {self.steps} step{'s' if self.steps > 1 else ''}"

    @property
    def further(self) -> int:
        """Photos in the support that no pair names."""
        return int(self.pairs == 1)

    @cached_property
    def leaves(self) -> tuple[Tensor, ...]:
        """LEARNED, float32: W [D, C], b [D], support rows [E, m, C], query rows [E, 2q, C], rates [T], margins [E]."""
        source = torch.Generator().manual_seed(0)
        weight = torch.randn(self.outputs, self.features, generator=source) / self.outputs**0.5
        bias = 0.01 * torch.randn(self.outputs, generator=source)
        support, queries = (_pairs(self.episodes, count, self.features, source) for count in (self.pairs, self.queries))
        further = functional.normalize(torch.randn(self.episodes, self.further, self.features, generator=source), dim=-1)
        margins = MARGIN + 0.2 * torch.rand(self.episodes, generator=source)
        given = weight, bias, torch.cat([support, further], 1), queries, torch.full((self.steps,), STEP_SIZE), margins
        return tuple(tensor.requires_grad_() for tensor in given)

    @cached_property
    def mask(self) -> Tensor:
        """[E, k, m - k]: 0 for a sketch's own photo."""
        return (self.shares > 0).float().repeat(self.episodes, 1, 1)

    @cached_property
    def shares(self) -> Tensor:
        """[k, m - k]: what each triplet counts in the inner mean."""
        return shares(self.pairs, self.further)

    @cached_property
    def outer_shares(self) -> Tensor:
        """[q, q], of the outer loss."""
        return shares(self.queries)

    def support(self, rows: Tensor) -> Support:
        """Support rows [E, m, C] as the project's inner loop takes them."""
        return Support(rows, self.mask)

    @cached_property
    def reference(self) -> tuple[Heads, Outer]:
        """Adapted heads and the outer step in float64: W itself stepped, by full gradients, a task at a time."""
        weight, bias, support, queries, rates, margins = (leaf.detach().double().requires_grad_() for leaf in self.leaves)
        heads, loss = [], torch.zeros((), dtype=torch.float64)
        for episode in range(self.episodes):
            w, b = weight, bias
            for rate in rates:
                inner = triplets(functional.linear(support[episode], w, b), self.shares.double(), margins[episode])
                dw, db = torch.autograd.grad(inner, (w, b), create_graph=True)
                w, b = w - rate * dw, b - rate * db
            heads.append((w.detach(), b.detach()))
            loss = loss + triplets(functional.linear(queries[episode], w, b), self.outer_shares.double(), MARGIN)
        leaves = weight, bias, support, queries, rates, margins
        gradients = torch.autograd.grad(loss, leaves)
        return (torch.stack([w for w, _ in heads]), torch.stack([b for _, b in heads])), (loss.detach(), gradients)

    def heads_verdict(self, heads: Heads) -> Verdict:
        """Whether adapted heads are near enough to be timed: by their change, the largest of which is 1."""
        weight, bias = self.reference[0]
        start = self.leaves[0].detach().double()
        scale = (weight - start).abs().max().clamp_min(1e-30)
        error = max(float((heads[0] - weight).abs().max() / scale), float((heads[1] - bias).abs().max() / scale))
        return _judged(error, "of the largest change")

    def outer_verdict(self, outer: Outer) -> Verdict:
        """The same of the outer loss and its gradients, each by its own largest entry."""
        loss, gradients = self.reference[1]
        errors = [float((outer[0] - loss).abs() / loss.abs())]
        errors += [_relative(got, wanted) for got, wanted in zip(outer[1], gradients, strict=bool(outer[1]))]
        return _judged(max(errors), "relative")


def _relative(got: Tensor, wanted: Tensor) -> float:
    scale = wanted.abs().max()
    return float((got - wanted).abs().max() / scale.clamp_min(1e-6))


def _judged(error: float, of: str) -> Verdict:
    return Verdict(error <= BOUND, f"off by {error:.1e} {of}")  # NaN is not within the bound either


def _pairs(episodes: int, count: int, width: int, source: torch.Generator) -> Tensor:
    """[E, 2 count, C] unit rows: sketches, then photos; a photo resembles its sketch."""
    sketches = torch.randn(episodes, count, width, generator=source)
    photos = 0.6 * sketches + 0.8 * torch.randn(episodes, count, width, generator=source)
    return functional.normalize(torch.cat([sketches, photos], 1), dim=-1)


def shares(pairs: int, further: int = 0) -> Tensor:
    """[n, n + further]: 1 over the number of triplets where sketch i has photo j as its negative, 0 for its own photo."""
    negatives = 1.0 - torch.eye(pairs, pairs + further)
    return negatives / negatives.sum()


def triplets(outputs: Tensor, weights: Tensor, margin: Tensor | float) -> Tensor:
    """Weighted softplus triplet loss [...] of outputs [..., m, D], n sketches first.

    weights [n, m - n]; margin is a number or [..., 1, 1]. Distances come from one matrix product, which is faster than
    differences of rows; the loss is that of training/inner_loop.py.
    """
    z, n = functional.normalize(outputs, dim=-1), len(weights)
    distances = (2 - 2 * (z[..., :n, :] @ z[..., n:, :].mT)).clamp_min(DISTANCE_FLOOR).sqrt()
    violation = margin + distances.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) - distances
    return (functional.softplus(violation, beta=SHARPNESS) * weights).sum((-1, -2))
