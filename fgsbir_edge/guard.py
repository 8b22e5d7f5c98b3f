"""The guard of adaptation: an adapter comes into force only if it holds up on pairs it did not see.

Gradient steps on five pairs can make a person's retrieval worse: the objects shown pull the others down. So each support pair is
left out once, the others adapt, and the left-out sketch looks for its photo. Where the mean rank got worse than the base head's,
the base head stays. The guard decides and reports; it never raises.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgsbir_edge.arrays import Float32, normalised
from fgsbir_edge.head import Head
from fgsbir_edge.inner import Recipe, Solution, Support, solve
from fgsbir_edge.ranking import rank_of

MIN_PAIRS = 3  # with two, each half adapts on a single pair: that says nothing about adapting on two
DIVERGENCE_FACTOR = 1.5  # a support loss that ends this much above its start has not been minimised
LOSS_FLOOR = 0.01  # a loss below it may grow without meaning anything


@dataclass(frozen=True)
class GuardReport:
    """What the leave-one-out check saw. Ranks are means over the pairs, ties against; None where it was not run."""

    base_rank: float | None
    adapted_rank: float | None
    candidates: int  # photos that each left-out sketch was ranked among
    note: str  # why it was not run, or ""

    @property
    def worse(self) -> bool:
        """Whether adapting on the other pairs made the left-out ones harder to find."""
        return self.base_rank is not None and self.adapted_rank is not None and self.adapted_rank > self.base_rank


def diverged(solution: Solution) -> bool:
    """NaN or infinity anywhere, or a final loss more than DIVERGENCE_FACTOR times the first."""
    if not solution.finite:
        return True
    return bool(solution.losses[-1] > DIVERGENCE_FACTOR * max(float(solution.losses[0]), LOSS_FLOOR))


def leave_one_out(head: Head, support: Support, recipe: Recipe, candidates: Float32 | None) -> GuardReport:
    """Mean rank of each pair's photo under the base head, and under a head adapted on all the other pairs.

    ``candidates`` [N, C] are the photos to rank among (the gallery); None takes the distinct photos that pairs name. The true
    photo always takes part, once. Cost: k inner loops, and for the candidates one product with W and one with X.
    """
    if support.pairs < MIN_PAIRS:
        return GuardReport(None, None, 0, f"not checked: needs {MIN_PAIRS} pairs, got {support.pairs}")
    everyone = range(support.pairs)
    if not len(support.triplets(everyone, recipe.negatives)):
        return GuardReport(None, None, 0, "not checked: the pairs give no triplet")
    pool = _Pool.of(head, support, candidates)
    base, adapted = [], []
    for pair in everyone:
        solution = solve(head, support, [other for other in everyone if other != pair], recipe)
        base.append(pool.rank(support, pair, None, recipe))
        adapted.append(base[-1] if solution is None else pool.rank(support, pair, solution, recipe))
    return GuardReport(float(np.mean(base)), float(np.mean(adapted)), len(pool.outputs), "")


@dataclass(frozen=True, eq=False)
class _Pool:
    """Candidate photos as the low-rank form needs them."""

    outputs: Float32  # [N, D] base outputs
    unit: Float32  # [N, D] the same, normalised
    cross: Float32  # [N, m] inner products with the support's rows, + 1
    own: dict[int, int]  # support row of a photo -> its candidate

    @classmethod
    def of(cls, head: Head, support: Support, candidates: Float32 | None) -> _Pool:
        named = sorted(set(support.photo_of))
        photos = support.rows[named]
        if candidates is not None:
            place = {row.tobytes(): index for index, row in reversed(list(enumerate(candidates)))}
            missing = [row for row in named if support.rows[row].tobytes() not in place]
            photos = np.concatenate([candidates, support.rows[missing]])
        place = {row.tobytes(): index for index, row in reversed(list(enumerate(photos)))}
        own = {row: place[support.rows[row].tobytes()] for row in named}
        outputs = head.outputs(photos)
        return cls(outputs, normalised(outputs), photos @ support.rows.T + np.float32(1.0), own)

    def rank(self, support: Support, pair: int, solution: Solution | None, recipe: Recipe) -> int:
        """Rank of a pair's photo, under the base head or with a solution's change of it."""
        query, photos = support.outputs[pair], self.unit
        if solution is not None:
            query = query + support.gram[pair, solution.rows] @ solution.coefficients
            if recipe.side == "both":
                photos = normalised(self.outputs + self.cross[:, solution.rows] @ solution.coefficients)
        return rank_of(photos @ normalised(query[None])[0], self.own[support.photo_of[pair]])
