"""Exact search over a gallery's features: embeddings are computed from them with the head in force, and kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32, normalised, norms
from fgsbir_edge.errors import EmptyGalleryError
from fgsbir_edge.gallery.store import Float16, Item
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.ranking import TIE, rank_of

CHUNK = 4096  # photos widened to float32 at a time
MAX_ADAPTED = 8  # adapters whose photo embeddings stay in memory, the latest ones


@dataclass(frozen=True)
class Hit:
    """A photo found. ``rank`` counts from 1; ``distance`` is Euclidean between unit vectors, 0 to 2."""

    name: str
    id: int
    rank: int
    distance: float
    category: str | None


class PhotoIndex:
    """Photos in memory: items and float16 features [N, C], embeddings [N, D] per head and adapter."""

    def __init__(self, items: Sequence[Item], features: Float16) -> None:
        self.items = tuple(items)
        self._features = features
        self.positions = {item.name: place for place, item in enumerate(items)}
        self._categories: dict[str | None, list[int]] = {}
        for place, item in enumerate(items):
            self._categories.setdefault(item.category, []).append(place)
        self._base: tuple[str, Float32, Float32] | None = None  # head digest, embeddings [N, D], output lengths [N, 1]
        self._adapted: OrderedDict[str, Float32] = OrderedDict()

    @property
    def categories(self) -> list[str]:
        """Names of the categories there are, sorted."""
        return sorted(category for category in self._categories if category is not None)

    def select(self, category: str | None) -> NDArray[np.intp]:
        """Positions of the photos of a category, all of them for None. Raises EmptyGalleryError when there is none."""
        if category is None:
            places = np.arange(len(self.items))
            remedy = "the gallery is empty; add photos with 'fgsbir-edge index FOLDER --gallery FILE'"
        else:
            places = np.asarray(self._categories.get(category, []), dtype=np.intp)
            remedy = f"category {category!r} has no photos; there are: {', '.join(self.categories) or 'no categories'}"
        if not len(places):
            raise EmptyGalleryError(remedy)
        return places

    def features(self, places: Sequence[int] | NDArray[np.intp]) -> Float32:
        """Stored features of some photos, float32 [n, C]."""
        return self._features[np.asarray(places, dtype=np.intp)].astype(np.float32)

    def embeddings(self, head: Head, adapter: Adapter | None = None) -> Float32:
        """Unit-length embeddings of all photos [N, D]; an adapter that does not move photos gives the base ones."""
        if self._base is None or self._base[0] != head.digest:
            outputs = self._by_chunks(head.outputs, head.embedding)
            lengths = norms(outputs)
            self._base = head.digest, outputs / lengths, lengths
        _, base, lengths = self._base
        if adapter is None or not adapter.moves("photo"):
            return base
        adapter.check(head)
        if adapter.digest not in self._adapted:
            shift = self._by_chunks(lambda features: adapter.shift(features, "photo"), head.embedding)
            self._adapted[adapter.digest] = normalised(base * lengths + shift)
            while len(self._adapted) > MAX_ADAPTED:
                self._adapted.popitem(last=False)
        self._adapted.move_to_end(adapter.digest)
        return self._adapted[adapter.digest]

    def search(self, sketches: Float32, photos: Float32, k: int, places: NDArray[np.intp]) -> list[list[Hit]]:
        """The k nearest of the photos at ``places`` for each sketch: embeddings [B, D] and [N, D]; ties keep gallery order."""
        answers = []
        for row in self._similarities(sketches, photos, places):
            last = np.partition(row, -k)[-k] if k < len(row) else -np.inf
            kept = np.flatnonzero(~(row < last - TIE))  # the k best and all that tie with the last of them
            kept = kept[np.argsort(-row[kept])]
            runs = np.cumsum(np.diff(-row[kept], prepend=-row[kept[0]]) > TIE)  # the same number for neighbours that tie
            order = kept[np.lexsort((kept, runs))][:k]
            answers.append([self._hit(int(places[i]), rank, float(row[i])) for rank, i in enumerate(order, start=1)])
        return answers

    def ranks(self, sketches: Float32, photos: Float32, own: Sequence[int], places: NDArray[np.intp]) -> list[int]:
        """Rank of each sketch's own photo (an index into ``places``), ties against."""
        rows = self._similarities(sketches, photos, places)
        return [rank_of(row, mine) for row, mine in zip(rows, own, strict=True)]

    def _similarities(self, sketches: Float32, photos: Float32, places: NDArray[np.intp]) -> Iterator[Float32]:
        """One row of inner products [n] a sketch. Between unit vectors they order as distances do."""
        chosen = photos if len(places) == len(photos) else photos[places]
        for sketch in sketches:
            yield chosen @ sketch

    def _hit(self, place: int, rank: int, similarity: float) -> Hit:
        item = self.items[place]
        return Hit(item.name, item.id, rank, max(0.0, 2.0 - 2.0 * similarity) ** 0.5, item.category)

    def _by_chunks(self, function: Callable[[Float32], Float32], width: int) -> Float32:
        rows = np.empty((len(self.items), width), np.float32)
        for start in range(0, len(rows), CHUNK):
            rows[start : start + CHUNK] = function(self._features[start : start + CHUNK].astype(np.float32))
        return rows
