"""The inner loop on a support set, in the span of its features: set-up here, the steps themselves in the native core.

With frozen features X [m, C] every gradient of the head is G·X, so W is never touched (exact, not an approximation):

    U0 = W Xᵀ + b,  K = X Xᵀ + 1                                once; the 1 is the bias's column of ones
    G_t = dL/dU,  U <- U - a_t K G_t,  A <- A - a_t G_t         each step, on the rows that move
    L = mean over triplets of softplus_b(μ + d(z_a, z_p) - d(z_a, z_n)),  z = u / ||u||         (METHODS C.3, C.5)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32, normalised
from fgsbir_edge.errors import NativeMissingError
from fgsbir_edge.head import Head, Negatives, Side

SQUARED_DISTANCE_FLOOR = 1e-12  # as in the native core: the distance of a point to itself has a finite gradient

Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Recipe:
    """What one run of the inner loop does; ``margin`` None asks the head (its margin network, or its fixed margin)."""

    side: Side
    negatives: Negatives
    step_sizes: Float32  # [T]
    margin: float | None


@dataclass(frozen=True, eq=False)
class Support:
    """All rows that an adaptation can use, with their base outputs and inner products. Rows: k sketches, p photos, n others."""

    rows: Float32  # X [m, C], m = k + p + n, every photo once
    outputs: Float32  # U0 [m, D]
    gram: Float32  # K [m, m]
    photo_of: tuple[int, ...]  # [k] row of each sketch's photo
    others: tuple[int, ...]  # [n] rows of photos that no pair names

    @classmethod
    def build(cls, head: Head, sketches: Float32, photos: Float32, others: Float32) -> Support:
        """From sketches [k, C], their photos [k, C] (repeats allowed) and other photos [n, C] (those in pairs are dropped)."""
        k = len(sketches)
        row_of: dict[bytes, int] = {}
        kept: list[Float32] = []
        for photo in (*photos, *others):
            if row_of.setdefault(photo.tobytes(), k + len(kept)) == k + len(kept):
                kept.append(photo)
        photo_of = tuple(row_of[photo.tobytes()] for photo in photos)
        rows = np.concatenate([sketches, np.stack(kept)])
        named = set(photo_of)
        unnamed = tuple(row for row in range(k, len(rows)) if row not in named)
        return cls(rows, head.outputs(rows), rows @ rows.T + np.float32(1.0), photo_of, unnamed)

    @property
    def pairs(self) -> int:
        """k, the number of sketch-photo pairs."""
        return len(self.photo_of)

    def triplets(self, pairs: Sequence[int], negatives: Negatives) -> Int32:
        """(sketch, its photo, another photo) as rows [t, 3], over the pairs given.

        "support": the other photos that these pairs name; "gallery": every other photo there is, also those of pairs left out,
        since the gallery that the person will search holds them.
        """
        named = {self.photo_of[pair] for pair in pairs}
        pool = sorted(named if negatives == "support" else {*self.photo_of, *self.others})
        triplets = [(pair, self.photo_of[pair], other) for pair in pairs for other in pool if other != self.photo_of[pair]]
        return np.asarray(triplets, dtype=np.int32).reshape(-1, 3)


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


def solve(head: Head, support: Support, pairs: Sequence[int], recipe: Recipe) -> Solution | None:
    """Run the inner loop on some of the pairs; None when they give no triplet (a single photo and no negatives).

    Raises NativeMissingError when the compiled core cannot be imported.
    """
    triplets = support.triplets(pairs, recipe.negatives)
    if not len(triplets):
        return None
    used, local = np.unique(triplets, return_inverse=True)  # ascending: sketches come first, as in the support
    outputs = support.outputs[used]
    places: Int32 = local.reshape(-1, 3).astype(np.int32)
    margin = margin_of(head, outputs, places) if recipe.margin is None else recipe.margin
    moves = np.ones(len(used), np.uint8) if recipe.side == "both" else (used < support.pairs).astype(np.uint8)
    gram = np.ascontiguousarray(support.gram[np.ix_(used, used)])
    coefficients, _, losses = native().adapt(outputs, gram, places, moves, recipe.step_sizes, margin, head.sharpness)
    moving = moves.astype(bool)
    return Solution(used[moving].astype(np.intp), np.asarray(coefficients)[moving], np.asarray(losses), margin)


def margin_of(head: Head, outputs: Float32, triplets: Int32) -> float:
    """The margin of a task: predicted from the base distances of its triplets, or the head's fixed one."""
    if head.margin_net is None:
        return head.margin
    z = normalised(outputs)
    anchors, positives, negatives = (z[triplets[:, column]] for column in range(3))
    return head.margin_net.predict(_distances(anchors, positives), _distances(anchors, negatives))


def _distances(a: Float32, b: Float32) -> Float32:
    squared = np.square(a - b).sum(axis=1)
    distances: Float32 = np.sqrt(np.maximum(squared, np.float32(SQUARED_DISTANCE_FLOOR)))
    return distances


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
