"""Fitting the constants of ``Confidence`` to searches whose outcome is known, by maximum likelihood.

The weights of ``Confidence`` are exponentials of sums that are linear in its constants, so that the likelihood of what was meant
has one maximum, which Newton's method finds. A Gaussian around given constants keeps few searches from saying too much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32
from fgsbir_edge.confidence import OTHERS, SHORTLIST, Confidence

Float64 = NDArray[np.float64]

ABSENT, BEHIND = -1, SHORTLIST  # places of a photo that is not in the gallery, and of one behind the shortlist
START = Confidence((5.0, 0.0, 0.0), (0.0, 0.0), (0.0,) * 5, 0.5, 0.5)
CONSTANTS = 10
WEAK = (100.0,) * CONSTANTS  # how far constants may well be from START: says next to nothing
FIXED = 1e-6  # a spread that leaves a constant where it starts
STEPS, DONE = 100, 1e-10
_SMALLEST_SHARE = 1e-9
_BLOCK = 4096  # searches at a time


@dataclass(frozen=True, eq=False)
class Searches:
    """T searches whose outcome is known. Raises ValueError where fields disagree.

    ``similarities`` [T, SHORTLIST]: cosines of the nearest photos, nearest first, NaN where a gallery ends before; ``sizes``
    [T] of the galleries; ``places`` [T] of the photo that was meant, from 0, or ABSENT or BEHIND; whether it was ``adapted`` [T].
    """

    similarities: Float32
    sizes: NDArray[np.int64]
    places: NDArray[np.int64]
    adapted: NDArray[np.bool_]

    def __post_init__(self) -> None:
        count = np.isfinite(self.similarities).sum(axis=1)
        if not np.array_equal(count, np.minimum(self.sizes, SHORTLIST)):
            raise ValueError("similarities must be those of the whole gallery, or its SHORTLIST nearest, and finite")
        if np.any(self.places < ABSENT) or np.any(self.places > BEHIND) or np.any(self.places >= self.sizes):
            raise ValueError("places must be from 0 to the gallery's size, ABSENT or BEHIND")

    def __len__(self) -> int:
        return len(self.sizes)


def padded(similarities: Sequence[float]) -> Float32:
    """A row of ``Searches.similarities``: the first SHORTLIST, and NaN behind them."""
    row = np.full(SHORTLIST, np.nan, np.float32)
    row[: min(len(similarities), SHORTLIST)] = similarities[:SHORTLIST]
    return row


def probabilities(confidence: Confidence, searches: Searches) -> Float64:
    """What ``Confidence.assess`` gives, for all searches: [T, SHORTLIST + 2], hits, then behind, then absent. Rows sum to 1."""
    odds = math.log(confidence.absent_share / (1.0 - confidence.absent_share))
    parts = [_shares(*_terms(searches, part), _vector(confidence), odds) for part in _blocks(len(searches))]
    return np.concatenate([np.empty((0, SHORTLIST + 2)), *parts])


def fit(
    searches: Searches,
    weights: Float64 | None = None,
    *,
    start: Confidence = START,
    spread: Sequence[float] = WEAK,
) -> Confidence:
    """The constants under which what was meant is most likely; thresholds and ``absent_share`` stay those of ``start``.

    ``weights`` [T] say how often each search counts. ``spread``: how far from those of ``start`` the constants are expected to
    be, in the order slope, behind, absent. Raises ValueError without searches, or where they ask for constants
    that ``Confidence`` does not allow, such as nearer photos being less likely.
    """
    if not len(searches):
        raise ValueError("no searches to fit to")
    count = np.ones(len(searches)) if weights is None else np.asarray(weights, np.float64)
    centre, width = _vector(start), np.asarray(spread, np.float64).copy()
    odds = math.log(start.absent_share / (1.0 - start.absent_share))
    theta = _newton(searches, count, centre, width, odds)
    t, b, c = (tuple(float(number) for number in part) for part in np.split(theta, (3, 5)))
    return replace(start, slope=(t[0], t[1], t[2]), behind=(b[0], b[1]), absent=(c[0], c[1], c[2], c[3], c[4]), provenance={})


def _newton(searches: Searches, count: Float64, centre: Float64, width: Float64, odds: float) -> Float64:
    """The constants [10] at which log likelihood and log prior are largest, by Newton's method with halved steps."""
    precision = np.square(1.0 / width)
    label = np.where(searches.places == ABSENT, SHORTLIST + 1, searches.places)
    terms = [(part, *_terms(searches, part)) for part in _blocks(len(searches))]

    def value(at: Float64) -> float:
        total = -0.5 * float(precision @ np.square(at - centre))
        for part, rows, there in terms:
            shares = _shares(rows, there, at, odds)[np.arange(len(rows)), label[part]]
            total += float(count[part] @ np.log(np.maximum(shares, 1e-300)))
        return total

    theta: Float64 = centre.copy()
    best = value(theta)
    for _ in range(STEPS):
        gradient, curvature = precision * (centre - theta), np.diag(precision)
        for part, rows, there in terms:
            shares = _shares(rows, there, theta, odds)
            mean = np.einsum("tm,tmp->tp", shares, rows)
            gradient = gradient + count[part] @ (rows[np.arange(len(rows)), label[part]] - mean)
            weighted = (rows * (shares * count[part, None])[:, :, None]).reshape(-1, len(theta))
            curvature = curvature + weighted.T @ rows.reshape(-1, len(theta)) - (mean * count[part, None]).T @ mean
        step, share = np.linalg.solve(curvature, gradient), 1.0
        trial = value(theta + step)
        while trial < best and share > _SMALLEST_SHARE:
            share /= 2
            trial = value(theta + share * step)
        if trial <= best:
            break
        theta = theta + share * step
        gained, best = trial - best, trial
        if gained <= DONE * abs(best):
            break
    return theta


def _vector(confidence: Confidence) -> Float64:
    return np.array([*confidence.slope, *confidence.behind, *confidence.absent])


def _terms(searches: Searches, part: slice) -> tuple[Float64, NDArray[np.bool_]]:
    """What each constant is multiplied by, [T, SHORTLIST + 2, 10], and which outcomes there are [T, SHORTLIST + 2]."""
    near = searches.similarities[part].astype(np.float64)
    sizes, adapted = searches.sizes[part], searches.adapted[part].astype(np.float64)
    there, log_size = np.isfinite(near), np.log(sizes)
    others = there[:, 1:]
    lead = np.where(others, near[:, :1] - near[:, 1:], 0.0)
    count = np.maximum(others.sum(axis=1), 1)
    deviation = np.sqrt(np.maximum(np.square(lead).sum(axis=1) / count - np.square(lead.sum(axis=1) / count), 0.0))
    near = np.where(there, near, 0.0)
    crowd = near[:, 1 : OTHERS + 1].sum(axis=1) / np.maximum(there[:, 1 : OTHERS + 1].sum(axis=1), 1)
    large = sizes > SHORTLIST
    rows = np.zeros((len(near), SHORTLIST + 2, CONSTANTS))
    rows[:, :SHORTLIST, 0] = near
    rows[:, SHORTLIST, 0] = np.where(large, near[:, -1], 0.0)
    rows[:, :, 1] = rows[:, :, 0] * log_size[:, None]
    rows[:, :, 2] = rows[:, :, 0] * adapted[:, None]
    rows[:, SHORTLIST, 3] = large
    rows[:, SHORTLIST, 4] = np.where(large, np.log(np.maximum(sizes - SHORTLIST, 1) / SHORTLIST), 0.0)
    rows[:, SHORTLIST + 1, 5:] = np.stack([np.ones(len(near)), log_size, crowd, deviation, adapted], axis=1)
    return rows, np.concatenate([there, large[:, None], np.ones((len(near), 1), np.bool_)], axis=1)


def _shares(rows: Float64, there: NDArray[np.bool_], theta: Float64, odds: float) -> Float64:
    logits = rows @ theta
    logits[:, -1] += odds
    logits = np.where(there, logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Float64 = weights / weights.sum(axis=1, keepdims=True)
    return shares


def _blocks(count: int) -> list[slice]:
    return [slice(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK)]
