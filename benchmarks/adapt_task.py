"""The task that all adaptations solve, its float64 answer, and the least arithmetic that gives it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.rounds import Verdict
from fgsbir_edge._reference import adapt as reference
from fgsbir_edge.head import Head

PAIRS = 5  # k
MARGIN, SHARPNESS, STEP_SIZE = 0.3, 10.0, 0.2
BOUND = 1e-3  # largest error of W' that is let through, relative to the largest change of a weight

UNROLLED = 5  # steps in one compiled graph; more steps are further calls of it
EAGER, GATHERED = "torch eager, nn.Linear and SGD", "torch eager, triplets gathered"
LEAN, FUNCTIONAL, COMPILED = "torch autograd.grad", "torch.func", f"torch.compile, {UNROLLED} steps unrolled"
NUMPY, FORMED, UNFORMED = "NumPy, full gradient", "ours, W' formed", "ours, W' not formed"
LOOP, TOGETHER, UNWRITTEN = "ours, a call a task", "ours, one call for all", "ours, one call for all, W' not formed"
MANY, VMAP = "ours, adapt_many() without guard, adapters", "torch.func.vmap over tasks"

Float32 = NDArray[np.float32]
Answer = tuple[NDArray[np.floating], NDArray[np.floating]]  # W' [D, C], b' [D]


@dataclass(frozen=True)
class Task:
    """Five sketch-photo pairs and ``extra`` further photos: m = 10 + extra distinct rows of C features, a head to D outputs.

    Every row moves with the head, and every sketch is told from every other photo: 5 (4 + extra) triplets.
    """

    features: int  # C
    outputs: int  # D
    extra: int
    seed: int = 0

    @property
    def rows(self) -> int:
        """m."""
        return 2 * PAIRS + self.extra

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"C={self.features} D={self.outputs}, {self.rows} rows"

    @cached_property
    def support(self) -> Float32:
        """X [m, C] float32, unit rows: sketches, then photos; a photo resembles its sketch."""
        rng = np.random.default_rng(self.seed)
        rows = rng.normal(size=(self.rows, self.features))
        rows[PAIRS : 2 * PAIRS] = 0.6 * rows[:PAIRS] + 0.8 * rows[PAIRS : 2 * PAIRS]
        unit: Float32 = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit

    @cached_property
    def weight(self) -> Float32:
        """W [D, C] float32; the same for every seed, as one head serves many people."""
        scale = np.sqrt(self.outputs)
        weight: Float32 = (np.random.default_rng(99).normal(size=(self.outputs, self.features)) / scale).astype(np.float32)
        return weight

    @cached_property
    def bias(self) -> Float32:
        """b [D] float32."""
        bias: Float32 = (0.01 * np.random.default_rng(98).normal(size=self.outputs)).astype(np.float32)
        return bias

    @cached_property
    def triplets(self) -> NDArray[np.int32]:
        """(sketch, its photo, another photo) [t, 3]."""
        photos = range(PAIRS, self.rows)
        return np.array([(a, PAIRS + a, n) for a in range(PAIRS) for n in photos if n != PAIRS + a], np.int32)

    @cached_property
    def shares(self) -> Float32:
        """What each (sketch, photo) [k, m - k] counts in the mean over triplets: 0 for its own photo, else 1/t."""
        shares = np.full((PAIRS, self.rows - PAIRS), 1 / len(self.triplets), np.float32)
        shares[np.arange(PAIRS), np.arange(PAIRS)] = 0
        return shares

    def head(self, steps: int) -> Head:
        """The same head as the package holds it."""
        return Head(self.weight, self.bias, step_sizes(steps), None, MARGIN, SHARPNESS, "both", "gallery")

    def reference(self, steps: int) -> Answer:
        """W' [D, C] and b' [D] in float64, by full gradients."""
        moves = np.ones(self.rows, np.uint8)
        loss = MARGIN, SHARPNESS
        weight, bias, _ = reference.adapt(self.weight, self.bias, self.support, self.triplets, moves, step_sizes(steps), loss)
        return weight, bias

    def error(self, answer: Answer, steps: int) -> float:
        """How far an answer is from the reference, relative to the largest change of a weight; infinite where it is NaN."""
        weight, bias = self.reference(steps)
        change = np.abs(weight - self.weight).max()
        error = max(np.abs(answer[0] - weight).max(), np.abs(answer[1] - bias).max()) / change
        return float(error) if np.isfinite(error) else np.inf

    def verdict(self, answer: Answer, steps: int) -> Verdict:
        """Whether an answer is near enough to be timed."""
        return judged(self.error(answer, steps))

    def floor_operations(self, steps: int, *, formed: bool) -> float:
        """Multiplications and additions of the shorter of two exact ways, set-up included (docs/performance.md)."""
        m, C, D, photos = self.rows, self.features, self.outputs, self.rows - PAIRS
        setup = m * C * D + C * m * (m + 1) / 2
        span = steps * (3 * PAIRS * photos * D + m * m * D)
        gram = D * m * (m + 1) / 2 + steps * 3 * m**3 + m * m * D
        return 2.0 * (setup + min(span, gram) + (m * C * D if formed else 0))


def judged(error: float) -> Verdict:
    """The verdict on an error relative to the largest change of a weight."""
    return Verdict(error <= BOUND, f"off by {error:.1e} of the largest change")


def step_sizes(steps: int) -> Float32:
    """[T] float32."""
    return np.full(steps, STEP_SIZE, np.float32)
