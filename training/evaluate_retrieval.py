"""Every sketch of a table searched in its gallery, and the figures of that (METHODS A.4; definitions in metrics.py)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from training.data.folder import Pair
from training.evaluate_table import Table
from training.evaluation import Group, search_groups
from training.metrics import LEVEL, accuracy, blocks, bootstrap_intervals, percentile_ranks, ranks_of

AT = (1, 5, 10)
Unit = Literal["photo", "query"]


@dataclass(frozen=True)
class Bootstrap:
    """Where intervals come from: `draws` resamples of whole photos with all their sketches, or of single queries."""

    unit: Unit = "photo"
    draws: int = 2000
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"resamples": self.unit, "draws": self.draws, "level": LEVEL, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class Ranking:
    """How the queries [Q] fared.

    Args:
        pairs: the queries.
        ranks: [Q] int64, from 1.
        galleries: [Q] int64, photos that were searched.
        similarity: [Q] float32, cosine of sketch and true photo.
        wrong: nearest other photo of each query; "" where the gallery has no other.
        wrong_similarity: [Q] float32, cosine to it; NaN where there is none.
    """

    pairs: tuple[Pair, ...]
    ranks: np.ndarray
    galleries: np.ndarray
    similarity: np.ndarray
    wrong: tuple[str, ...]
    wrong_similarity: np.ndarray

    @property
    def percentiles(self) -> np.ndarray:
        """Percentile rank [Q] float64 in 0..100; NaN where the gallery is one photo."""
        return percentile_ranks(self.ranks, self.galleries)

    @property
    def margins(self) -> np.ndarray:
        """Similarity to the true photo less that to the nearest other one [Q]; NaN where there is none."""
        margins: np.ndarray = self.similarity - self.wrong_similarity
        return margins


@dataclass(frozen=True, eq=False)
class Search:
    """The embeddings of a table: `sketches` [Q,D] in the order of its pairs, `photos` [N,D] in that of its photos; unit rows."""

    table: Table
    sketches: np.ndarray
    photos: np.ndarray

    @cached_property
    def groups(self) -> list[Group]:
        """Which queries are searched in which gallery."""
        table = self.table
        return search_groups(table.folder, table.pairs, table.photos, per_category=table.per_category)

    @cached_property
    def ranking(self) -> Ranking:
        """Every query ranked."""
        count = len(self.table.pairs)
        ranks, galleries = np.zeros(count, np.int64), np.zeros(count, np.int64)
        similarity, wrong_similarity = np.zeros(count, np.float32), np.full(count, np.nan, np.float32)
        wrong = [""] * count
        for group in self.groups:
            gallery = self.photos[group.photos]
            galleries[group.queries] = len(gallery)
            for part in blocks(len(group.queries), len(gallery)):
                queries, truth = group.queries[part], group.truth[part]
                scores = self.sketches[queries] @ gallery.T
                rows = np.arange(len(queries))
                ranks[queries], similarity[queries] = ranks_of(scores, truth), scores[rows, truth]
                if len(gallery) == 1:
                    continue
                scores[rows, truth] = -np.inf
                nearest = np.argmax(np.where(np.isnan(scores), np.finfo(np.float32).min, scores), axis=1)
                wrong_similarity[queries] = scores[rows, nearest]
                for query, position in zip(queries.tolist(), nearest.tolist(), strict=True):
                    wrong[query] = self.table.photos[group.photos[position]]
        return Ranking(self.table.pairs, ranks, galleries, similarity, tuple(wrong), wrong_similarity)

    def nearest(self, query: int, count: int) -> list[tuple[str, float]]:
        """The first `count` photos of a query with their similarities; the true photo behind all that tie with it."""
        group = next(group for group in self.groups if query in group.queries)
        own = int(group.truth[int(np.flatnonzero(group.queries == query)[0])])
        scores = self.photos[group.photos] @ self.sketches[query]
        order = np.argsort(-np.where(np.isnan(scores), np.inf, scores), kind="stable")
        order = np.insert(order[order != own], int(self.ranking.ranks[query]) - 1, own)
        return [(self.table.photos[group.photos[place]], float(scores[place])) for place in order[:count]]


def exact_figures(ranks: np.ndarray, galleries: np.ndarray | int) -> dict[str, float]:
    """Means of ranks [Q] in galleries [Q] (or all of one size), not rounded; the percentile is NaN where it is not defined."""
    percentiles = percentile_ranks(ranks, galleries)
    known = percentiles[np.isfinite(percentiles)]
    figures = {f"acc@{at}": accuracy(ranks, at) for at in AT}
    figures["mean_percentile"] = float(known.mean()) if len(known) else float("nan")
    return figures | {"mean_reciprocal_rank": float(np.mean(1.0 / ranks))}


def figures_of(
    ranks: np.ndarray, galleries: np.ndarray | int, photos: list[str] | None = None, bootstrap: Bootstrap | None = None
) -> dict[str, Any]:
    """Figures of ranks [Q] in galleries [Q] (or all of one size): percentages, ranks, and 95 % intervals as [low, high].

    `photos` [Q] names the true photo of each query; without it queries are resampled. An interval is None where there are fewer
    than two photos (queries) to resample, the percentile and its interval where every gallery is one photo.
    """
    bootstrap = bootstrap or Bootstrap()
    columns = {f"acc@{at}": 100.0 * (ranks <= at) for at in AT} | {"mean_percentile": percentile_ranks(ranks, galleries)}
    units = np.arange(len(ranks)) if photos is None or bootstrap.unit == "query" else np.unique(photos, return_inverse=True)[1]
    intervals = np.full((len(columns), 2), np.nan)
    if units.max() > 0:
        intervals = bootstrap_intervals(np.stack(list(columns.values()), 1), units, draws=bootstrap.draws, seed=bootstrap.seed)
    result = {"queries": len(ranks), **_rounded(exact_figures(ranks, galleries)), "median_rank": float(np.median(ranks))}
    for name, (low, high) in zip(columns, intervals.tolist(), strict=True):
        result[f"{name}_interval"] = [round(low, 2), round(high, 2)] if np.isfinite(low) else None
    return result


def _rounded(figures: dict[str, float]) -> dict[str, Any]:
    """For JSON: percentages to 0.01, the reciprocal rank (0..1) to 0.0001, None for what is not defined."""
    places = {name: 4 if name == "mean_reciprocal_rank" else 2 for name in figures}
    return {name: round(value, places[name]) if np.isfinite(value) else None for name, value in figures.items()}


def retrieval(search: Search, bootstrap: Bootstrap) -> dict[str, Any]:
    """Figures over all queries (micro average); where there are several categories or users, of each and their means (macro)."""
    ranking, table = search.ranking, search.table
    photos = np.array([pair.photo for pair in ranking.pairs])
    sizes = [len(group.photos) for group in search.groups]
    result: dict[str, Any] = {
        "gallery": len(table.photos),
        "galleries": {
            "per": "category" if table.per_category else "all",
            "count": len(sizes),
            "smallest": min(sizes),
            "largest": max(sizes),
        },
        "photos_drawn": len(set(photos.tolist())),
        **figures_of(ranking.ranks, ranking.galleries, photos.tolist(), bootstrap),
        "single_photo_queries": int(np.sum(ranking.galleries == 1)),
        "bootstrap": bootstrap.to_json(),
    }
    for key in ("category", "user"):
        values = np.array([getattr(pair, key) for pair in ranking.pairs])
        names = sorted(set(values.tolist()))
        if len(names) > 1:
            groups = [values == name for name in names]
            result[f"mean_by_{key}"] = macro_average([exact_figures(ranking.ranks[at], ranking.galleries[at]) for at in groups])
            result[f"by_{key}"] = {
                name: figures_of(ranking.ranks[at], ranking.galleries[at], photos[at].tolist(), bootstrap)
                for name, at in zip(names, groups, strict=True)
            }
    return result


def macro_average(groups: list[dict[str, float]]) -> dict[str, Any]:
    """Plain means over groups of their figures, every group counting alike; percentiles over the groups that have one."""
    columns = {name: np.array([group[name] for group in groups]) for name in groups[0]}
    known = {name: values[np.isfinite(values)] for name, values in columns.items()}
    means = {name: float(values.mean()) if len(values) else float("nan") for name, values in known.items()}
    return {"groups": len(groups), **_rounded(means)}
