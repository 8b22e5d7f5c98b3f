"""Retrieval figures as the field counts them (METHODS A.4): ties count against, a collapsed embedding ranks last."""

from __future__ import annotations

import numpy as np


def accuracy(ranks: np.ndarray, at: int) -> float:
    """Percent of queries whose true photo is among the first `at`. `ranks` [Q] int, best 1."""
    return 100.0 * float(np.mean(np.asarray(ranks) <= at)) if len(ranks) else float("nan")


def gallery_ranks(queries: np.ndarray, gallery: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Ranks [Q] of `truth` [Q] (index into gallery) for unit embeddings queries [Q,D] and gallery [N,D]."""
    distances = np.sqrt(np.maximum(2.0 - 2.0 * queries @ gallery.T, 0.0))
    own = distances[np.arange(len(truth)), truth]
    return np.count_nonzero(~(distances > own[:, None]), axis=1)  # NaN counts against, as in fgsbir_edge.ranking


def bootstrap_interval(values: np.ndarray, *, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` [n] under resampling."""
    values = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(values), size=(draws, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
