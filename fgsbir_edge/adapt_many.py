"""Adapt one head to many persons or categories at once: the same results as one after another, in one native call.

What it saves is the way through Python for each person, and with ``threads`` the persons are shared out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from fgsbir_edge.adapt import AdaptOptions, AdaptResult, checked_episode, result_of
from fgsbir_edge.candidates import Candidates, pool_of
from fgsbir_edge.guard import MIN_PAIRS
from fgsbir_edge.head import Head
from fgsbir_edge.inner import Episode, solve_episodes

CROSS_ELEMENTS = 1 << 24  # inner products of candidates with supports that are held at a time: 64 MiB


@dataclass(frozen=True, eq=False)
class Person:
    """One person's (or category's) pairs: sketches [k, C], their photos [k, C], other photos [n, C] or None."""

    sketches: ArrayLike
    photos: ArrayLike
    negatives: ArrayLike | None = None


def adapt_many(
    head: Head,
    people: Sequence[Person],
    *,
    candidates: ArrayLike | Candidates | None = None,
    options: AdaptOptions | None = None,
    threads: int = 1,
) -> list[AdaptResult]:
    """An ``AdaptResult`` for each of ``people``, whose numbers of pairs may differ; none influences another.

    ``candidates`` [N, C] are shared by all guards (None: each person's own photos). ``options`` and ``threads`` as in ``adapt``;
    ``millis`` and ``guard_millis`` count a person's own work and an even share of the common set-up, over all threads.
    Raises what ``adapt`` raises, naming the person by number.
    """
    options = options or AdaptOptions()
    recipe = options.recipe(head)
    episodes = [
        checked_episode(head, person.sketches, person.photos, person.negatives, f"person {number}: ")
        for number, person in enumerate(people)
    ]
    pool = pool_of(head, candidates) if options.guard else None
    fold_pairs = MIN_PAIRS if options.guard else 0
    results = []
    for part in _parts(episodes, 0 if pool is None else len(pool[0] if isinstance(pool, tuple) else pool)):
        for episode, found in zip(
            part, solve_episodes(head, part, recipe, pool, fold_pairs=fold_pairs, threads=threads), strict=True
        ):
            results.append(result_of(head, len(episode[0]), found, recipe, options.guard))
    return results


def _parts(episodes: list[Episode], candidates: int) -> Iterator[list[Episode]]:
    """Runs of episodes whose rows times ``candidates`` stay within CROSS_ELEMENTS, at least one episode each."""
    part: list[Episode] = []
    rows = 0
    for episode in episodes:
        own = sum(len(array) for array in episode)
        if part and (rows + own) * candidates > CROSS_ELEMENTS:
            yield part
            part, rows = [], 0
        part.append(episode)
        rows += own
    if part:
        yield part
