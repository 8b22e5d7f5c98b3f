"""Filters of photos as Qdrant's: the same photos pass, here and there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any as Untyped

from fgsbir_edge.gallery.filters import BUILT_IN, All, Any, Compare, Condition, Filter, Has, Is, Not, Scalar
from fgsbir_edge.remote.server import qdrant

METADATA = "meta"  # the key of a point's payload that holds a photo's metadata
LARGEST = 1.7976931348623157e308
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def field(key: str) -> str:
    """Where a key's value lies in a point's payload."""
    return key if key in BUILT_IN else f"{METADATA}.{key}"


def to_qdrant(where: Filter) -> Untyped:
    """A ``qdrant_client.models.Filter`` that lets the same photos through."""
    models = qdrant().models
    if isinstance(where, All):
        return models.Filter(must=[to_qdrant(part) for part in where.parts])
    if isinstance(where, Any):
        return models.Filter(should=[to_qdrant(part) for part in where.parts])
    if isinstance(where, Not):
        return models.Filter(must_not=[to_qdrant(where.part)])
    return _condition(where)


def of_kind(key: str, kind: str | None) -> Untyped:
    """A filter for photos that have a key, with a value of a kind: "text", "number", "flag" or None for any."""
    models = qdrant().models
    there = _condition(Has(key))
    number = models.FieldCondition(key=field(key), range=models.Range(gte=-LARGEST))
    flag = _one_of(key, [True, False])
    if kind == "number":
        return models.Filter(must=[number])
    if kind == "flag":
        return flag
    return there if kind is None else models.Filter(must=[there], must_not=[number, flag])


def _condition(condition: Condition) -> Untyped:
    models = qdrant().models
    if isinstance(condition, Has):
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=field(condition.key)))
        return models.Filter(must_not=[empty])
    if isinstance(condition, Compare):
        bounds = models.Range(**{_BOUNDS[condition.operator]: float(condition.value)})
        return models.Filter(must=[models.FieldCondition(key=field(condition.key), range=bounds)])
    return _one_of(condition.key, [condition.value] if isinstance(condition, Is) else list(condition.values))


def _one_of(key: str, values: Sequence[Scalar]) -> Untyped:
    """Numbers are looked up as ranges: Qdrant tells 5 and 5.0 apart, and matches no fractions."""
    models = qdrant().models
    texts = [value for value in values if isinstance(value, str)]
    found = [models.FieldCondition(key=field(key), match=models.MatchAny(any=texts))] if texts else []
    for value in values:
        if isinstance(value, bool):
            found.append(models.FieldCondition(key=field(key), match=models.MatchValue(value=value)))
        elif not isinstance(value, str):
            found.append(models.FieldCondition(key=field(key), range=models.Range(gte=float(value), lte=float(value))))
    return models.Filter(should=found)
