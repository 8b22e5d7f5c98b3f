"""The inner loop without PyTorch: full gradients in NumPy, and this project's, in the span of the support features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.adapt_task import MARGIN, PAIRS, SHARPNESS, STEP_SIZE, Answer, Float32, Task, step_sizes
from fgsbir_edge.adapt import AdaptOptions, AdaptResult, adapt
from fgsbir_edge.adapt_many import Person, adapt_many
from fgsbir_edge.inner import Support, native, solve

_ROWS, _OFFSETS, _COEFFICIENTS = 0, 2, 3  # places in what the native call returns


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


class Solver:
    """This project's inner loop on one or several tasks of one head, in one native call; memory for W' is kept."""

    def __init__(self, tasks: Sequence[Task], threads: int = 1) -> None:
        self._core, self._tasks, self._threads = native(), tasks, threads
        self._weight, self._bias = tasks[0].weight, tasks[0].bias
        cuts = (PAIRS, 2 * PAIRS)
        self._episodes = [tuple(np.ascontiguousarray(part) for part in np.split(task.support, cuts)) for task in tasks]
        self._weights = np.zeros((len(tasks), *self._weight.shape), np.float32)
        self._biases = np.zeros((len(tasks), *self._bias.shape), np.float32)

    def coefficients(self, steps: int) -> list[Float32]:
        """Aᵀ [m, D] of each task; W' is not formed."""
        return self._split(self._call(steps), _COEFFICIENTS)

    def formed(self, steps: int) -> list[Answer]:
        """W' and b' of each task, in memory that the next call overwrites."""
        found = self._call(steps)
        parts = zip(self._split(found, _COEFFICIENTS), self._split(found, _ROWS), strict=True)
        for number, (coefficients, rows) in enumerate(parts):
            weight, bias = self._weights[number], self._biases[number]
            self._core.form_head(self._weight, self._bias, coefficients, rows, weight, bias, self._threads)
        return list(zip(self._weights, self._biases, strict=True))

    def one(self, steps: int) -> Answer:
        """W' and b' of the first task."""
        return self.formed(steps)[0]

    def _call(self, steps: int) -> tuple[Any, ...]:
        settings = "both", "gallery", step_sizes(steps), MARGIN, None, SHARPNESS
        found: tuple[Any, ...] = self._core.adapt_features(
            self._weight, self._bias, self._episodes, None, *settings, threads=self._threads
        )
        return found

    def _split(self, found: tuple[Any, ...], part: int) -> list[Float32]:
        if len(self._tasks) == 1:
            return [found[part]]
        offsets = found[_OFFSETS].tolist()
        return [found[part][start:stop] for start, stop in pairwise(offsets)]


def written_out(task: Task, found: Float32) -> Answer:
    """W' = W + A X and b' = b + A 1, for checking what did not form them."""
    return task.weight + found.T @ task.support, task.bias + found.sum(axis=0)


class WholeCall:
    """The package's own calls, as an application makes them: features in, an adapter or its coefficients out."""

    def __init__(self, tasks: Sequence[Task], steps: int) -> None:
        self._head = tasks[0].head(steps)
        self._people = [Person(*np.split(task.support, (PAIRS, 2 * PAIRS))) for task in tasks]
        first = (np.ascontiguousarray(part) for part in np.split(tasks[0].support, (PAIRS, 2 * PAIRS)))
        self._support = Support.build(self._head, *first)
        self._options = {guard: AdaptOptions(margin=MARGIN, guard=guard) for guard in (False, True)}
        self._recipe = self._options[False].recipe(self._head)

    def adapt(self, guard: bool) -> AdaptResult:
        """adapt() of the first task, with or without the guard."""
        person = self._people[0]
        options = self._options[guard]
        return adapt(self._head, person.sketches, person.photos, negatives_features=person.negatives, options=options)

    def many(self) -> list[AdaptResult]:
        """adapt_many() of all tasks, without the guard."""
        return adapt_many(self._head, self._people, options=self._options[False])

    def cached(self) -> Float32:
        """The inner loop on a support whose outputs and inner products are kept: Aᵀ [m, D]."""
        solution = solve(self._head, self._support, range(PAIRS), self._recipe)
        if solution is None:
            raise RuntimeError("five pairs of five photos gave no triplet")
        return solution.coefficients
