"""How answers are scored: rank with ties against, Acc@K and mean rank (METHODS A.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32

TIE = 1e-6  # similarities this close are equal: the same photo stored twice differs by float32 rounding


def rank_of(similarities: Float32, own: int) -> int:
    """Rank of candidate ``own`` among N photos by inner products [N] of unit vectors: how many are not farther; the best is 1.

    Ties count against, and so does NaN: written as "not farther", since every comparison with NaN is false.
    """
    return int(np.count_nonzero(~(similarities < similarities[own] - TIE)))


def accuracy(ranks: Sequence[int] | NDArray[np.int64], k: int) -> float:
    """Acc@k: the share of ranks [B] that are at most k, in [0, 1]. Raises ValueError on no ranks."""
    if len(ranks) == 0:
        raise ValueError("accuracy of no ranks is undefined")
    return float(np.mean(np.asarray(ranks) <= k))


def summary(ranks: Sequence[int] | NDArray[np.int64]) -> dict[str, float]:
    """Acc@1, Acc@5 and mean rank of ranks [B], under the names that ``--json`` prints."""
    return {"acc@1": accuracy(ranks, 1), "acc@5": accuracy(ranks, 5), "mean_rank": float(np.mean(np.asarray(ranks)))}
