"""Adapt a head to one person, or one category, from a few sketch-photo pairs. Also the command ``python -m fgsbir_edge.adapt``.

The encoder stays as it is; only the last layer learns, in the span of the support features (``inner.py``), and what it learned is
a small ``Adapter``. A guard (``guard.py``) keeps the base head in force when the adapted one does not hold up.
"""

from __future__ import annotations

if __name__ == "__main__":  # up here, as the command loads what it needs itself, and nothing twice
    from fgsbir_edge.adapt_cli import main
    from fgsbir_edge.console import whole_process

    whole_process(main)

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from fgsbir_edge.arrays import Float32, matrix
from fgsbir_edge.candidates import Candidates, pool_of
from fgsbir_edge.errors import NoPairsError, ShapeError
from fgsbir_edge.guard import DIVERGENCE_FACTOR, MIN_PAIRS, GuardReport, diverged, report_of, unchecked
from fgsbir_edge.head import Adapter, Head, Negatives, Side
from fgsbir_edge.inner import Episode, Found, Recipe, Solution, solve_episodes

Status = Literal["adapted", "kept-base"]
Reason = Literal["", "no-negatives", "diverged", "worse-leave-one-out"]


@dataclass(frozen=True)
class AdaptOptions:
    """How to adapt; None means what the head was trained to do.

    ``steps`` beyond the learned T repeat the last step size. ``margin`` None lets the head's margin network predict it.
    ``side`` "sketch" moves sketches only, "both" photos too. ``negatives`` "support" pushes away from the photos of other pairs,
    "gallery" from at most ``max_negatives`` other photos as well. ``momentum`` β makes every step follow V = β V + gradient;
    heads are trained without (0). ``centre`` p takes k / (k + p) of what the sketches shown have in common from all sketches;
    infinity: nothing. Raises ValueError on values out of range.
    """

    steps: int | None = None
    margin: float | None = None
    step_sizes: tuple[float, ...] | None = None
    side: Side | None = None
    negatives: Negatives | None = None
    guard: bool = True
    max_negatives: int = 64
    momentum: float = 0.0
    centre: float | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}, expected at least 1")
        if self.margin is not None and not np.isfinite(self.margin):
            raise ValueError(f"margin is {self.margin}, expected a finite number")
        if self.step_sizes is not None and not (len(self.step_sizes) and np.isfinite(self.step_sizes).all()):
            raise ValueError(f"step_sizes is {self.step_sizes}, expected finite numbers, at least one")
        if not (np.isfinite(self.momentum) and 0.0 <= self.momentum < 1.0):
            raise ValueError(f"momentum is {self.momentum}, expected a number from 0 up to, but not, 1")
        if self.centre is not None and not self.centre >= 0:
            raise ValueError(f"centre is {self.centre}, expected 0 or more, or infinity for none")
        if self.side not in (None, *get_args(Side)) or self.negatives not in (None, *get_args(Negatives)):
            raise ValueError(f"side {self.side!r} or negatives {self.negatives!r} is unknown")

    def recipe(self, head: Head) -> Recipe:
        """These options with the head's defaults filled in."""
        sizes = np.asarray(head.step_sizes if self.step_sizes is None else self.step_sizes, np.float32)
        steps = len(sizes) if self.steps is None else self.steps
        sizes = np.concatenate([sizes[:steps], np.full(max(0, steps - len(sizes)), sizes[-1], np.float32)])
        centre = head.centre if self.centre is None else self.centre
        return Recipe(self.side or head.side, self.negatives or head.negatives, sizes, self.margin, self.momentum, centre)


@dataclass(frozen=True)
class AdaptResult:
    """What came of an adaptation. ``adapter`` is always usable: where the base head stays in force it changes nothing (m = 0)."""

    adapter: Adapter
    status: Status
    reason: Reason
    explanation: str  # one sentence for a person
    losses: tuple[float, ...]  # before the first step to after the last; empty without triplets
    margin: float | None  # None without triplets
    recipe: Recipe
    guard: GuardReport
    millis: float  # set-up and inner loop
    guard_millis: float


def adapt(
    head: Head,
    sketch_features: ArrayLike,
    photo_features: ArrayLike,
    *,
    negatives_features: ArrayLike | None = None,
    candidates: ArrayLike | Candidates | None = None,
    options: AdaptOptions | None = None,
    threads: int = 1,
) -> AdaptResult:
    """Learn an adapter from k pairs: sketch_features [k, C] and photo_features [k, C], row i of both being pair i.

    Several sketches may share a photo. ``negatives_features`` [n, C] are other photos, used with negatives "gallery" alone: where
    the head was trained without, they pull every sketch towards the few photos shown. ``candidates`` [N, C] are the photos that
    the guard ranks among (the gallery); ``Candidates.of`` embeds them once for many calls. ``threads`` is how many work at most;
    the result does not depend on it. Raises NoPairsError, ShapeError, NonFiniteError, AdapterMismatchError (candidates of
    another head), NativeMissingError; what the guard objects to is reported, not raised.
    """
    options = options or AdaptOptions()
    recipe = options.recipe(head)
    episode = checked_episode(head, sketch_features, photo_features, negatives_features)
    pool = pool_of(head, candidates) if options.guard else None
    fold_pairs = MIN_PAIRS if options.guard else 0
    (found,) = solve_episodes(head, [episode], recipe, pool, fold_pairs=fold_pairs, threads=threads)
    return result_of(head, len(episode[0]), found, recipe, options.guard)


def checked_episode(
    head: Head, sketch_features: ArrayLike, photo_features: ArrayLike, negatives_features: ArrayLike | None, name: str = ""
) -> Episode:
    """The three arrays of an episode, float32 and contiguous.

    Raises NoPairsError, ShapeError, NonFiniteError, whose messages begin with ``name``.
    """
    sketches = _rows(head, f"{name}sketch features", sketch_features)
    photos = _rows(head, f"{name}photo features", photo_features)
    if len(sketches) != len(photos):
        raise ShapeError(f"{name}got {len(sketches)} sketches and {len(photos)} photos; give one photo a sketch")
    if not len(sketches):
        raise NoPairsError(f"{name}no sketch-photo pairs given; give at least one, three or more let the guard check them")
    return sketches, photos, _rows(head, f"{name}negatives", negatives_features)


def result_of(head: Head, pairs: int, found: Found, recipe: Recipe, guard: bool) -> AdaptResult:
    """The verdict on what the inner loop found from so many pairs, and the adapter that follows from it."""
    solution = found.solution
    report = GuardReport(None, None, 0, "not checked: switched off")
    if guard and (solution is not None or found.shift is not None):
        note = unchecked(pairs, triplets=True)
        report = report_of(found.folds) if found.folds is not None else GuardReport(None, None, 0, note)
    reason, explanation = _verdict(found, report, guard)
    meta = _meta(pairs, recipe, solution, reason)
    adapter = Adapter.identity(head, recipe.side, meta)
    if not reason:
        adapter = replace(adapter, sketch_shift=found.shift)
        if solution is not None:
            adapter = replace(adapter, coefficients=solution.coefficients.T, support=found.features)
    return AdaptResult(
        adapter=adapter,
        status="kept-base" if reason else "adapted",
        reason=reason,
        explanation=explanation,
        losses=() if solution is None else tuple(solution.losses.tolist()),
        margin=None if solution is None else solution.margin,
        recipe=recipe,
        guard=report,
        millis=1e3 * found.seconds,
        guard_millis=1e3 * found.fold_seconds,
    )


def _rows(head: Head, name: str, values: ArrayLike | None) -> Float32:
    """Checked rows [n, C]; None and empty input give [0, C]."""
    if values is None or np.size(values) == 0:
        return np.empty((0, head.features), np.float32)
    return matrix(name, values, head.features)


def _verdict(found: Found, report: GuardReport, guard: bool) -> tuple[Reason, str]:
    solution, done = found.solution, "adapted"
    if solution is None:
        if found.shift is None:
            return (
                "no-negatives",
                "base head kept: one photo has nothing to be told from; add pairs of other photos, or take negatives 'gallery'",
            )
        if not np.isfinite(found.shift).all():
            return "diverged", "base head kept: the sketches' mean output is not finite"
        done = "adapted by what the sketches have in common alone, as one photo has nothing to be told from"
    elif not solution.finite or (guard and diverged(solution)):  # NaN never comes into force, guard or no guard
        first, last = solution.losses[0], solution.losses[-1]
        return "diverged", f"base head kept: the support loss went from {first:.3g} to {last:.3g} (limit x{DIVERGENCE_FACTOR})"
    if report.note:
        return "", f"{done}; guard {report.note}"
    ranks = f"mean leave-one-out rank {report.base_rank:.2f} -> {report.adapted_rank:.2f} of {report.candidates}"
    if report.worse:
        return "worse-leave-one-out", f"base head kept, as left-out pairs became harder to find: {ranks}"
    return "", f"{done}: {ranks}"


def _meta(pairs: int, recipe: Recipe, solution: Solution | None, reason: Reason) -> dict[str, str]:
    meta = {"pairs": str(pairs), "steps": str(len(recipe.step_sizes)), "negatives": recipe.negatives, "kept_base": reason}
    if recipe.centre != np.inf:
        meta["centre"] = f"{recipe.centre:.6g}"
    return meta if solution is None else {**meta, "margin": f"{solution.margin:.6g}"}
