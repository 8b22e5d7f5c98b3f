"""The inner loop in PyTorch, in the forms in which it is usually written and in the fastest ones found. Needs torch.

Distances of sketches to photos come from torch.cdist or one matrix product, which is faster than gathering triplets wherever
there are many; the loss is the same.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.adapt_task import (
    EAGER,
    FUNCTIONAL,
    GATHERED,
    LEAN,
    MARGIN,
    PAIRS,
    SHARPNESS,
    STEP_SIZE,
    UNROLLED,
    Answer,
    Float32,
    Task,
    step_sizes,
)

Method = Callable[[int], Answer]  # number of steps -> (W', b')


def methods(task: Task) -> dict[str, Method]:
    """Ways of solving a task that are not compiled, by name."""
    torch.set_num_threads(1)
    x, w, b, shares = (torch.from_numpy(array) for array in (task.support, task.weight, task.bias, task.shares))
    anchor, positive, negative = torch.from_numpy(task.triplets.astype(np.int64)).T.contiguous()

    def by_cdist(weight: Tensor, bias: Tensor) -> Tensor:
        z = functional.normalize(functional.linear(x, weight, bias), dim=1)
        return _loss(torch.cdist(z[:PAIRS], z[PAIRS:]), shares)

    def by_gathering(weight: Tensor, bias: Tensor) -> Tensor:
        z = functional.normalize(functional.linear(x, weight, bias), dim=1)
        a = z[anchor]
        near, far = functional.pairwise_distance(a, z[positive]), functional.pairwise_distance(a, z[negative])
        return functional.softplus(MARGIN + near - far, beta=SHARPNESS).mean()

    return {
        EAGER: _eager(w, b, by_cdist),
        GATHERED: _eager(w, b, by_gathering),
        LEAN: _lean(w, b, by_cdist),
        FUNCTIONAL: _functional(x, w, b, shares),
    }


def compiled(task: Task) -> Method:
    """The unrolled steps compiled for one task, called once. Raises what torch.compile raises, as where there is no compiler."""
    torch.set_num_threads(1)
    torch._dynamo.reset()  # graphs of other tasks count towards a limit, beyond which nothing is compiled
    x, w, b, shares = (torch.from_numpy(array) for array in (task.support, task.weight, task.bias, task.shares))
    unrolled, sizes = torch.compile(_unrolled, fullgraph=True, dynamic=False), torch.from_numpy(step_sizes(UNROLLED))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty, _environment("TORCHINDUCTOR_CACHE_DIR", empty):
        unrolled(w, b, x, shares, sizes)  # in an empty cache, so that the time of the first call is that of a first call

    def run(steps: int) -> Answer:
        weight, bias = w, b
        for _ in range(steps // UNROLLED):
            weight, bias = unrolled(weight, bias, x, shares, sizes)
        return weight.numpy(), bias.numpy()

    return run


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of PyTorch about itself
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def batched(tasks: list[Task], steps: int) -> Callable[[], tuple[Float32, Float32]]:
    """All ``tasks`` (of one shape, one head) at once: W' [B, D, C] and b' [B, D]."""
    torch.set_num_threads(1)
    first = tasks[0]
    x = torch.from_numpy(np.stack([task.support for task in tasks]))
    w, b, shares = (torch.from_numpy(array) for array in (first.weight, first.bias, first.shares))
    sizes = torch.from_numpy(step_sizes(steps))
    solve = torch.func.vmap(_unrolled, in_dims=(None, None, 0, None, None))

    def run() -> tuple[Float32, Float32]:
        weight, bias = solve(w, b, x, shares, sizes)
        return weight.numpy(), bias.numpy()

    return run


def _loss(distances: Tensor, shares: Tensor) -> Tensor:
    """From distances [k, m - k] of every sketch to every photo; a sketch's own photo stands on the diagonal."""
    excess = MARGIN + distances.diagonal()[:, None] - distances
    return (functional.softplus(excess, beta=SHARPNESS) * shares).sum()


def _by_product(weight: Tensor, bias: Tensor, x: Tensor, shares: Tensor) -> Tensor:
    z = functional.normalize(functional.linear(x, weight, bias), dim=1)
    return _loss((2 - 2 * (z[:PAIRS] @ z[PAIRS:].T)).clamp_min(1e-12).sqrt(), shares)


def _unrolled(weight: Tensor, bias: Tensor, x: Tensor, shares: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    gradient = torch.func.grad(_by_product, argnums=(0, 1))
    for step in range(sizes.shape[0]):
        dw, db = gradient(weight, bias, x, shares)
        weight, bias = weight - sizes[step] * dw, bias - sizes[step] * db
    return weight, bias


def _eager(w: Tensor, b: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Method:
    layer = nn.Linear(w.shape[1], w.shape[0])

    def run(steps: int) -> Answer:
        with torch.no_grad():
            layer.weight.copy_(w)
            layer.bias.copy_(b)
        optimiser = torch.optim.SGD(layer.parameters(), lr=STEP_SIZE)
        for _ in range(steps):
            optimiser.zero_grad()
            loss(layer.weight, layer.bias).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return layer.weight.detach().numpy(), layer.bias.detach().numpy()

    return run


def _lean(w: Tensor, b: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Method:
    def run(steps: int) -> Answer:
        weight, bias = w.clone().requires_grad_(), b.clone().requires_grad_()
        for _ in range(steps):
            dw, db = torch.autograd.grad(loss(weight, bias), (weight, bias))
            with torch.no_grad():
                weight.sub_(dw, alpha=STEP_SIZE)
                bias.sub_(db, alpha=STEP_SIZE)
        return weight.detach().numpy(), bias.detach().numpy()

    return run


def _functional(x: Tensor, w: Tensor, b: Tensor, shares: Tensor) -> Method:
    def run(steps: int) -> Answer:
        weight, bias = _unrolled(w, b, x, shares, torch.full((steps,), STEP_SIZE))
        return weight.numpy(), bias.numpy()

    return run
