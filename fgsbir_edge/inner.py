"""The inner loop on a support set, in the span of its features: all of it in one call of the native core.

With frozen features X [m, C] every gradient of the head is G·X, so W is never touched (exact, not an approximation):

    U0 = W Xᵀ + b,  K = X Xᵀ + 1                                once; the 1 is the bias's column of ones
    c = -k / (k + p) mean of the k sketches' rows of U0          once, added to these rows; p infinite: c = 0
    G_t = dL/dU,  V <- β V + G_t                                β momentum, 0 unless asked for
    U <- U - a_t K V,  A <- A - a_t V                           each step, on the rows that move
    L = mean over triplets of softplus_b(μ + d(z_a, z_p) - d(z_a, z_n)),  z = u / ||u||         (METHODS C.3, C.5)

What all sketches of a person or a category have in common says nothing about which photo is meant, and the loss of pairs
cannot find it: with the support's own photos as negatives, the pulls and pushes on a common shift cancel. Hence c, a mean
drawn towards 0 as if p more sketches lay there.

Against float64 on the same float32 outputs and inner products, 20 steps end within 2e-6 of the largest coefficient and 1e-6 of
the loss (tests/test_adapt_native.py holds this); NumPy twins are in ``_reference/adapt.py``.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import NativeMissingError
from fgsbir_edge.head import Adapter, Head, Negatives, Role, Side

SQUARED_DISTANCE_FLOOR = 1e-12  # as in the native core: the distance of a point to itself has a finite gradient

Int32 = NDArray[np.int32]
Episode = tuple[Float32, Float32, Float32]  # sketches [k, C], their photos [k, C], other photos [n, C], all contiguous
Pool = Float32 | tuple[Float32, Float32]  # photos that folds rank among: features [N, C], with outputs [N, D] where known


@dataclass(frozen=True)
class Recipe:
    """What one run of the inner loop does; ``margin`` None asks the head (its margin network, or its fixed margin)."""

    side: Side
    negatives: Negatives
    step_sizes: Float32  # [T]
    margin: float | None
    momentum: float = 0.0
    centre: float = math.inf  # p

    def settings(self, head: Head) -> tuple[Any, ...]:
        """The native calls' arguments from ``side`` to ``centre``."""
        net = head.margin_net if self.margin is None else None
        margin = np.nan if net is not None else head.margin if self.margin is None else self.margin
        weights = None if net is None else net.packed
        return self.side, self.negatives, self.step_sizes, margin, weights, head.sharpness, self.momentum, self.centre


@dataclass(frozen=True, eq=False)
class Support:
    """All rows that an adaptation can use, with their base outputs and inner products. Rows: k sketches, p photos, n others."""

    rows: Float32  # X [m, C], m = k + p + n, every photo once
    outputs: Float32  # U0 [m, D]
    gram: Float32  # K [m, m]
    photo_rows: Int32  # [k] row of each sketch's photo

    @classmethod
    def build(cls, head: Head, sketches: Float32, photos: Float32, others: Float32, *, threads: int = 1) -> Support:
        """From sketches [k, C], their photos [k, C] (repeats allowed) and other photos [n, C] (those in pairs are dropped).

        Raises ValueError on shapes that disagree and NativeMissingError when the compiled core cannot be imported.
        """
        return cls(*native().prepare_support(head.weight, head.bias, sketches, photos, others, threads))

    @property
    def pairs(self) -> int:
        """k, the number of sketch-photo pairs."""
        return len(self.photo_rows)

    @cached_property
    def photo_of(self) -> tuple[int, ...]:
        """[k] row of each sketch's photo."""
        return tuple(self.photo_rows.tolist())

    @cached_property
    def others(self) -> tuple[int, ...]:
        """[n] rows of photos that no pair names."""
        named = set(self.photo_of)
        return tuple(row for row in range(self.pairs, len(self.rows)) if row not in named)

    def triplets(self, pairs: Sequence[int], negatives: Negatives) -> Int32:
        """(sketch, its photo, another photo) as rows [t, 3], over the pairs given.

        "support": the other photos that these pairs name; "gallery": every other photo there is, also those of pairs left out,
        since the gallery that the person will search holds them.
        """
        triplets: Int32 = native().plan_triplets(self._only(pairs), len(self.rows), negatives)
        return triplets

    def _only(self, pairs: Sequence[int]) -> Int32:
        """``photo_rows`` with -1 for all other pairs."""
        rows = np.full_like(self.photo_rows, -1)
        rows[list(pairs)] = self.photo_rows[list(pairs)]
        return rows


@dataclass(frozen=True, eq=False)
class Solution:
    """What the inner loop found: ``coefficients`` [r, D] (Aᵀ) for the moving ``rows`` [r] of the support."""

    rows: NDArray[np.intp]
    coefficients: Float32
    losses: NDArray[np.float64]  # [T + 1], before the first step to after the last
    margin: float

    @property
    def finite(self) -> bool:
        """Whether neither the result nor any loss is NaN or infinite."""
        return bool(np.isfinite(self.coefficients).all() and np.isfinite(self.losses).all())


@dataclass(frozen=True, eq=False)
class Folds:
    """Leave-one-out: ranks [k] of each pair's photo under the base head and under a head adapted on all other pairs."""

    base_ranks: Int32
    adapted_ranks: Int32
    candidates: int  # photos that were ranked
    unseen: NDArray[np.bool_]  # [k] whether no other pair shows the photo: the adapted head then had not met it


@dataclass(frozen=True, eq=False)
class Found:
    """What came of one episode. ``features`` [r, C] are those of the solution's rows; ``folds`` None where none were wanted."""

    solution: Solution | None  # None without triplets
    features: Float32
    folds: Folds | None
    seconds: float  # set-up and inner loop; of several episodes, an even share of the set-up
    fold_seconds: float
    shift: Float32 | None = None  # c [D]; None where sketches are not centred


def solve(head: Head, support: Support, pairs: Sequence[int], recipe: Recipe, *, threads: int = 1) -> Solution | None:
    """Run the inner loop on some of the pairs; None when they give no triplet (a single photo and no negatives).

    Raises NativeMissingError when the compiled core cannot be imported.
    """
    everyone = len(pairs) == support.pairs
    photo_rows = support.photo_rows if everyone else support._only(pairs)
    rows = moving_rows(photo_rows.tolist(), len(support.rows), recipe)
    if not len(rows):
        return None
    prepared = support.rows, support.outputs, support.gram, photo_rows
    coefficients, losses, margins, *_ = native().adapt_support(
        head.weight, head.bias, prepared, None, *recipe.settings(head), 0, threads
    )
    return Solution(rows, coefficients[rows], losses[0], float(margins[0]))


def leave_out(head: Head, support: Support, recipe: Recipe, candidates: Pool | None, *, threads: int = 1) -> Folds:
    """Leave every pair out once, adapt on the others, and rank the photo of the one left out.

    ``candidates`` are the photos to rank among; None takes the distinct photos that pairs name. The true photo always takes
    part, once.
    """
    prepared = support.rows, support.outputs, support.gram, support.photo_rows
    _, _, _, ranks, _, _, pool_sizes, *_ = native().adapt_support(
        head.weight, head.bias, prepared, candidates, *recipe.settings(head), 1, threads
    )
    return Folds(ranks[0, 1:], ranks[1, 1:], int(pool_sizes[0]), _named_once(support.photo_rows))


def solve_episodes(
    head: Head, episodes: Sequence[Episode], recipe: Recipe, candidates: Pool | None, *, fold_pairs: int = 0, threads: int = 1
) -> list[Found]:
    """Supports, inner loops and folds of any number of episodes in one native call.

    Episodes with at least ``fold_pairs`` > 0 pairs are checked by leaving each pair out, ranked among ``candidates`` as in
    ``leave_out``. Raises NativeMissingError when the compiled core cannot be imported.
    """
    start = time.perf_counter()
    features, photo_of, offsets, coefficients, losses, margins, ranks, seconds, pool_seconds, pool_sizes, first, shifts = (
        native().adapt_features(head.weight, head.bias, list(episodes), candidates, *recipe.settings(head), fold_pairs, threads)
    )
    count = len(episodes)
    shared = max(0.0, time.perf_counter() - start - float(seconds.sum()) - pool_seconds) / max(count, 1)
    first = (0, len(seconds)) if first is None else first.tolist()
    found, pair = [], 0
    for number, (begin, end) in enumerate(itertools.pairwise(offsets.tolist())):
        task, last = first[number], first[number + 1]
        k = len(episodes[number][0])
        own = photo_of[pair : pair + k]
        rows = moving_rows(own.tolist(), end - begin, recipe)
        pair += k
        solution = Solution(rows, coefficients[begin + rows], losses[task], float(margins[task])) if len(rows) else None
        folds = None
        if last > task + 1:
            fold_ranks = ranks[:, task + 1 : last]
            folds = Folds(fold_ranks[0], fold_ranks[1], int(pool_sizes[number]), _named_once(own))
        fold_seconds = float(seconds[task + 1 : last].sum()) + (pool_seconds / count if folds else 0.0)
        shift = None if shifts is None else shifts[number]
        found.append(Found(solution, features[begin + rows], folds, float(seconds[task]) + shared, fold_seconds, shift))
    return found


def formed(head: Head, adapter: Adapter, role: Role = "sketch", *, threads: int = 1) -> Head:
    """The head that sketches (or photos) go through, with an adapter written into it: W' = W + A·X, b' = b + A·1 + c.

    All else is as it was; c is of sketches alone, and photos that the adapter does not move keep the head. Its embeddings are
    those of ``adapter.embed`` but for rounding. An adapter is applied without this; it serves those who want to hand on a head
    of one person. Raises AdapterMismatchError when the adapter was made for another head.
    """
    adapter.check(head)
    if not adapter.moves(role):
        return head
    weight, bias = np.empty_like(head.weight), np.empty_like(head.bias)
    coefficients = np.ascontiguousarray(adapter.coefficients.T)
    native().form_head(head.weight, head.bias, coefficients, adapter.support, weight, bias, threads)
    if role == "sketch" and adapter.sketch_shift is not None:
        bias += adapter.sketch_shift
    return replace(head, weight=weight, bias=bias)


def moving_rows(photo_of: Sequence[int], items: int, recipe: Recipe) -> NDArray[np.intp]:
    """Rows [r], ascending, that a support's triplets name and that move with ``recipe.side``; none without a triplet.

    ``photo_of`` [k] holds rows, -1 for a pair that takes no part; ``items`` is the number of rows.
    """
    named = sorted({row for row in photo_of if row >= 0})
    pool = named if recipe.negatives == "support" else range(len(photo_of), items)
    if not named or len(pool) < 2:
        return np.empty(0, np.intp)
    sketches = [pair for pair, row in enumerate(photo_of) if row >= 0]
    return np.fromiter((*sketches, *(pool if recipe.side == "both" else ())), np.intp)


def _named_once(photo_of: Int32) -> NDArray[np.bool_]:
    """Which pairs' photos no other pair names: [k]."""
    _, which, counts = np.unique(photo_of, return_inverse=True, return_counts=True)
    once: NDArray[np.bool_] = counts[which] == 1
    return once


def native() -> ModuleType:
    """The compiled core. Raises NativeMissingError naming the remedy."""
    try:
        from fgsbir_edge import _native
    except ImportError as error:
        raise NativeMissingError(
            f"the compiled core fgsbir_edge._native cannot be imported ({error}); install the package with 'pip install .' "
            "(needs a C++17 compiler), then see 'fgsbir-edge doctor'"
        ) from error
    module: ModuleType = _native
    return module
