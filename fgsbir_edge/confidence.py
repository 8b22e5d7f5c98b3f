"""How sure an answer is: the probability of every hit that it is the photo meant, and that none is.

From the similarities s_1 >= s_2 >= ... >= s_n of the nearest photos (n at most SHORTLIST), the gallery's size N and whether the
search was adapted (a is 1 or 0), three kinds of outcome are weighed, and the weights made to sum to 1:

    t    = t_0 + t_1 log N + t_2 a
    w_i  = exp(t s_i)                                                       hit i is the photo meant
    w_>  = exp(t s_n + b_0 + b_1 log((N - n) / n))                          it is in the gallery, behind the shortlist (N > n)
    w_0  = exp(c_0 + c_1 log N + c_2 m + c_3 d + c_4 a + log(p / (1 - p)))  it is not in the gallery

m is the mean of s_2 .. s_11, the nearest others, d the standard deviation of s_2 .. s_n: where others are near too, a near first
hit says less. p is the share of searches whose photo is not in the gallery, as it is expected where the kiosk stands. The
constants belong to a bundle: they depend on the network. ``training.confidence`` fits them on sketches that it has not seen, and
``docs/confidence.md`` says how well they hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fgsbir_edge.errors import NonFiniteError
from fgsbir_edge.ranking import TIE

if TYPE_CHECKING:
    from fgsbir_edge.gallery.search import Hit
    from fgsbir_edge.head import Adapter

VERSION, FORM = 1, "softmax"
SHORTLIST = 50  # similarities that are looked at
OTHERS = 10  # of them, behind the first, that say how crowded it is there
LARGEST = 10**8  # photos in a gallery up to which nearer ones must be likelier
LENGTHS = {"slope": 3, "behind": 2, "absent": 5}


@dataclass(frozen=True)
class Assessment:
    """What is probable: that hit i is meant [n], that the photo is behind the shortlist, that it is not in the gallery; sum 1."""

    hits: tuple[float, ...]
    behind: float
    absent: float

    @property
    def in_gallery(self) -> float:
        """The probability that the photo meant is in the gallery."""
        return 1.0 - self.absent

    def among(self, k: int) -> float:
        """The probability that it is one of the first k hits; k at most SHORTLIST."""
        return math.fsum(self.hits[:k])


@dataclass(frozen=True)
class Confidence:
    """The constants of a model: ``slope`` (t_0, t_1, t_2), ``behind`` (b_0, b_1), ``absent`` (c_0, .., c_4).

    Below ``none_below`` the photo is taken not to be in the gallery, from ``sure_from`` on the first hit to be it; both were
    chosen for an ``absent_share`` p of 0.5. ``provenance``: what they were fitted on, and figures. Raises ValueError where a
    number is not finite, t not above 0 in galleries of up to LARGEST photos, or a share not between 0 and 1.
    """

    slope: tuple[float, float, float]
    behind: tuple[float, float]
    absent: tuple[float, float, float, float, float]
    none_below: float
    sure_from: float
    absent_share: float = 0.5
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        for name, length in LENGTHS.items():
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != length:
                raise ValueError(f"confidence: {name} has {len(values)} constants, expected {length}")
        if not all(map(math.isfinite, (*self.slope, *self.behind, *self.absent))):
            raise ValueError("confidence: a constant is NaN or infinite")
        plain, by_size, adapted = self.slope
        lowest = plain + min(0.0, by_size * math.log(LARGEST)) + min(0.0, adapted)
        if not lowest > 0:
            raise ValueError(f"confidence: nearer photos must be likelier, but slopes {self.slope} come down to {lowest:.3g}")
        for name in ("none_below", "sure_from", "absent_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"confidence: {name} is {getattr(self, name)}, expected 0 to 1")
        if not 0 < self.absent_share < 1:
            raise ValueError(f"confidence: absent_share is {self.absent_share}, expected between 0 and 1")

    def assess(self, similarities: Sequence[float], size: int, *, adapted: bool = False) -> Assessment:
        """The probabilities of an answer: cosines of the nearest photos [n], nearest first, of a gallery of ``size`` photos.

        All photos, or the SHORTLIST nearest, should be given; what comes behind is not looked at. Raises NonFiniteError, and
        ValueError where there are none, more than ``size``, or they are not in order.
        """
        nearest = similarities[:SHORTLIST]
        count = len(nearest)
        if not 1 <= count <= size:
            raise ValueError(f"{count} similarities of a gallery of {size}: expected at least one, and no more than photos")
        others = nearest[1 : OTHERS + 1]
        crowd = sum(others) / len(others) if others else 0.0
        log_size, absent = math.log(size), self.absent
        slope = self.slope[0] + self.slope[1] * log_size
        nothing = absent[0] + absent[1] * log_size + absent[2] * crowd + absent[3] * _deviation(nearest)
        if adapted:
            slope, nothing = slope + self.slope[2], nothing + absent[4]
        nothing += math.log(self.absent_share / (1.0 - self.absent_share))
        first, last = nearest[0], nearest[-1]
        if not math.isfinite(nothing + first):
            raise NonFiniteError("similarities hold NaN or infinity; check the embeddings they were computed from")
        if first + TIE < last:
            raise ValueError("similarities must come nearest first")
        rest = -math.inf
        if size > count:
            rest = slope * last + self.behind[0] + self.behind[1] * math.log((size - count) / count)
        top = max(slope * first, nothing, rest)
        exp = math.exp
        weights = [exp(slope * similarity - top) for similarity in nearest]
        behind, gone = exp(rest - top), exp(nothing - top)
        total = sum(weights) + behind + gone
        return Assessment(tuple([weight / total for weight in weights]), behind / total, gone / total)

    @property
    def threshold(self) -> float:
        """``none_below`` for the ``absent_share`` in force: the same answers are turned away, whatever share is expected."""
        odds = (1.0 - self.absent_share) / self.absent_share
        return self.none_below * odds / (self.none_below * odds + 1.0 - self.none_below)

    def to_manifest(self) -> dict[str, Any]:
        """The JSON form."""
        constants = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "provenance"}
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in constants.items()}
        return {"version": VERSION, "form": FORM, **listed, "provenance": dict(self.provenance)}

    @classmethod
    def from_manifest(cls, entry: Mapping[str, Any]) -> Confidence | None:
        """The reverse; None for a version or form that this release does not know.

        Raises ValueError, KeyError or TypeError when the entry is not one.
        """
        if not isinstance(entry, Mapping):
            raise TypeError("confidence is not an object")
        if (entry["version"], entry["form"]) != (VERSION, FORM):
            return None
        numbers: dict[str, Any] = {name: float(entry[name]) for name in ("none_below", "sure_from", "absent_share")}
        lists: dict[str, Any] = {name: tuple(entry[name]) for name in LENGTHS}
        return cls(**numbers, **lists, provenance=dict(entry.get("provenance", {})))


def _deviation(nearest: Sequence[float]) -> float:
    """Standard deviation of all but the first, 0 without others; NaN where one of them is."""
    count = len(nearest) - 1
    if count < 1:
        return 0.0
    first, total, squares = nearest[0], 0.0, 0.0
    for similarity in nearest[1:]:
        lead = first - similarity  # numbers near 0 keep their digits
        total += lead
        squares += lead * lead
    mean = total / count
    return math.sqrt(max(squares / count - mean * mean, 0.0)) if math.isfinite(mean) else mean


class Answer(list["Hit"]):
    """The hits of a search, nearest first, and what may be thought of them; None where the bundle has no constants for it.

    ``in_gallery``: the probability that the photo meant is among those that were searched. ``known``: whether that reaches the
    threshold; where it does not, a kiosk says "none of these". ``sure``: whether the first hit's confidence reaches
    ``sure_from``.
    """

    in_gallery: float | None = None
    known: bool | None = None
    sure: bool | None = None

    @property
    def shown(self) -> float | None:
        """The probability that the photo meant is one of these hits, as far as they were assessed (the first SHORTLIST)."""
        values = [hit.confidence for hit in self if hit.confidence is not None]
        return math.fsum(values) if values else None


def wanted(k: int, confidence: Confidence | None) -> int:
    """How many photos to search for so that k hits can be shown and assessed."""
    return k if confidence is None else max(k, SHORTLIST)


def answer(
    hits: Sequence[Hit], k: int, confidence: Confidence | None, *, adapter: Adapter | None = None, none_below: float | None = None
) -> Answer:
    """The first k of a search's hits (``wanted`` says how many it takes), each with its confidence.

    ``none_below`` in the place of the model's own threshold, for ``absent_share`` as it is in force. Hits that do not say how
    many photos were searched (``Hit.among``) are not assessed. Raises ValueError where ``none_below`` is no probability.
    """
    if none_below is not None and not 0 <= none_below <= 1:
        raise ValueError(f"none_below is {none_below}, expected a probability from 0 to 1")
    if confidence is None or not hits or not hits[0].among:
        return Answer(hits[:k])
    adapted = adapter is not None and adapter.changes
    found = confidence.assess([hit.score for hit in hits[:SHORTLIST]], hits[0].among, adapted=adapted)
    first = [hit._replace(confidence=value) for hit, value in zip(hits[:k], found.hits, strict=False)]
    result = Answer([*first, *hits[len(first) : k]])
    result.in_gallery = found.in_gallery
    result.known = found.in_gallery >= (confidence.threshold if none_below is None else none_below)
    result.sure = found.hits[0] >= confidence.sure_from
    return result
