"""Retrieval figures as the field counts them (METHODS A.4): ties count against, a collapsed embedding ranks last."""

from __future__ import annotations

import numpy as np

from fgsbir_edge import ranking
from fgsbir_edge.ranking import rank_of


def accuracy(ranks: np.ndarray, at: int) -> float:
    """Percent of queries whose true photo is among the first `at`. `ranks` [Q] int, best 1."""
    return 100.0 * ranking.accuracy(ranks, at) if len(ranks) else float("nan")


def ranks_of(similarities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Ranks [Q] of `truth` [Q] (column of each row's own photo) by similarities [Q,N] of unit embeddings."""
    return np.array([rank_of(row, own) for row, own in zip(similarities, truth, strict=True)])


def gallery_ranks(queries: np.ndarray, gallery: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Ranks [Q] of `truth` [Q] (index into gallery) for unit embeddings queries [Q,D] and gallery [N,D]."""
    return ranks_of(queries @ gallery.T, truth)


def bootstrap_interval(values: np.ndarray, *, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` [n] under resampling."""
    values = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(values), size=(draws, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
