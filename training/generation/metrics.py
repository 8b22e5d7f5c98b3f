"""How good generated sketches are (METHODS B.10): are they recognised, and are they distributed as people's sketches are.

Retrieval by a generated sketch needs nothing of its own: its figures are training/evaluate_retrieval.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import NonFiniteError, ShapeError
from training.evaluate_retrieval import Bootstrap, figures_of

HALVES = 20  # random halvings of the real sketches
MISTAKES = 5  # wrong categories that are named
FEW = 2048  # sketches a side; below, the bias of the Frechet distance is of the size of what it is to show

FloatArray = NDArray[np.floating[Any]]


def frechet_distance(first: FloatArray, second: FloatArray) -> float:
    """Squared Frechet distance of two Gaussians fitted to rows [N,C] and [M,C]: FID (Heusel et al., NeurIPS 2017).

        |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)),  m the means, S the covariances (divided by N - 1)

    With centred rows X, Y over the square root of their counts less one, S1 S2 has the eigenvalues of (X Y') (X Y')', so that
    the trace of the root is the sum of the singular values of X Y'. That needs no root of a matrix, which fails or turns complex
    where there are fewer rows than columns.

    Raises:
        ShapeError: not two matrices of the same width, or fewer than two rows in one.
        NonFiniteError: NaN or infinity among the rows.
    """
    rows = [np.asarray(part, dtype=np.float64) for part in (first, second)]
    if any(part.ndim != 2 or len(part) < 2 for part in rows) or rows[0].shape[1] != rows[1].shape[1]:
        shapes = " and ".join(str(list(part.shape)) for part in rows)
        raise ShapeError(f"features are {shapes}, expected [N,C] and [M,C] with two rows at least; draw more sketches")
    if not all(np.isfinite(part).all() for part in rows):
        raise NonFiniteError("features hold NaN or infinity: the classifier's weights are damaged, train it again")
    roots = [(part - part.mean(0)) / np.sqrt(len(part) - 1) for part in rows]
    spread = sum(float(np.sum(root**2)) for root in roots)
    left, right = (_triangle(root) for root in roots)
    shared = float(np.linalg.norm(left @ right.T, "nuc"))
    apart = float(np.sum((rows[0].mean(0) - rows[1].mean(0)) ** 2))
    return max(0.0, apart + spread - 2.0 * shared)


def _triangle(root: FloatArray) -> FloatArray:
    """A matrix of at most C rows with the same product R'R as `root` [N,C]."""
    if len(root) <= root.shape[1]:
        return root
    upper: Any = np.linalg.qr(root, mode="r")
    return np.asarray(upper)


def half_distance(rows: FloatArray, seed: int = 0) -> float:
    """Mean Frechet distance of random halves of rows [N,C]: what the same source gives by sampling alone, at N/2 a side.

    Raises ShapeError for fewer than four rows.
    """
    if len(rows) < 4:
        raise ShapeError(f"{len(rows)} real sketches are too few to halve, expected 4 or more; take a larger split")
    rng = np.random.default_rng(seed)
    half = len(rows) // 2
    orders = [rng.permutation(len(rows)) for _ in range(HALVES)]
    return float(np.mean([frechet_distance(rows[order[:half]], rows[order[half : 2 * half]]) for order in orders]))


def distance_figures(real: FloatArray, drawn: FloatArray, seed: int = 0) -> dict[str, Any]:
    """FID of drawn [M,C] to real [N,C] features for JSON, with what a reader needs to judge it.

    The distance is biased upwards, the more the fewer the sketches: only figures of equal counts and one classifier compare, and
    no resampling gives an interval (a resample repeats rows, which adds to the bias). `fid_real_halves` is the distance of real
    sketches to real ones at half their number. Raises what :func:`frechet_distance` does.
    """
    result: dict[str, Any] = {
        "fid": round(frechet_distance(real, drawn), 4),
        "fid_real_halves": round(half_distance(real, seed), 4),
        "real": len(real),
        "drawn": len(drawn),
        "dimensions": real.shape[1],
    }
    if min(len(real), len(drawn)) < FEW:
        result["note"] = (
            f"fewer than {FEW} sketches a side: biased upwards; compare at equal counts and with the same classifier only"
        )
    return result


def class_ranks(logits: FloatArray, truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank [N] of the true category `truth` [N] by logits [N,K], best 1; ties and NaN count against."""
    own = logits[np.arange(len(logits)), truth][:, None]
    ranks: NDArray[np.int64] = np.count_nonzero(~(logits < own), axis=1)
    return ranks


def recognition_figures(
    logits: FloatArray, truth: Sequence[str], categories: Sequence[str], photos: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Whether sketches are recognised as what they show, for JSON: acc@1, 5, 10 with 95 % intervals over photos.

    `mean_by_category` counts every category alike, `taken_for` names the commonest wrong answers in percent of all.

    Args:
        logits: [N,K], a column for each of `categories`.
        truth: [N] the true categories, all among `categories`.
        photos: [N] what was drawn.
    """
    position = {name: index for index, name in enumerate(categories)}
    ranks = class_ranks(logits, np.array([position[name] for name in truth], dtype=np.int64))
    figures = figures_of(ranks, len(categories), list(photos), bootstrap)
    wrong = Counter(categories[index] for index in np.argmax(logits, axis=1)[ranks > 1].tolist())
    names = sorted(wrong, key=lambda name: (-wrong[name], name))[:MISTAKES]
    shown = np.array(truth)
    groups = [100.0 * float(np.mean(ranks[shown == name] == 1)) for name in sorted(set(truth))]
    return {
        "sketches": figures.pop("queries"),
        "categories": len(categories),
        **{name: value for name, value in figures.items() if name.startswith("acc@")},
        "mean_by_category": {"categories": len(groups), "acc@1": round(float(np.mean(groups)), 2)},
        "taken_for": {name: round(100.0 * wrong[name] / len(logits), 2) for name in names},
    }
