"""Metadata of many photos as columns, and filters as masks over the photos: one pass over a column for each condition."""

from __future__ import annotations

import logging
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import FilterError
from fgsbir_edge.gallery.filters import BUILT_IN, All, Compare, Condition, Filter, Has, Is, Not, OneOf, Scalar, conditions
from fgsbir_edge.gallery.metadata import Facts

Mask = NDArray[np.bool_]  # [N]: which photos

KEPT = 16  # masks of the latest filters
_log = logging.getLogger(__name__)
_COMPARE = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}


@dataclass
class Column:
    """One key: where which value stands. A place stands once in one of the three, or several times in ``texts`` (a list)."""

    text_places: array[int] = field(default_factory=lambda: array("q"))
    texts: array[int] = field(default_factory=lambda: array("q"))  # indices into ``words``
    words: dict[str, int] = field(default_factory=dict)
    number_places: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[float] = field(default_factory=lambda: array("d"))
    flag_places: array[int] = field(default_factory=lambda: array("q"))
    flags: array[int] = field(default_factory=lambda: array("b"))

    def add(self, place: int, value: object) -> None:
        """Note a photo's value."""
        if isinstance(value, bool):
            self.flag_places.append(place)
            self.flags.append(value)
        elif isinstance(value, (int, float)):
            self.number_places.append(place)
            self.numbers.append(float(value))
        else:
            for text in (value,) if isinstance(value, str) else value:  # type: ignore[attr-defined]  # a tuple of texts
                self.text_places.append(place)
                self.texts.append(self.words.setdefault(text, len(self.words)))

    def packed(self) -> _Packed:
        """The same as arrays."""
        return _Packed(
            (np.array(self.text_places, np.int64), np.array(self.texts, np.int64)),
            (np.array(self.number_places, np.int64), np.array(self.numbers, np.float64)),
            (np.array(self.flag_places, np.int64), np.array(self.flags, np.bool_)),
            self.words,
        )


@dataclass(frozen=True)
class _Packed:
    """For each kind of value: places [n] and values [n]."""

    texts: tuple[NDArray[np.int64], NDArray[np.int64]]
    numbers: tuple[NDArray[np.int64], NDArray[np.float64]]
    flags: tuple[NDArray[np.int64], NDArray[np.bool_]]
    words: Mapping[str, int]

    @property
    def kinds(self) -> list[str]:
        """What kinds of values there are."""
        named = (("text", self.texts), ("numbers", self.numbers), ("true or false", self.flags))
        return [kind for kind, (places, _) in named if len(places)]

    def places(self, condition: Condition) -> NDArray[np.int64]:
        """Where a condition holds, places perhaps repeated. Raises FilterError where no value is of the kind it asks for."""
        if isinstance(condition, Has):
            return np.concatenate([self.texts[0], self.numbers[0], self.flags[0]])
        if isinstance(condition, Compare):
            self._check(condition, condition.value)
            places, numbers = self.numbers
            return places[_COMPARE[condition.operator](numbers, condition.value)]
        values = (condition.value,) if isinstance(condition, Is) else condition.values
        for value in values:
            self._check(condition, value)
        return np.concatenate([self._equal(list(values), kind) for kind in (bool, str, float)])

    def _equal(self, values: list[Scalar], kind: type) -> NDArray[np.int64]:
        """Where one of the values of a kind stands (float: of all numbers)."""
        chosen = [value for value in values if _kind(value) is kind]
        if kind is str:
            places, column = self.texts
            codes = [self.words[str(value)] for value in chosen if value in self.words]
            return places[np.isin(column, codes)]
        places, known = self.flags if kind is bool else self.numbers
        return places[np.isin(known, np.array(chosen, known.dtype))]

    def _check(self, condition: Condition, value: Scalar) -> None:
        have = {bool: self.flags, str: self.texts}.get(_kind(value), self.numbers)
        if not len(have[0]) and self.kinds:
            raise wrong_kind(condition, " and ".join(self.kinds))


@dataclass(frozen=True)
class KeyFacts:
    """How many photos have a key, and the kinds of values there are: "text", "numbers", "true or false"."""

    photos: int
    kinds: tuple[str, ...]


class Columns:
    """The metadata of N photos, by place. ``mask`` keeps the masks of the latest filters.

    Args:
        entries: name and category of each photo, in the order of places.
        rows: (name, metadata) of photos; names that are not among the entries are passed over.
    """

    def __init__(self, entries: Sequence[tuple[str, str | None]], rows: Iterable[tuple[str, Facts]]) -> None:
        self.count = len(entries)
        place_of = {name: place for place, (name, _) in enumerate(entries)}
        found: dict[str, Column] = {}
        for name, facts in rows:
            place = place_of.get(name)
            if place is not None:
                for key, value in facts.items():
                    column = found.get(key)
                    if column is None:
                        column = found[key] = Column()
                    column.add(place, value)
        self._entries = entries
        self._columns = {key: column.packed() for key, column in found.items()}
        self._masks: OrderedDict[str, Mask] = OrderedDict()

    @property
    def keys(self) -> dict[str, KeyFacts]:
        """What there is under each key, sorted."""
        return {
            key: KeyFacts(len(np.unique(column.places(Has(key)))), tuple(column.kinds))
            for key, column in sorted(self._columns.items())
            if key not in BUILT_IN
        }

    def mask(self, where: Filter, *, warn: bool = True) -> Mask:
        """Which photos a filter lets through, read-only [N]. Keys that no photo has are warned of, once a filter.

        Raises FilterError where a condition compares a key with a kind of value that no photo has under it.
        """
        text = str(where)
        if text not in self._masks:
            for said in unknown_keys(where, list(dict.fromkeys([*self._columns, *BUILT_IN]))) if warn else ():
                _log.warning("%s", said)
            mask = self._made(where)
            mask.setflags(write=False)
            self._masks[text] = mask
            if len(self._masks) > KEPT:
                self._masks.popitem(last=False)
        self._masks.move_to_end(text)
        return self._masks[text]

    def _made(self, where: Filter) -> Mask:
        if isinstance(where, Not):
            return ~self._made(where.part)
        if isinstance(where, (Is, OneOf, Compare, Has)):
            mask = np.zeros(self.count, np.bool_)
            column = self._column(where.key)
            if column is not None:
                mask[column.places(where)] = True
            return mask
        join = np.logical_and if isinstance(where, All) else np.logical_or
        mask = self._made(where.parts[0])
        for part in where.parts[1:]:
            join(mask, self._made(part), out=mask)
        return mask

    def _column(self, key: str) -> _Packed | None:
        if key in BUILT_IN and key not in self._columns:
            column = Column()
            for place, (name, category) in enumerate(self._entries):
                value = name if key == "name" else category
                if value is not None:
                    column.add(place, value)
            self._columns[key] = column.packed()
        return self._columns.get(key)


def unknown_keys(where: Filter, known: Sequence[str]) -> list[str]:
    """What to say of each key of a filter that no photo has."""
    said = []
    for key in dict.fromkeys(condition.key for condition in conditions(where)):
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, known, 3)
            there = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(known)[:20])}"
            said.append(f"filter: no photo has the key {key!r}, so no condition on it holds; {there}")
    return said


def wrong_kind(condition: Condition, held: str) -> FilterError:
    """The error for a condition that compares a key with a kind of value that no photo has under it."""
    return FilterError(
        f"filter {str(condition)[:80]!r}: {condition.key!r} holds {held} here; text is quoted where it looks like a number "
        f'(size="12"), numbers and true and false are not'
    )


def _kind(value: Scalar) -> type:
    """bool, str, or float for all numbers."""
    return bool if isinstance(value, bool) else str if isinstance(value, str) else float
