"""The inner loop of meta-training as full-matrix code is usually written, and as this project writes it. Needs torch.

All of them keep the graph that the outer loss needs to differentiate through the inner loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.meta_task import MARGIN, Heads, MetaTask, Outer, triplets
from training import inner_loop
from training.episodic import fast_inner

LOOPED, LOOPED_FUNC = "full matrix, a task at a time, autograd.grad", "full matrix, a task at a time, torch.func"
VMAP, BATCHED = "full matrix, torch.func.vmap over tasks", "full matrix, one graph for all tasks"
SPAN, PRODUCTS = "ours, span form", "ours, inner products"
BASE = "no adaptation"
PEERS, OURS = (LOOPED, LOOPED_FUNC, VMAP, BATCHED), (SPAN, PRODUCTS)


@dataclass(frozen=True)
class Method:
    """``adapt`` gives adapted heads in a form of its own, ``outer`` the outer loss of all tasks, ``heads`` W' and b' to check."""

    adapt: Callable[[], object]
    outer: Callable[[], Tensor]
    heads: Callable[[], Heads]


class _Adapt(Protocol):
    def __call__(self, weight: Tensor, bias: Tensor, support: inner_loop.Support, rates: Tensor, margin: Tensor) -> Tensor: ...


def methods(task: MetaTask) -> dict[str, Method]:
    """Every way of solving a task, by name."""
    torch.set_num_threads(1)
    return {
        LOOPED: _looped(task, _by_autograd),
        LOOPED_FUNC: _looped(task, _by_func),
        VMAP: _vmapped(task),
        BATCHED: _batched(task),
        SPAN: _ours(task, inner_loop.adapt),
        PRODUCTS: _ours(task, fast_inner.adapt),
    }


def without(task: MetaTask) -> Callable[[], Tensor]:
    """The outer loss of the head as it is: what an outer step costs that adapts nothing."""
    weight, bias, _, queries, _, _ = task.leaves
    return lambda: triplets(functional.linear(queries, weight, bias), task.outer_shares, MARGIN).sum()


def step(task: MetaTask, outer: Callable[[], Tensor]) -> Outer:
    """Outer loss and its gradients for all that is learned."""
    loss = outer()
    return loss.detach(), torch.autograd.grad(loss, task.leaves, allow_unused=True, materialize_grads=True)


def _inner(task: MetaTask, rows: Tensor, weight: Tensor, bias: Tensor, margin: Tensor) -> Tensor:
    return triplets(functional.linear(rows, weight, bias), task.shares, margin)


def _by_autograd(task: MetaTask, rows: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """W' [D, C], b' [D] of one episode."""
    weight, bias, rates = task.leaves[0], task.leaves[1], task.leaves[4]
    for rate in rates:
        dw, db = torch.autograd.grad(_inner(task, rows, weight, bias, margin), (weight, bias), create_graph=True)
        weight, bias = weight - rate * dw, bias - rate * db
    return weight, bias


def _by_func(task: MetaTask, rows: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    weight, bias, rates = task.leaves[0], task.leaves[1], task.leaves[4]
    gradient = torch.func.grad(lambda w, b: _inner(task, rows, w, b, margin), argnums=(0, 1))
    for rate in rates.unbind():
        dw, db = gradient(weight, bias)
        weight, bias = weight - rate * dw, bias - rate * db
    return weight, bias


def _looped(task: MetaTask, one: Callable[[MetaTask, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Method:
    def adapt() -> list[tuple[Tensor, Tensor]]:
        return [one(task, rows, margin) for rows, margin in zip(task.leaves[2], task.leaves[5], strict=True)]

    def outer() -> Tensor:
        losses = [
            triplets(functional.linear(queries, *head), task.outer_shares, MARGIN)
            for queries, head in zip(task.leaves[3], adapt(), strict=True)
        ]
        return torch.stack(losses).sum()

    return Method(adapt, outer, lambda: _stacked(adapt()))


def _stacked(heads: list[tuple[Tensor, Tensor]]) -> Heads:
    return torch.stack([w for w, _ in heads]).detach(), torch.stack([b for _, b in heads]).detach()


def _vmapped(task: MetaTask) -> Method:
    def loss(rows: Tensor, queries: Tensor, margin: Tensor) -> Tensor:
        return triplets(functional.linear(queries, *_by_func(task, rows, margin)), task.outer_shares, MARGIN)

    _, _, support, queries, _, margins = task.leaves
    all_heads = torch.func.vmap(lambda rows, margin: _by_func(task, rows, margin))

    def heads() -> Heads:
        weight, bias = all_heads(support, margins)
        return weight.detach(), bias.detach()

    return Method(lambda: all_heads(support, margins), lambda: torch.func.vmap(loss)(support, queries, margins).sum(), heads)


def _batched(task: MetaTask) -> Method:
    """All tasks' heads as one tensor, so that one graph holds them: what vmap does, written by hand."""
    start, offset, support, queries, rates, margins = task.leaves

    def adapt() -> Heads:
        weight, bias = start.expand(task.episodes, -1, -1), offset.expand(task.episodes, 1, -1)
        for rate in rates:
            inner = triplets(support @ weight.mT + bias, task.shares, margins[:, None, None]).sum()
            dw, db = torch.autograd.grad(inner, (weight, bias), create_graph=True)
            weight, bias = weight - rate * dw, bias - rate * db
        return weight, bias

    def outer() -> Tensor:
        weight, bias = adapt()
        return triplets(queries @ weight.mT + bias, task.outer_shares, MARGIN).sum()

    def heads() -> Heads:
        weight, bias = adapt()
        return weight.detach(), bias.detach().squeeze(1)

    return Method(adapt, outer, heads)


def _ours(task: MetaTask, form: _Adapt) -> Method:
    weight, bias, rows, queries, rates, margins = task.leaves

    def adapt() -> Tensor:
        return form(weight, bias, task.support(rows), rates, margins)

    def outer() -> Tensor:
        outputs = inner_loop.adapted_outputs(weight, bias, task.support(rows), adapt(), queries)
        return triplets(outputs, task.outer_shares, MARGIN).sum()

    def heads() -> Heads:
        coefficients = adapt().detach()
        return weight.detach() + coefficients.mT @ rows.detach(), bias.detach() + coefficients.sum(1)

    return Method(adapt, outer, heads)
