"""Filters: which photos may answer, told by their metadata, category or name.

    Is("brand", "oak")                 the value, or one text of a list
    OneOf("brand", ("oak", "ash"))
    Compare("price", "<", 50)          numbers only; also <=, >, >=
    Has("price")
    All((...)), Any((...)), Not(...)   and, or, not

A condition holds or does not, and never does for a photo without the key, nor for a value of another kind: so ``Not(Is("brand",
"oak"))`` takes photos without a brand. "category" and "name" are keys that photos have without metadata.

The same as text (``filter_text.py``): ``price<50 and (brand=oak or tags in ("for sale", new)) and not has sold``; as a dict:
``{"price": {"<": 50}, "brand": ["oak", "ash"], "sold": {"has": False}}``, all of which must hold, with "and", "or" (lists of
dicts) and "not" (a dict).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fgsbir_edge.errors import FilterError, MetadataError
from fgsbir_edge.gallery.metadata import check_key, check_value

Scalar = str | int | float | bool
Operator = Literal["<", "<=", ">", ">="]

MAX_CONDITIONS = 1000  # in one filter, each of several values counted
MAX_DEPTH = 50  # of filters within filters
BUILT_IN = ("category", "name")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_WORDS = frozenset({"and", "or", "not", "in", "has", "true", "false"})


@dataclass(frozen=True)
class Is:
    """The key holds this value; a list: one of its texts is this one."""

    key: str
    value: Scalar

    def __post_init__(self) -> None:
        _check(self.key, self.value)

    def __str__(self) -> str:
        return f"{self.key}={_shown(self.value)}"


@dataclass(frozen=True)
class OneOf:
    """The key holds one of these values."""

    key: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise FilterError(f"{self.key!r} in no values; give at least one")
        for value in self.values:
            _check(self.key, value)

    def __str__(self) -> str:
        return f"{self.key} in ({', '.join(map(_shown, self.values))})"


@dataclass(frozen=True)
class Compare:
    """The key holds a number in such an order to this one."""

    key: str
    operator: Operator
    value: int | float

    def __post_init__(self) -> None:
        if self.operator not in get_args(Operator):
            raise FilterError(f"operator {self.operator!r} is unknown; there are =, !=, <, <=, >, >=, in and has")
        _check(self.key, self.value)
        if isinstance(self.value, (bool, str)):
            raise FilterError(f"{self.key}{self.operator}{_shown(self.value)}: only numbers can be compared so; use = or in")

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{_shown(self.value)}"


@dataclass(frozen=True)
class Has:
    """There is a value under the key."""

    key: str

    def __post_init__(self) -> None:
        _check(self.key, True)

    def __str__(self) -> str:
        return f"has {self.key}"


@dataclass(frozen=True)
class All:
    """All of these hold."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    def __str__(self) -> str:
        return f"({' and '.join(map(str, self.parts))})"


@dataclass(frozen=True)
class Any:
    """At least one of these holds."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    def __str__(self) -> str:
        return f"({' or '.join(map(str, self.parts))})"


@dataclass(frozen=True)
class Not:
    """This does not hold."""

    part: Filter

    def __post_init__(self) -> None:
        _check_parts((self.part,))

    def __str__(self) -> str:
        return f"not {self.part}"


Condition = Is | OneOf | Compare | Has
Filter = Condition | All | Any | Not
Where = Filter | str | Mapping[str, object]  # as it may be given


def as_filter(where: Where | Sequence[Where] | None) -> Filter | None:
    """A filter from what a caller gives; of several all must hold. Raises FilterError naming what is wrong."""
    from fgsbir_edge.gallery.filter_text import parse_filter

    if where is None or isinstance(where, Filter):
        found = where
    elif isinstance(where, str):
        found = parse_filter(where)
    elif isinstance(where, Mapping):
        found = _from_dict(where, MAX_DEPTH)
    elif isinstance(where, Sequence):
        parts = [part for part in map(as_filter, where) if part is not None]
        found = together(parts)
    else:
        raise FilterError(f"a filter cannot be a {type(where).__name__}; give text such as 'price<50', or a dict")
    if found is not None:
        check_size(found)
    return found


def together(parts: Sequence[Filter]) -> Filter | None:
    """All of these; None for none."""
    return None if not parts else parts[0] if len(parts) == 1 else All(tuple(parts))


def conditions(where: Filter) -> Iterator[Condition]:
    """The conditions of a filter, from left to right."""
    stack: list[Filter] = [where]
    while stack:
        one = stack.pop()
        if isinstance(one, Condition):
            yield one
        else:
            stack.extend((one.part,) if isinstance(one, Not) else reversed(one.parts))


def check_size(where: Filter) -> None:
    """Raises FilterError for more than MAX_CONDITIONS, or filters more than MAX_DEPTH deep."""
    layer: list[Filter] = [where]
    for _ in range(MAX_DEPTH):
        layer = [part for one in layer if not isinstance(one, Condition) for part in _parts(one)]
    count = sum(len(one.values) if isinstance(one, OneOf) else 1 for one in conditions(where))
    if layer or count > MAX_CONDITIONS:
        raise FilterError(f"a filter of {count} conditions; the most is {MAX_CONDITIONS}, nested {MAX_DEPTH} deep")


def _parts(one: All | Any | Not) -> tuple[Filter, ...]:
    return (one.part,) if isinstance(one, Not) else one.parts


def _from_dict(given: Mapping[str, object], depth: int) -> Filter:
    if depth == 0:
        raise FilterError(f"a filter is nested more than {MAX_DEPTH} deep; write it flatter")
    parts: list[Filter] = []
    for key, value in given.items():
        if key == "not":
            parts.append(Not(_inner(value, depth)))
        elif key in ("and", "or"):
            if not isinstance(value, (list, tuple)) or not value:
                raise FilterError(f"{key!r} takes a list of dicts, got {value!r:.80}")
            inner = tuple(_inner(one, depth) for one in value)
            parts.append(All(inner) if key == "and" else Any(inner))
        elif isinstance(value, Mapping):
            parts.extend(_condition(key, operator, operand) for operator, operand in value.items())
        else:
            parts.append(_equal(key, value))
    found = together(parts)
    if found is None:
        raise FilterError("a filter's dict is empty; name a key, or give None for no filter")
    return found


def _inner(value: object, depth: int) -> Filter:
    if not isinstance(value, Mapping):
        raise FilterError(f"'and', 'or' and 'not' take dicts, got {value!r:.80}")
    return _from_dict(value, depth - 1)


def _condition(key: str, operator: object, value: object) -> Filter:
    if operator in get_args(Operator):
        return Compare(key, operator, value)  # type: ignore[arg-type]  # it checks both
    if operator in ("=", "==", "in"):
        return _equal(key, value)
    if operator == "!=":
        return Not(_equal(key, value))
    if operator == "has" and isinstance(value, bool):
        return Has(key) if value else Not(Has(key))
    raise FilterError(f"{key!r}: operator {operator!r} is unknown; there are =, !=, <, <=, >, >=, in, and has with True or False")


def _equal(key: str, value: object) -> Is | OneOf:
    if isinstance(value, (list, tuple, set, frozenset)):
        return OneOf(key, tuple(value))
    return Is(key, value)  # type: ignore[arg-type]  # it checks the value


def _check(key: object, value: object) -> None:
    try:
        if key not in BUILT_IN:
            check_key(key)
        if isinstance(value, tuple):
            raise MetadataError(f"{key!r} is compared with a list; give its values one by one")
        check_value(str(key), value)
    except MetadataError as error:
        raise FilterError(f"filter: {error}") from None


def _check_parts(parts: tuple[Filter, ...]) -> None:
    if not parts or not all(isinstance(part, Filter) for part in parts):
        raise FilterError("and, or and not take filters, at least one; see fgsbir_edge.gallery.filters")


def _shown(value: Scalar) -> str:
    """As ``parse_filter`` reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if _BARE.fullmatch(value) and value not in _WORDS:
            return value
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
