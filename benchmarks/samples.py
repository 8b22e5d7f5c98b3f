"""Samples of time to figures: percentiles, and ratios with bootstrap intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000


def summary(samples: ArrayLike) -> dict[str, Any]:
    """Figures of ``samples`` [rounds, calls] (or [rounds]): median, minimum, tails, the best, and the median of each round.

    The tails are over single calls. The best is the mean over calls of each call's shortest round: where call n of every round
    does the same work, that is the work as it goes when nobody disturbs it. Ratios are taken from the medians of the rounds, so
    that a round in which the machine was busy counts once. Raises ValueError without samples.
    """
    table = np.asarray(samples, dtype=np.float64)
    if table.size == 0:
        raise ValueError("no samples to summarise: at least one round of one call is needed")
    p05, median, p90, p95, p99 = np.percentile(table, (5, 50, 90, 95, 99))
    by_round = table.reshape(len(table), -1)
    rounds, best = np.median(by_round, axis=1), by_round.min(axis=0).mean()
    figures = {"median": median, "min": table.min(), "p05": p05, "p90": p90, "p95": p95, "p99": p99, "best": best}
    return {
        **{name: significant(value) for name, value in figures.items()},
        "calls": int(table.size),
        "rounds": [significant(value) for value in rounds],
    }


def significant(value: float, digits: int = 5) -> float:
    """``value`` rounded to so many significant digits: what a timer says beyond them is noise and fills files."""
    return float(f"{value:.{digits}g}")


def ratio(above: ArrayLike, below: ArrayLike, *, paired: bool, seed: int = 0) -> tuple[float, float, float]:
    """Median of ``above`` [n] over median of ``below`` [m], with the 95 % bootstrap interval (ratio, low, high).

    paired: entry i of both was measured in the same round (n = m), so rounds are resampled whole; otherwise, as between two runs,
    each side by itself. Raises ValueError when a side is empty, or when paired sides differ in length.
    """
    a, b = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    if a.size == 0 or b.size == 0 or (paired and a.size != b.size):
        raise ValueError(f"cannot compare {a.size} rounds with {b.size}: expected at least one each, and as many if paired")
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, a.size, (RESAMPLES, a.size))
    others = rows if paired else rng.integers(0, b.size, (RESAMPLES, b.size))
    resampled = np.median(a[rows], axis=1) / np.median(b[others], axis=1)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(np.median(a) / np.median(b)), float(low), float(high)


def spread(values: NDArray[np.float64]) -> float:
    """Distance between the 5th and the 95th percentile over the median: how noisy a set of samples is."""
    p05, median, p95 = np.percentile(values, (5, 50, 95))
    return float((p95 - p05) / median)
