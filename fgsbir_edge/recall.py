"""What a shortlist misses, measured on a gallery: where the base head has the photos that an adapter finds nearest of all.

With adapters that move photos, ``SearchOptions.shortlist`` M re-ranks the M photos nearest by the base head. A query's recall
at M is the share of its k nearest photos by the adapter that are among these M. Where the base head ranks each of the k is
counted once, with ties against; recall at every M follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.adapt import AdaptOptions
from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import NoPairsError
from fgsbir_edge.gallery.search import PhotoIndex
from fgsbir_edge.gallery.shortlist import Shortlist
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.ranking import rank_of

if TYPE_CHECKING:
    from fgsbir_edge.engine import Engine

MIN_QUERIES = 20  # with fewer, no shortlist is kept: one sketch would decide
MIN_OTHERS = 2  # pairs that an adapter is learned from where one is left out
Z = 1.96  # standard deviations of a 95 % interval
NOISE = 0.2  # of a perturbed copy, in standard deviations of each feature over the sketches


@dataclass(frozen=True)
class RecallOptions:
    """What is measured: recall of the ``k`` nearest, over at most ``limit`` sketches and ``copies`` perturbed ones of each.

    Raises ValueError on values out of range.
    """

    k: int = 10
    wanted: float = 0.99
    copies: int = 0
    limit: int = 500

    def __post_init__(self) -> None:
        if self.k < 1 or self.copies < 0 or self.limit < 1 or not 0.0 < self.wanted <= 1.0:
            raise ValueError(
                f"k is {self.k}, copies {self.copies}, limit {self.limit} and wanted {self.wanted}; "
                "expected at least 1, 0 and 1, and a recall above 0 and at most 1"
            )


@dataclass(frozen=True, eq=False)
class Query:
    """A sketch, features [C], and an adapter that it was not learned from; ``whose`` names the person, or the file."""

    sketch: Float32
    adapter: Adapter
    whose: str


@dataclass(frozen=True)
class Point:
    """Recall at a shortlist's length, and its 95 % interval by the number of queries (Wilson's)."""

    shortlist: int
    recall: float
    low: float
    high: float


@dataclass(frozen=True)
class RecallReport:
    """What was measured. ``chosen`` is the shortest list that reaches the recall that was wanted."""

    photos: int
    k: int
    wanted: float
    queries: int
    copies: int
    adapters: int
    points: tuple[Point, ...]
    chosen: Point

    @property
    def enough(self) -> bool:
        """Whether there were queries enough to keep what was chosen."""
        return self.queries >= MIN_QUERIES

    def shortlist(self, head: Head) -> Shortlist:
        """What a gallery keeps of it. Raises NoPairsError where there were too few queries."""
        if not self.enough:
            raise NoPairsError(
                f"{self.queries} searches are too few to choose a shortlist by, {MIN_QUERIES} are needed; "
                "add sketches with --sketch, or come back when people have shown more"
            )
        return Shortlist(head.digest, self.chosen.shortlist, self.photos, self.wanted, self.k)


def stored_queries(engine: Engine, people: Sequence[str] | None = None, limit: int = RecallOptions.limit) -> list[Query]:
    """Every sketch that people (None: all) have shown, with the adapter learned from their other sketches.

    Left out are people with too few pairs, and adapters that move no photos. At most ``limit``, drawn at random but always
    alike. Raises UnknownPersonError.
    """
    gallery, queries = engine.gallery, []
    names = gallery.people.names() if people is None else list(people)
    pairs = [(name, number) for name in names for number in range(len(gallery.people.shown(name)))]
    order = np.random.default_rng(0).permutation(len(pairs))[:limit]
    for name, number in (pairs[place] for place in np.sort(order)):
        shown = gallery.people.shown(name)
        others = [place for place in range(len(shown)) if place != number]
        if len(others) < MIN_OTHERS:
            continue
        photos = gallery.features([shown.photos[place] for place in others])
        adapter = engine.adapt_features(shown.sketches[others], photos, options=AdaptOptions(guard=False)).adapter
        if adapter.moves("photo"):
            queries.append(Query(shown.sketches[number], adapter, name))
    return queries


def sketches_of_people(engine: Engine, people: Sequence[str] | None = None) -> Float32:
    """Features [n, C] of every sketch that people (None: all) have shown. Raises UnknownPersonError."""
    known = engine.gallery.people
    rows = [known.shown(name).sketches for name in (known.names() if people is None else people)]
    return np.concatenate([np.empty((0, engine.head.features), np.float32), *rows])


def measure(
    index: PhotoIndex, head: Head, queries: Sequence[Query], options: RecallOptions, lengths: Iterable[int] = ()
) -> RecallReport:
    """Recall over queries, whose adapters must move photos, at ``lengths`` (none: 10, 30, 100, ... up to all photos).

    Raises NoPairsError (no query), EmptyGalleryError (no photos).
    """
    index.select(None)
    if not queries:
        raise NoPairsError(
            "no sketch with an adapter that moves photos: give an --adapter of side 'both' and sketches, or let people show some "
            "('fgsbir-edge feedback'); where adapters move sketches alone, no shortlist is used and nothing is missed"
        )
    total, k = len(index.entries), min(options.k, len(index.entries))
    ranks = np.concatenate([_base_ranks(index, head, query, copies, k) for query, copies in _copied(queries, options)])
    order = np.sort(ranks, axis=None)
    needed = int(order[math.ceil(options.wanted * len(order) - 1e-9) - 1])
    chosen = _points(ranks, [max(needed, k)], len(queries))[0]
    wanted = sorted({length for length in lengths or _ladder(total) if 1 <= length <= total})
    adapters = len({query.adapter.digest for query in queries})
    points = tuple(_points(ranks, wanted, len(queries)))
    return RecallReport(total, k, options.wanted, len(queries), options.copies, adapters, points, chosen)


def _copied(queries: Sequence[Query], options: RecallOptions) -> Iterable[tuple[Query, Float32]]:
    """Each query with its sketch and perturbed copies of it, [1 + copies, C]."""
    spread = np.std([query.sketch for query in queries], axis=0)
    rng = np.random.default_rng(0)
    for query in queries:
        noise = rng.normal(size=(options.copies, len(query.sketch))) * (NOISE * spread)
        yield query, np.concatenate([query.sketch[None], query.sketch + noise.astype(np.float32)])


def _base_ranks(index: PhotoIndex, head: Head, query: Query, sketches: Float32, k: int) -> NDArray[np.int64]:
    """Ranks by the base head of the k photos that the adapter finds nearest to each sketch: [B, k]."""
    exact = PhotoIndex.exactly(index).search(sketches, k, head=head, adapter=query.adapter)
    photos = index.embeddings(head)
    ranks = np.empty((len(sketches), k), np.int64)
    for row, sketch, hits in zip(ranks, head.embed(sketches), exact, strict=True):
        similarities = photos @ sketch
        row[:] = [rank_of(similarities, index.positions[hit.name]) for hit in hits]
    return ranks


def _points(ranks: NDArray[np.int64], lengths: Iterable[int], queries: int) -> list[Point]:
    """Recall and its interval; copies of a sketch say little more than the sketch itself: only queries count."""
    points = []
    for length in lengths:
        share = float(np.mean(ranks <= length))
        centre = (share + Z * Z / (2 * queries)) / (1 + Z * Z / queries)
        half = Z / (1 + Z * Z / queries) * math.sqrt(share * (1 - share) / queries + Z * Z / (4 * queries * queries))
        points.append(Point(length, share, max(0.0, centre - half), min(1.0, centre + half)))
    return points


def _ladder(total: int) -> list[int]:
    """10, 30, 100, 300 and so on below ``total``, and that itself."""
    steps = [base * 10**power for power in range(1, 8) for base in (1, 3)]
    return [*(step for step in steps if step < total), total]
