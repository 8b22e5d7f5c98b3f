"""The nearest photos of a collection: the server offers candidates by the base embedding, they are scored anew here.

The answer is that of ``Gallery.search`` over the same photos (the server looks at all of them unless ``FleetOptions.exact`` is
off): as long as a photo that was not offered could lie nearer than the k-th, or tie with it, more are asked for. An adapter that
moves photos scores ``shortlist`` candidates from their features, and so answers exactly where the shortlist covers the photos
that may answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import EmptyGalleryError, FleetMismatchError
from fgsbir_edge.gallery.columns import wrong_kind
from fgsbir_edge.gallery.filters import All, Compare, Filter, Has, Is, OneOf, conditions
from fgsbir_edge.gallery.flat import ROUNDING
from fgsbir_edge.gallery.nearest import GROWTH, SPARE, best
from fgsbir_edge.gallery.search import Hit
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.ranking import TIE
from fgsbir_edge.remote.points import FACTS, Found, features_of, found
from fgsbir_edge.remote.qdrant_filters import of_kind, to_qdrant
from fgsbir_edge.remote.server import VECTOR, Server, qdrant

if TYPE_CHECKING:
    from fgsbir_edge.gallery import Gallery

_KINDS = {"text": "text", "number": "numbers", "flag": "true or false"}
_log = logging.getLogger(__name__)


class Finder:
    """Searches of one collection. ``gallery`` gives the features of photos that it has too; others come from the server."""

    def __init__(self, server: Server, head: Head, gallery: Gallery | None = None) -> None:
        self._server, self._head, self._gallery = server, head, gallery
        self._seen: set[tuple[str, str | None]] = set()  # keys, and kinds of values under them, that there are

    def search(self, sketch: Float32, k: int, adapter: Adapter | None, where: Filter | None) -> list[Hit]:
        """The k nearest photos, from a sketch's features [C]. Raises EmptyGalleryError where no photo may answer."""
        wanted = None if where is None else to_qdrant(where)
        moving = adapter is not None and adapter.moves("photo")
        query = (self._head.embed(sketch) if adapter is None else adapter.embed(self._head, sketch, "sketch"))[0]
        if adapter is not None and moving:
            candidates = self._offered(self._head.embed(sketch)[0], max(k, self._server.options.shortlist), wanted, vectors=False)
            scores = adapter.embed(self._head, self._features(candidates), "photo") @ query if candidates else np.empty(0)
        else:
            candidates, scores = self._nearest(query, k, wanted)
        if not candidates:
            raise EmptyGalleryError(f"{self._server.name}: {self._nothing(where)}")
        places, similarities = best(np.arange(len(candidates)), np.asarray(scores, np.float32), k)
        return [
            _hit(candidates[place], rank, float(score))
            for rank, (place, score) in enumerate(zip(places, similarities, strict=True), start=1)
        ]

    def check(self, where: Filter) -> None:
        """Warn of keys that no photo of the collection has. Raises FilterError for a kind of value that none has under a key."""
        for condition in conditions(where):
            if not self._is_there(condition.key, None):
                _log.warning("filter: no photo of the fleet has the key %r, so no condition on it holds", condition.key)
                continue
            for kind in _kinds(condition):
                if not self._is_there(condition.key, kind):
                    raise wrong_kind(condition, " and ".join(_KINDS[one] for one in _KINDS if self._is_there(condition.key, one)))

    def _is_there(self, key: str, kind: str | None) -> bool:
        if (key, kind) not in self._seen:
            with self._server.errors():
                records, _ = self._server.client.scroll(
                    self._server.options.collection, scroll_filter=of_kind(key, kind), limit=1, with_payload=False
                )
            if not records:
                return False
            self._seen.add((key, kind))
        return True

    def _nearest(self, query: Float32, k: int, wanted: Any) -> tuple[list[Found], Float32]:
        """Candidates in the order of the gallery they come from, and their similarities [n]: at least the k nearest."""
        count = k + SPARE
        while True:
            candidates = self._offered(query, count, wanted, vectors=True)
            scores = np.array([one.embedding for one in candidates], np.float32).reshape(-1, len(query)) @ query
            if len(candidates) < count:
                return candidates, scores
            last = min(one.score for one in candidates)
            if float(np.partition(scores, -k)[-k]) - TIE > last + ROUNDING:
                return candidates, scores
            count *= GROWTH

    def _offered(self, query: Float32, count: int, wanted: Any, *, vectors: bool) -> list[Found]:
        """What the server finds nearest, in the order of the gallery it comes from."""
        options: dict[str, Any] = {}
        if not self._server.embedded:  # the embedded form always looks at all
            options["search_params"] = qdrant().models.SearchParams(exact=self._server.options.exact)
        with self._server.errors():
            answer = self._server.client.query_points(
                self._server.options.collection,
                query=[float(number) for number in query],
                using=VECTOR,
                query_filter=wanted,
                limit=count,
                with_payload=FACTS,
                with_vectors=[VECTOR] if vectors else False,
                **options,
            )
        return sorted((found(one, self._server.name) for one in answer.points), key=lambda one: one.place)

    def _features(self, candidates: Sequence[Found]) -> Float32:
        """Features [n, C]: of photos that this device's gallery has in the same state from there, of others from the server."""
        rows = np.empty((len(candidates), self._head.features), np.float32)
        mine = {} if self._gallery is None else self._gallery.sha256_of([one.name for one in candidates])
        local = [i for i, one in enumerate(candidates) if one.sha256 and mine.get(one.name) == one.sha256]
        if local and self._gallery is not None:
            rows[local] = self._gallery.features([candidates[i].name for i in local])
        have = set(local)
        asked = [i for i in range(len(candidates)) if i not in have]
        batch = self._server.options.batch
        for first in range(0, len(asked), batch):
            rows[asked[first : first + batch]] = self._fetched([candidates[i].id for i in asked[first : first + batch]])
        return rows

    def _fetched(self, ids: Sequence[str]) -> Float32:
        with self._server.errors():
            records = self._server.client.retrieve(
                self._server.options.collection, ids=list(ids), with_payload=["name", "features"]
            )
        known = {str(record.id): record for record in records}
        if len(known) < len(ids):
            raise FleetMismatchError(f"{self._server.name}: photos were removed while they were searched; search again")
        return np.stack([features_of(known[one], self._head.features, self._server.name) for one in ids])

    def _nothing(self, where: Filter | None) -> str:
        if where is None:
            return "it has no photos; fill it with 'fgsbir-edge fleet publish'"
        return f"no photo matches {str(where)[:400]}; widen it"


def both(category: str | Sequence[str] | None, where: Filter | None) -> Filter | None:
    """A category, or one of several, and a filter as one filter."""
    if category is None:
        return where
    names = (category,) if isinstance(category, str) else tuple(category)
    inside = OneOf("category", names)
    return inside if where is None else All((inside, where))


def _kinds(condition: Is | OneOf | Compare | Has) -> set[str]:
    """The kinds of values that a condition compares with."""
    if isinstance(condition, Has):
        return set()
    values = condition.values if isinstance(condition, OneOf) else (condition.value,)
    return {"flag" if isinstance(one, bool) else "text" if isinstance(one, str) else "number" for one in values}


def _hit(one: Found, rank: int, similarity: float) -> Hit:
    return Hit(one.name, one.order, rank, max(0.0, 2.0 - 2.0 * similarity) ** 0.5, one.category)
