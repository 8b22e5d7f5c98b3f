"""The k nearest of what a flat index offers: candidates are scored anew, and asked for again until none can have been missed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32
from fgsbir_edge.gallery.flat import ROUNDING, Flat, Places, largest
from fgsbir_edge.ranking import TIE

SPARE = 16  # candidates beyond k: the next one must be seen to lie farther than the last answer
SPARE_ROUNDED = 64  # where stored numbers are rounded coarsely; and 4 k in the place of k
SMALL_ERROR = 1e-3  # of inner products: float16's, not that of 8 bits
GROWTH = 4  # how many times more candidates are asked for when these were too few

Scored = Callable[[int, Places], Float32]  # (number of the query, places [n]) -> inner products [n], unrounded
Answer = tuple[list[int], list[float]]  # places and similarities, nearest first


@dataclass(frozen=True)
class Question:
    """What is asked of an index: ``queries`` unit embeddings [B, D], k, and which of its photos may answer (None: all)."""

    queries: Float32
    k: int
    allowed: NDArray[np.bool_] | None
    available: int  # how many may answer


def nearest(flat: Flat, question: Question, scored: Scored) -> list[Answer]:
    """Places and similarities of each query's k nearest photos, exact: nearest first, ties (within TIE) in gallery order."""
    k, available = question.k, question.available
    count = min(available, k + SPARE if flat.error < SMALL_ERROR else 4 * k + SPARE_ROUNDED)
    rough, places = flat.top(question.queries, count, question.allowed)
    answers = []
    for number in range(len(question.queries)):
        if flat.error <= ROUNDING:
            plain = _plain(places[number], rough[number], k)
            if plain is not None and (count == available or plain[1][-1] - TIE > float(rough[number, -1]) + flat.error):
                answers.append(plain)  # the index's own products are unrounded, and decide
                continue
        candidates, last = places[number], float(rough[number, -1])
        while True:
            scores = scored(number, candidates)
            kth = float(np.partition(scores, -k)[-k]) if k < len(scores) else -np.inf
            if len(candidates) == available or kth - TIE > last + flat.error:
                break  # whatever was left out lies farther than the k-th, and does not tie with it
            more = min(available, GROWTH * len(candidates))
            rough_again, again = flat.top(question.queries[number : number + 1], more, question.allowed)
            candidates, last = again[0], float(rough_again[0, -1])
        answers.append(best(candidates, scores, k))
    return answers


def _plain(places: Places, scores: Float32, k: int) -> Answer | None:
    """The first k of ``places`` [n] with descending ``scores`` [n], where none of them ties with the next one."""
    lead = scores[: k + 1].tolist()
    if any(near - far <= TIE for near, far in itertools.pairwise(lead)):
        return None
    return places[:k].tolist(), lead[:k]


def best(places: Places, scores: Float32, k: int) -> Answer:
    """The k of ``places`` [n] with the largest ``scores`` [n], largest first, ties (within TIE) in ascending places."""
    first = largest(scores, min(k + 1, len(scores)))
    plain = _plain(places[first], scores[first], k)
    if plain is not None:
        return plain
    kth = float(scores[first[min(k, len(first)) - 1]])
    order = np.flatnonzero(~(scores < kth - TIE))  # the k best and all that tie with the last of them
    order = order[np.argsort(-scores[order], kind="stable")]
    ranked = scores[order]
    runs = np.cumsum(np.diff(-ranked, prepend=-ranked[:1]) > TIE)  # the same number for neighbours that tie
    chosen = order[np.lexsort((places[order], runs))][:k]
    return places[chosen].tolist(), scores[chosen].tolist()
