"""Searches as they may happen: galleries of many sizes and kinds, with the photo that is meant and without it.

A gallery is drawn anew for every search. A third are photos of one category, a third are drawn from all photos, a third hold all
photos of the category and some of the others. Sizes are spread evenly on a logarithmic scale from SMALLEST to what there is; the
photo that is meant is left out of half of them, and the other photos stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgsbir_edge.adapt import adapt
from fgsbir_edge.arrays import Float32
from fgsbir_edge.confidence import SHORTLIST
from fgsbir_edge.confidence_fit import ABSENT, BEHIND, Searches, padded
from fgsbir_edge.head import Adapter
from training import episodes
from training.confidence.data import Domain
from training.episodes import Task, gives

SMALLEST = 2
SUPPORTS = (1, 3, 5, 10)  # pairs that are adapted on
ABSENT_SHARE = 0.5
Found = tuple[Float32, int, int]  # a row of Searches: similarities, size, place


@dataclass(frozen=True, eq=False)
class Trials:
    """T searches, the pairs that each was adapted on [T] (0: none), and its unit and domain [T] str."""

    searches: Searches
    pairs: np.ndarray
    units: np.ndarray
    domains: np.ndarray

    def __len__(self) -> int:
        return len(self.searches)

    def part(self, which: np.ndarray) -> Trials:
        """Those of a mask or of indices."""
        one = self.searches
        rows = Searches(one.similarities[which], one.sizes[which], one.places[which], one.adapted[which])
        return Trials(rows, self.pairs[which], self.units[which], self.domains[which])

    @classmethod
    def joined(cls, parts: list[Trials]) -> Trials:
        """All of several."""
        fields = ("similarities", "sizes", "places", "adapted")
        searches = Searches(*(np.concatenate([getattr(part.searches, name) for part in parts]) for name in fields))
        return cls(searches, *(np.concatenate([getattr(part, name) for part in parts]) for name in ("pairs", "units", "domains")))


def draw(domain: Domain, turns: int, seed: int) -> Trials:
    """``turns`` searches with every sketch of a domain."""
    queries = domain.head.embed(domain.sketches)
    rng = np.random.default_rng([seed, 0])
    rows = [search(domain, number, query, rng) for _ in range(turns) for number, query in enumerate(queries)]
    return _collected(rows, [0] * len(rows), list(domain.units) * turns, domain.name)


def draw_adapted(domain: Domain, turns: int, seed: int) -> Trials:
    """``turns`` times for every person or category: adapt on some pairs by the device's code, guard and all, and search with the
    sketches of all other photos. Where the guard keeps the base head, ``pairs`` is 0."""
    rows: list[Found] = []
    pairs: list[int] = []
    units: list[str] = []
    for number, name in enumerate(np.unique(domain.tasks)):
        members = np.flatnonzero(domain.tasks == name)
        task = Task(name, members, domain.truth[members], np.unique(domain.truth[members]))
        possible = [count for count in SUPPORTS if gives(task, count)]
        for turn in range(turns if possible else 0):
            rng = np.random.default_rng([seed, 1, number, turn])
            episode = episodes.draw(task, int(rng.choice(possible)), rng)
            adapter = _adapter(domain, members[episode.support])
            queries = members[episode.query]
            embedded = adapter.embed(domain.head, domain.sketches[queries], "sketch")
            rows += [search(domain, query, row, rng) for query, row in zip(queries, embedded, strict=True)]
            pairs += [len(episode.support) if adapter.changes else 0] * len(queries)
            units += list(domain.units[queries])
    return _collected(rows, pairs, units, domain.name)


def search(domain: Domain, query: int, embedding: Float32, rng: np.random.Generator) -> Found:
    """One search of a sketch's embedding [D]."""
    pool, truth = domain.pool, domain.truth[query]
    present = int(rng.random() >= ABSENT_SHARE)
    others = _gallery(domain, truth, rng, present)
    scores = pool.embeddings[others] @ embedding
    place = ABSENT
    if present:
        own = pool.embeddings[truth] @ embedding
        place = min(int(np.count_nonzero(scores >= own)), BEHIND)
        scores = np.append(scores, own)
    nearest = np.sort(scores)[::-1][:SHORTLIST]
    return padded(nearest.tolist()), len(scores), place


def _gallery(domain: Domain, truth: int, rng: np.random.Generator, present: int) -> np.ndarray:
    """Photos beside the one that is meant: rows of the pool, so many that with it (``present``) there are SMALLEST at least."""
    kinds = domain.pool.kinds
    others = np.arange(len(kinds)) != truth
    kin = rng.permutation(np.flatnonzero(others & (kinds == kinds[truth])))
    strangers = rng.permutation(np.flatnonzero(others & (kinds != kinds[truth])))
    scope, lowest = rng.integers(3), SMALLEST
    if scope == 0 and len(kin) >= SMALLEST:
        order = kin
    elif scope == 1:
        order = rng.permutation(np.concatenate([kin, strangers]))
    else:
        order, lowest = np.concatenate([kin, strangers]), max(SMALLEST, len(kin))
    size = int(np.exp(rng.uniform(np.log(lowest), np.log(len(order) + 1))))
    return order[: max(size, SMALLEST) - present]


def _adapter(domain: Domain, support: np.ndarray) -> Adapter:
    pool, photos = domain.pool, domain.truth[support]
    kin = np.flatnonzero(pool.kinds == pool.kinds[photos[0]])
    return adapt(domain.head, domain.sketches[support], pool.features[photos], candidates=pool.features[kin]).adapter


def _collected(rows: list[Found], pairs: list[int], units: list[str], name: str) -> Trials:
    similarities, sizes, places = zip(*rows, strict=True)
    count = np.array(pairs)
    searches = Searches(np.stack(similarities), np.array(sizes), np.array(places), count > 0)
    return Trials(searches, count, np.array(units), np.full(len(rows), name))
