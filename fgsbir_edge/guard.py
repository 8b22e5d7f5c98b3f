"""The guard of adaptation: an adapter comes into force only if it holds up on pairs it did not see.

Gradient steps on five pairs can make a person's retrieval worse: the objects shown pull the others down. So each support pair is
left out once, the others adapt, and the left-out sketch looks for its photo. Where the mean rank got clearly worse than the base
head's, the base head stays; a few ranks say little, and a guard that asks for no loss at all refuses much that helps
(docs/adaptation.md). A pair whose photo another pair shows too is not asked: the head has then been adapted on that very photo,
and what becomes of photos that were shown says little of all the others. The guard decides and reports; it never raises.
"""

from __future__ import annotations

from dataclasses import dataclass

from fgsbir_edge.head import Head
from fgsbir_edge.inner import Folds, Pool, Recipe, Solution, Support, leave_out, moving_rows

WORSE_FACTOR = 1.25  # a mean rank that grew by no more than a quarter is no evidence against adapting
MIN_PAIRS = 3  # with two, each half adapts on a single pair: that says nothing about adapting on two
DIVERGENCE_FACTOR = 1.5  # a support loss that ends this much above its start has not been minimised
LOSS_FLOOR = 0.01  # a loss below it may grow without meaning anything


@dataclass(frozen=True)
class GuardReport:
    """What the leave-one-out check saw. Ranks are means over the pairs asked, ties against; None where it was not run."""

    base_rank: float | None
    adapted_rank: float | None
    candidates: int  # photos that each left-out sketch was ranked among
    note: str  # why it was not run, or ""

    @property
    def worse(self) -> bool:
        """Whether adapting on the other pairs made the left-out ones clearly harder to find."""
        return self.base_rank is not None and self.adapted_rank is not None and self.adapted_rank > WORSE_FACTOR * self.base_rank


def diverged(solution: Solution) -> bool:
    """NaN or infinity anywhere, or a final loss more than DIVERGENCE_FACTOR times the first."""
    if not solution.finite:
        return True
    return bool(solution.losses[-1] > DIVERGENCE_FACTOR * max(float(solution.losses[0]), LOSS_FLOOR))


def leave_one_out(head: Head, support: Support, recipe: Recipe, candidates: Pool | None, *, threads: int = 1) -> GuardReport:
    """Mean rank of the photos that one pair shows, under the base head, and under a head adapted on all the other pairs.

    ``candidates`` are the photos to rank among (the gallery); None takes the distinct photos that pairs name. The true photo
    always takes part, once. Cost: k inner loops, and for the candidates one product with W, unless they bring their outputs,
    one with the left-out sketches and, where photos move, one with X.
    """
    note = unchecked(support.pairs, bool(len(moving_rows(support.photo_rows.tolist(), len(support.rows), recipe))))
    if note:
        return GuardReport(None, None, 0, note)
    return report_of(leave_out(head, support, recipe, candidates, threads=threads))


def report_of(folds: Folds) -> GuardReport:
    """What the folds say."""
    if not folds.unseen.any():
        return GuardReport(None, None, folds.candidates, "not checked: every photo is shown by several pairs")
    base, adapted = (float(ranks[folds.unseen].mean()) for ranks in (folds.base_ranks, folds.adapted_ranks))
    return GuardReport(base, adapted, folds.candidates, "")


def unchecked(pairs: int, triplets: bool) -> str:
    """Why so many pairs, with or without triplets, cannot be checked; "" where they can."""
    if pairs < MIN_PAIRS:
        return f"not checked: needs {MIN_PAIRS} pairs, got {pairs}"
    return "" if triplets else "not checked: the pairs give no triplet"
