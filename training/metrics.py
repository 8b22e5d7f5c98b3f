"""Retrieval figures as the field counts them (METHODS A.4): ties count against, a collapsed embedding ranks last.

For a query q whose gallery holds N photos, r is the number of photos that are not farther than the true one (itself included).

    Acc@K            share of queries with r <= K, in percent
    percentile rank  100 (N - r) / (N - 1): how many percent of the other photos are farther; not defined for N = 1
    reciprocal rank  1 / r
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fgsbir_edge import ranking
from fgsbir_edge.ranking import rank_of

BLOCK = 1 << 22  # similarities, or resampled counts, held at a time: 16 MB as float32
LEVEL = 95.0  # percent of all bootstrap intervals


def accuracy(ranks: np.ndarray, at: int) -> float:
    """Percent of queries whose true photo is among the first `at`. `ranks` [Q] int, best 1."""
    return 100.0 * ranking.accuracy(ranks, at) if len(ranks) else float("nan")


def percentile_ranks(ranks: np.ndarray, galleries: ArrayLike) -> np.ndarray:
    """100 (N - r) / (N - 1) for ranks r [Q] in galleries of N [Q] (or one number) photos: float64 [Q] in 0..100.

    100 is the first place, 0 the last. NaN where N is 1: there is no other photo that could be farther.
    """
    sizes = np.broadcast_to(np.asarray(galleries, dtype=np.float64), np.shape(ranks))
    others = np.where(sizes > 1, sizes - 1, np.nan)
    percentiles: np.ndarray = 100.0 * (sizes - ranks) / others
    return percentiles


def ranks_of(similarities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Ranks [Q] of `truth` [Q] (column of each row's own photo) by similarities [Q,N] of unit embeddings."""
    return np.array([rank_of(row, own) for row, own in zip(similarities, truth, strict=True)], dtype=np.int64)


def gallery_ranks(queries: np.ndarray, gallery: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Ranks [Q] of `truth` [Q] (index into gallery) for unit embeddings queries [Q,D] and gallery [N,D]."""
    parts = [ranks_of(queries[part] @ gallery.T, truth[part]) for part in blocks(len(queries), len(gallery))]
    return np.concatenate([np.empty(0, np.int64), *parts])


def blocks(rows: int, columns: int) -> list[slice]:
    """Slices over `rows` such that each block of rows x columns numbers stays within BLOCK (and has at least one row)."""
    step = max(1, BLOCK // max(1, columns))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def bootstrap_interval(values: np.ndarray, *, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` [n], each resampled on its own."""
    low, high = bootstrap_intervals(np.asarray(values)[:, None], np.arange(len(values)), draws=draws, seed=seed)[0]
    return float(low), float(high)


def bootstrap_intervals(values: np.ndarray, clusters: np.ndarray, *, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """95 % percentile intervals [F,2] of the column means of `values` [n,F] when whole clusters are resampled.

    Rows with the same number in `clusters` [n] (int, from 0 without gaps) are drawn together: sketches of one photo share what
    makes that photo easy or hard, so that resampling them one by one would give intervals that are too narrow. The statistic is
    the mean over all rows drawn, however many those are; NaN in `values` is a row that does not count in that column.
    """
    values = np.asarray(values, dtype=np.float64)
    count = int(clusters.max()) + 1
    known = np.isfinite(values)
    sums, sizes = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, clusters, np.where(known, values, 0.0))
    np.add.at(sizes, clusters, known)
    rng = np.random.default_rng(seed)
    means = np.full((draws, values.shape[1]), np.nan)
    for part in blocks(draws, count):
        turns = part.stop - part.start
        picks = rng.integers(0, count, size=(turns, count)) + count * np.arange(turns)[:, None]
        times = np.bincount(picks.ravel(), minlength=turns * count).reshape(turns, count).astype(np.float64)
        drawn = times @ sizes
        np.divide(times @ sums, drawn, out=means[part], where=drawn > 0)
    tail = (100.0 - LEVEL) / 2
    intervals = np.full((values.shape[1], 2), np.nan)
    for column in np.flatnonzero(np.isfinite(means).any(axis=0)):
        intervals[column] = np.nanpercentile(means[:, column], (tail, 100.0 - tail))
    return intervals
