"""What margin is best for a task, and what margin the network predicts for it: the poster's figure (METHODS C.5).

For every task, episodes are adapted by the device's own code with each margin of a grid over 0..1 and, where the head has a
margin network, with the margin that it predicts; the guard is off. Everything compared runs on the same episodes.

A margin searched on the queries that judge it looks better than it is. "crossed" figures are free of that: the draws are halved,
the margin is searched on one half and judged on the other, both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.stats import spearmanr

from fgsbir_edge.adapt import AdaptOptions, adapt
from fgsbir_edge.head import Head
from training.config import ConfigError
from training.episodes import Episode, draw
from training.episodic.held_back import Features, TaskSource
from training.metrics import accuracy, bootstrap_interval, gallery_ranks

NEAR = 1.0  # standard errors, of the difference over draws, within which a margin counts as good as the best


@dataclass(frozen=True)
class MarginCurveConfig:
    """The command's configuration.

    Args:
        sources: where tasks come from.
        k: support pairs; draws: episodes a task, two or more; seed: of episodes.
        points: margins of the grid over 0..1, ends included.
        steps, side, negatives: of the inner loop; None: what the head was trained with.
        threads: of the encoder.
    """

    sources: tuple[TaskSource, ...]
    k: int = 5
    draws: int = 10
    seed: int = 0
    points: int = 21
    steps: int | None = None
    side: Literal["sketch", "both"] | None = None
    negatives: Literal["support", "gallery"] | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.k < 1 or self.draws < 2 or self.points < 2:
            raise ConfigError(f"k {self.k}, draws {self.draws} and points {self.points}: expected at least 1, 2 and 2")
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ConfigError("sources: expected one or more, each with a name of its own")

    @property
    def grid(self) -> np.ndarray:
        """Margins [M]."""
        return np.linspace(0.0, 1.0, self.points)


@dataclass(frozen=True, eq=False)
class Curve:
    """Acc@1 in percent of one task.

    Args:
        by_margin: [M, draws], over the grid.
        before: [draws], not adapted.
        predicted: [draws], adapted with the predicted margin; and `margins` [draws] those margins. Empty without a network.
    """

    name: str
    by_margin: np.ndarray
    before: np.ndarray
    predicted: np.ndarray = field(default_factory=lambda: np.empty(0))
    margins: np.ndarray = field(default_factory=lambda: np.empty(0))


def measure(head: Head, features: Features, config: MarginCurveConfig) -> list[Curve]:
    """The curve of every task."""
    return [_curve(head, features, config, number) for number in range(len(features.tasks))]


def _curve(head: Head, features: Features, config: MarginCurveConfig, number: int) -> Curve:
    task = features.tasks[number]
    asked: list[float | None] = [*config.grid.tolist(), *([None] if head.margin_net is not None else [])]
    found, before = np.zeros((len(asked), config.draws)), np.zeros(config.draws)
    margins = []
    for turn in range(config.draws):
        episode = draw(task, config.k, np.random.default_rng([config.seed, number, turn]))
        gallery = features.photos[task.gallery]
        queries, truth = features.sketches[task.sketches[episode.query]], task.truth[episode.query]
        before[turn] = accuracy(gallery_ranks(head.embed(queries), head.embed(gallery), truth), 1)
        for row, margin in enumerate(asked):
            found[row, turn], used = _adapted(head, features, episode, _options(config, margin))
            if margin is None:
                margins.append(used)
    count = config.points
    return Curve(task.name, found[:count], before, found[count:].reshape(-1), np.array(margins))


def _options(config: MarginCurveConfig, margin: float | None) -> AdaptOptions:
    return AdaptOptions(steps=config.steps, margin=margin, side=config.side, negatives=config.negatives, guard=False)


def _adapted(head: Head, features: Features, episode: Episode, options: AdaptOptions) -> tuple[float, float]:
    """Acc@1 of the queries after adapting, and the margin used (NaN where the support gives no triplet)."""
    task = episode.task
    gallery, truth = features.photos[task.gallery], task.truth[episode.support]
    others = np.delete(gallery, np.unique(truth), axis=0)
    support = features.sketches[task.sketches[episode.support]]
    result = adapt(head, support, gallery[truth], negatives_features=others, options=options)
    queries = result.adapter.embed(head, features.sketches[task.sketches[episode.query]], "sketch")
    ranks = gallery_ranks(queries, result.adapter.embed(head, gallery, "photo"), task.truth[episode.query])
    return accuracy(ranks, 1), np.nan if result.margin is None else result.margin


def summarise(curves: Sequence[Curve], grid: np.ndarray) -> dict[str, Any]:
    """Figures of a set of tasks, fit for JSON: every task's, means over tasks, and paired differences with 95 % intervals.

    "fixed" is the one margin of the grid that is best for all tasks together. Differences with "crossed" compare margins judged
    on draws that they were not chosen on. "rank_correlation" is Spearman's, of predicted with searched margins; None below four
    tasks.
    """
    by_task = {curve.name: _task(curve, grid) for curve in curves}
    fixed = _best(np.mean([curve.by_margin.mean(axis=1) for curve in curves], axis=0))
    crossed = _crossed(curves)
    columns = {
        "before": np.array([curve.before.mean() for curve in curves]),
        "fixed": np.array([curve.by_margin[fixed].mean() for curve in curves]),
        "searched": np.array([entry["searched"]["acc@1"] for entry in by_task.values()]),
        **crossed,
    }
    if all(len(curve.predicted) for curve in curves):
        columns["predicted"] = np.array([curve.predicted.mean() for curve in curves])
    pairs = [("predicted", "before"), ("predicted", "fixed crossed"), ("searched crossed", "predicted")]
    pairs.append(("searched crossed", "fixed crossed"))
    differences = {
        f"{one} - {other}": _mean(columns[one] - columns[other]) for one, other in pairs if one in columns and other in columns
    }
    return {
        "tasks": len(curves),
        "grid": [round(float(margin), 4) for margin in grid],
        "fixed_margin": round(float(grid[fixed]), 4),
        "acc@1": {name: _mean(values) for name, values in columns.items()},
        "differences": differences,
        "rank_correlation": _correlation(curves, by_task),
        "by_task": by_task,
    }


def _task(curve: Curve, grid: np.ndarray) -> dict[str, Any]:
    means = curve.by_margin.mean(axis=1)
    best = _best(means)
    errors = (curve.by_margin - curve.by_margin[best]).std(axis=1, ddof=1) / np.sqrt(curve.by_margin.shape[1])
    good = grid[means >= means[best] - NEAR * errors - 1e-9]
    entry: dict[str, Any] = {
        "before": round(float(curve.before.mean()), 3),
        "curve": [round(float(mean), 3) for mean in means],
        "searched": {
            "margin": round(float(grid[best]), 4),
            "acc@1": round(float(means[best]), 3),
            "as_good": [round(float(good.min()), 4), round(float(good.max()), 4)],
        },
    }
    if len(curve.predicted):
        margins = curve.margins[np.isfinite(curve.margins)]
        spread = [round(float(value), 4) for value in (margins.min(), margins.max())] if len(margins) else None
        middle = round(float(margins.mean()), 4) if len(margins) else None
        entry["predicted"] = {"margin": middle, "range": spread, "acc@1": round(float(curve.predicted.mean()), 3)}
    return entry


def _best(means: np.ndarray) -> int:
    """Where a curve is highest; the middle one of several equal places, since a hinge far from every triplet is flat."""
    places = np.flatnonzero(means >= means.max() - 1e-9)
    return int(places[len(places) // 2])


def _crossed(curves: Sequence[Curve]) -> dict[str, np.ndarray]:
    """Acc@1 [tasks] of margins chosen on half of the draws and judged on the other half: one a task, and one for all tasks."""
    searched, fixed = np.zeros(len(curves)), np.zeros(len(curves))
    for half in (0, 1):
        choose = [curve.by_margin[:, half::2].mean(axis=1) for curve in curves]
        judge = [curve.by_margin[:, 1 - half :: 2].mean(axis=1) for curve in curves]
        common = _best(np.mean(choose, axis=0))
        searched += [judged[_best(chosen)] / 2 for chosen, judged in zip(choose, judge, strict=True)]
        fixed += [judged[common] / 2 for judged in judge]
    return {"searched crossed": searched, "fixed crossed": fixed}


def _mean(values: np.ndarray) -> dict[str, Any]:
    interval = [round(bound, 3) + 0.0 for bound in bootstrap_interval(values)] if len(values) > 1 else None  # + 0.0: no -0.0
    return {"mean": round(float(values.mean()), 3) + 0.0, "interval": interval}


def _correlation(curves: Sequence[Curve], by_task: dict[str, dict[str, Any]]) -> float | None:
    if len(curves) < 4 or not all(entry.get("predicted", {}).get("margin") is not None for entry in by_task.values()):
        return None
    searched, predicted = ([entry[kind]["margin"] for entry in by_task.values()] for kind in ("searched", "predicted"))
    if len(set(searched)) < 2 or len(set(predicted)) < 2:
        return None
    return round(float(spearmanr(searched, predicted).statistic), 3)
