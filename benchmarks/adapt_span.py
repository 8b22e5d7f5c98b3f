"""The inner loop without PyTorch: full gradients in NumPy, and this project's, in the span of the support features."""

from __future__ import annotations

import numpy as np

from benchmarks.adapt_task import MARGIN, PAIRS, SHARPNESS, STEP_SIZE, Answer, Float32, Task, step_sizes
from fgsbir_edge.adapt import AdaptOptions, AdaptResult, adapt
from fgsbir_edge.inner import Support, native, solve


def full_gradient(task: Task, steps: int) -> Answer:
    """W' and b' by hand-written gradients of W and b."""
    x, shares = task.support, task.shares
    weight, bias = task.weight.copy(), task.bias.copy()
    diagonal = np.arange(PAIRS)
    for _ in range(steps):
        u = x @ weight.T
        u += bias
        norms = np.sqrt(np.einsum("nd,nd->n", u, u))[:, None]
        z = u / norms
        sketches, photos = z[:PAIRS], z[PAIRS:]
        distances = np.sqrt(np.maximum(2 - 2 * (sketches @ photos.T), np.float32(1e-12)))
        excess = np.float32(MARGIN) + distances[diagonal, diagonal][:, None] - distances
        slope = np.float32(0.5) * (1 + np.tanh(np.float32(0.5 * SHARPNESS) * excess)) * shares  # the sigmoid, without overflow
        pull = slope.copy()
        pull[diagonal, diagonal] = -slope.sum(axis=1)
        pull /= distances
        dz = np.concatenate([pull @ photos, pull.T @ sketches])
        dz -= z * np.einsum("nd,nd->n", z, dz)[:, None]
        dz *= np.float32(STEP_SIZE) / norms
        weight -= dz.T @ x
        bias -= dz.sum(axis=0)
    return weight, bias


def coefficients(task: Task, steps: int) -> Float32:
    """Aᵀ [m, D], W' not formed: outputs and inner products of the support, then the native loop."""
    outputs = task.support @ task.weight.T + task.bias
    gram = task.support @ task.support.T + np.float32(1)
    moves = np.ones(task.rows, np.uint8)
    found: Float32 = native().adapt(outputs, gram, task.triplets, moves, step_sizes(steps), MARGIN, SHARPNESS)[0]
    return found


def written_out(task: Task, found: Float32) -> Answer:
    """W' = W + A X and b' = b + A 1."""
    return task.weight + found.T @ task.support, task.bias + found.sum(axis=0)


def formed(task: Task, steps: int) -> Answer:
    """W' and b'."""
    return written_out(task, coefficients(task, steps))


class WholeCall:
    """The package's own calls, as an application makes them: features in, an adapter or its coefficients out."""

    def __init__(self, task: Task, steps: int) -> None:
        self._head = task.head(steps)
        rows = task.support
        self._sketches, self._photos, self._others = rows[:PAIRS], rows[PAIRS : 2 * PAIRS], rows[2 * PAIRS :]
        self._support = Support.build(self._head, self._sketches, self._photos, self._others)
        self._options = {guard: AdaptOptions(margin=MARGIN, guard=guard) for guard in (False, True)}

    def adapt(self, guard: bool) -> AdaptResult:
        """adapt(), with or without the guard."""
        options = self._options[guard]
        return adapt(self._head, self._sketches, self._photos, negatives_features=self._others, options=options)

    def cached(self) -> Float32:
        """The inner loop on a support whose outputs and inner products are kept: Aᵀ [m, D]."""
        solution = solve(self._head, self._support, range(PAIRS), self._options[False].recipe(self._head))
        if solution is None:
            raise RuntimeError("five pairs of five photos gave no triplet")
        return solution.coefficients
