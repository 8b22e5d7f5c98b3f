"""Exact search over a gallery's features: embeddings are computed from them with the head in force, and kept in memory."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32, normalised, norms
from fgsbir_edge.errors import EmptyGalleryError
from fgsbir_edge.gallery.flat import CHUNK, FaissFlat, Flat, NumpyFlat, Places, Rows, SearchOptions, chosen
from fgsbir_edge.gallery.native_flat import NativeFlat, NativeHalfFlat
from fgsbir_edge.gallery.nearest import Answer, Question, Scored, best, nearest
from fgsbir_edge.gallery.shortlist import Shortlist
from fgsbir_edge.gallery.store import Entry, Float16
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.inner import native
from fgsbir_edge.ranking import rank_of

if TYPE_CHECKING:
    from fgsbir_edge.gallery.cupy_flat import CupyPhotos

MAX_ADAPTED = 8  # adapters whose photo embeddings stay in memory, the latest ones
MAX_ADAPTED_BYTES = 1 << 29  # that they may take; two stay in any case


Categories = str | Sequence[str] | None  # one category, any of several, or all photos
Chosen = NDArray[np.intp] | NDArray[np.bool_]  # places, or a mask over all photos


class Hit(NamedTuple):
    """A photo found. ``rank`` counts from 1; ``distance`` is Euclidean between unit vectors, 0 to 2.

    ``among``: how many photos were searched. ``confidence``: the probability that this is the photo meant
    (``fgsbir_edge.confidence``), where it was assessed.
    """

    name: str
    id: int
    rank: int
    distance: float
    category: str | None
    among: int = 0
    confidence: float | None = None

    @property
    def score(self) -> float:
        """The cosine of sketch and photo, -1 to 1."""
        return 1.0 - self.distance * self.distance / 2.0


class PhotoIndex:
    """Photos in memory: entries and float16 features [N, C], embeddings [N, D] per head and adapter."""

    def __init__(
        self, entries: Sequence[Entry], features: Float16, options: SearchOptions | None = None, kept: Shortlist | None = None
    ) -> None:
        self.entries, self.options, self.kept = tuple(entries), options or SearchOptions(), kept
        self._features, self._halves = features, features.view(np.uint16)
        self.positions = {item.name: place for place, item in enumerate(entries)}
        found: dict[str | None, list[int]] = {}
        for place, item in enumerate(entries):
            found.setdefault(item.category, []).append(place)
        self._categories = {category: np.array(places, np.intp) for category, places in found.items()}
        self._base: tuple[str, Float32] | None = None  # head digest, embeddings [N, D]
        self._lengths: dict[str, Float32] = {}  # head digest: lengths of outputs [N, 1]
        self._adapted: OrderedDict[str, Float32] = OrderedDict()
        self._flats: OrderedDict[str, Flat] = OrderedDict()
        self._device: CupyPhotos | None = None

    @classmethod
    def exactly(cls, other: PhotoIndex) -> PhotoIndex:
        """The same photos, and all of them looked at in every search; shares what ``other`` keeps in memory."""
        made = copy.copy(other)
        made.options = replace(other.options, shortlist=None)
        return made

    @property
    def categories(self) -> list[str]:
        """Names of the categories there are, sorted."""
        return sorted(category for category in self._categories if category is not None)

    def select(self, category: Categories) -> NDArray[np.intp]:
        """Positions of the photos of a category, or of several; all of them for None. Raises EmptyGalleryError for none."""
        if category is None:
            places = np.arange(len(self.entries))
            remedy = "the gallery is empty; add photos with 'fgsbir-edge index FOLDER --gallery FILE'"
        else:
            names = [category] if isinstance(category, str) else list(dict.fromkeys(category))
            found = [self._categories[name] for name in names if name in self._categories]
            places = np.sort(np.concatenate(found)) if found else np.arange(0)
            what = " and ".join(map(repr, names)) or "of no name"
            remedy = f"category {what} has no photos; there are: {', '.join(self.categories) or 'no categories'}"
        if not len(places):
            raise EmptyGalleryError(remedy)
        return places

    def features(self, places: Sequence[int] | NDArray[np.intp]) -> Float32:
        """Stored features of some photos, float32 [n, C]."""
        which = np.asarray(places, dtype=np.int64)
        rows: Float32 = native().gather_half(self._halves, which)
        return rows

    def embeddings(self, head: Head, adapter: Adapter | None = None) -> Float32:
        """Unit-length embeddings of all photos [N, D]; an adapter that does not move photos gives the base ones."""
        if self._base is None or self._base[0] != head.digest:
            self._base = head.digest, self._by_chunks(self._base_rows(head), head.embedding)
        base, lengths = self._base[1], self._lengths[head.digest]
        if adapter is None or not adapter.moves("photo"):
            return base
        adapter.check(head)
        if adapter.digest not in self._adapted:
            shift = self._by_chunks(lambda a, b: adapter.shift(self.features(np.arange(a, b)), "photo"), head.embedding)
            self._adapted[adapter.digest] = normalised(base * lengths + shift)
            self._forget(self._adapted, head.embedding)
        self._adapted.move_to_end(adapter.digest)
        return self._adapted[adapter.digest]

    def search(
        self, sketches: Float32, k: int, *, head: Head, adapter: Adapter | None = None, places: Chosen | None = None
    ) -> list[list[Hit]]:
        """The k nearest of the photos at ``places``, or where a mask [N] is true (None: of all), from sketch features [B, C].

        Nearest first, ties in gallery order. Exact, but where ``SearchOptions.shortlist`` is given and an adapter moves photos.
        """
        moving = adapter if adapter is not None and adapter.moves("photo") else None
        queries = self._queries(sketches, head, adapter)
        allowed, available = self._allowed(places)
        length = None if moving is None else self.shortlist(head)
        found: Iterable[Answer]
        if moving is not None and length is not None and length < available:
            base = Question(self._queries(sketches, head), min(max(k, length), available), allowed, available)
            found = self._reranked(base, queries, k, head, moving)
        else:
            flat = self.flat(head, moving)
            question = Question(queries, min(k, available), allowed, available)
            found = nearest(flat, question, self._scorer(head, moving, flat, queries))
        return [self._hits(*answer, available) for answer in found]

    def shortlist(self, head: Head) -> int | None:
        """M for this head; None where all photos are looked at."""
        if self.options.shortlist != "auto":
            return self.options.shortlist
        return None if self.kept is None else self.kept.length(head, len(self.entries))

    def flat(self, head: Head, adapter: Adapter | None = None) -> Flat:
        """The index of all photos' embeddings by the head, or by an adapter that moves them; kept for the latest ones."""
        key = head.digest if adapter is None else adapter.digest
        if key not in self._flats:
            self._flats[key] = self._made(head, adapter)
            self._forget(self._flats, head.embedding)
        self._flats.move_to_end(key)
        return self._flats[key]

    def _made(self, head: Head, adapter: Adapter | None) -> Flat:
        backend, shape = chosen(self.options), (len(self.entries), head.embedding)
        half, threads = self.options.storage == "float16", self.options.threads
        if backend == "cupy":
            if self._device is None:
                from fgsbir_edge.gallery.cupy_flat import CupyPhotos

                self._device = CupyPhotos(self._features)
            return self._device.flat(head, adapter, half)
        if backend == "faiss" or (backend == "native" and half):
            rows = self._base_rows(head) if adapter is None else self._adapted_rows(head, adapter)
            return FaissFlat(rows, shape, self.options) if backend == "faiss" else NativeHalfFlat(rows, shape, threads)
        embeddings = self.embeddings(head, adapter)
        return NativeFlat(embeddings, threads) if backend == "native" else NumpyFlat(embeddings)

    def ranks(self, sketches: Float32, photos: Float32, own: Sequence[int], places: NDArray[np.intp]) -> list[int]:
        """Rank of each sketch's own photo (an index into ``places``), ties against."""
        rows = self._similarities(sketches, photos, places)
        return [rank_of(row, mine) for row, mine in zip(rows, own, strict=True)]

    def _similarities(self, sketches: Float32, photos: Float32, places: NDArray[np.intp]) -> Iterator[Float32]:
        """One row of inner products [n] a sketch. Between unit vectors they order as distances do."""
        chosen = photos if len(places) == len(photos) else photos[places]
        for sketch in sketches:
            yield chosen @ sketch

    def _allowed(self, places: Chosen | None) -> tuple[NDArray[np.bool_] | None, int]:
        """Which photos may answer, None for all, and how many these are."""
        if places is not None and places.dtype == np.bool_:
            count = int(np.count_nonzero(places))
            return (None if count == len(self.entries) else places.astype(np.bool_, copy=False)), count
        if places is None or len(places) == len(self.entries):
            return None, len(self.entries)
        allowed = np.zeros(len(self.entries), np.bool_)
        allowed[places] = True
        return allowed, len(places)

    def _embedded(self, places: Places, head: Head, adapter: Adapter | None) -> Float32:
        """Unit embeddings of some photos from their stored features."""
        rows = self.features(places)
        return self._units(rows, head) if adapter is None else adapter.embed(head, rows, "photo")

    def _base_rows(self, head: Head) -> Rows:
        """Unit embeddings by the head; the lengths of their outputs are noted on the way."""
        lengths = self._lengths[head.digest] = np.empty((len(self.entries), 1), np.float32)

        def rows(first: int, last: int) -> Float32:
            outputs = head.outputs(self.features(np.arange(first, last)))
            lengths[first:last] = norms(outputs)
            unit: Float32 = outputs / lengths[first:last]
            return unit

        return rows

    def _adapted_rows(self, head: Head, adapter: Adapter) -> Rows:
        """Unit embeddings by an adapter."""
        return lambda first, last: self._embedded(np.arange(first, last), head, adapter)

    def _scorer(self, head: Head, adapter: Adapter | None, flat: Flat, queries: Float32) -> Scored:
        """Unrounded inner products of a query with the photos at some places."""

        def scored(number: int, places: Places) -> Float32:
            rows = flat.rows(places)
            products: Float32 = (self._embedded(places, head, adapter) if rows is None else rows) @ queries[number]
            return products

        return scored

    def _reranked(self, base: Question, queries: Float32, k: int, head: Head, adapter: Adapter) -> Iterator[Answer]:
        """The k nearest among the photos that the base head finds nearest, ``base.k`` of them.

        What an adapter adds to a photo's outputs needs its features; the outputs themselves are the stored embedding times its
        length, where that is stored unrounded.
        """
        flat = self.flat(head)
        _, found = flat.top(base.queries, base.k, base.allowed)
        for query, places in zip(queries, found, strict=True):
            yield best(places, self._adapted_scores(flat, places, query, head, adapter), k)

    def _adapted_scores(self, flat: Flat, places: Places, query: Float32, head: Head, adapter: Adapter) -> Float32:
        """Inner products of a query with some photos as an adapter embeds them: float32 [n]."""
        core, (width, rank) = native(), adapter.coefficients.shape
        if isinstance(flat, NativeFlat) and flat.exact and rank * (width + head.features) <= width * head.features:
            change = adapter.support, adapter.coefficients
            lengths = self._lengths[head.digest].reshape(-1)
            products: Float32 = core.adapted_products(flat.stored, lengths, self._halves, *change, places, query)
            return products
        rows = flat.rows(places)
        if rows is None:
            rows = self._embedded(places, head, adapter)
        else:
            rows = rows * self._lengths[head.digest][places] + adapter.shift(self.features(places), "photo")
        scores: Float32 = (rows @ query) / norms(rows)[:, 0]
        return scores

    def _queries(self, sketches: Float32, head: Head, adapter: Adapter | None = None) -> Float32:
        """Unit embeddings of sketches."""
        if adapter is None:
            return self._units(sketches, head)
        adapter.check(head)
        if not adapter.moves("sketch"):
            return self._units(sketches, head)
        return normalised(sketches @ head.weight.T + head.bias + adapter.shift(sketches, "sketch"))

    def _units(self, features: Float32, head: Head) -> Float32:
        """Unit embeddings by the head; features are finite."""
        core = native()
        if not hasattr(core, "embed_rows"):
            return head.embed(features)
        unit: Float32 = core.embed_rows(head.weight, head.bias, features)
        return unit

    def _forget(self, kept: OrderedDict[str, Any], width: int) -> None:
        """Drop the oldest of what is kept for adapters: at most MAX_ADAPTED, and MAX_ADAPTED_BYTES where these are large."""
        most = max(2, min(MAX_ADAPTED, MAX_ADAPTED_BYTES // max(4 * width * len(self.entries), 1)))
        while len(kept) > most:
            kept.popitem(last=False)

    def _hits(self, places: Sequence[int], similarities: Sequence[float], among: int) -> list[Hit]:
        found = zip(map(self.entries.__getitem__, places), similarities, strict=True)
        return [
            Hit(item.name, item.id, rank, (2.0 - 2.0 * score) ** 0.5 if score < 1.0 else 0.0, item.category, among)
            for rank, (item, score) in enumerate(found, start=1)
        ]

    def _by_chunks(self, function: Rows, width: int) -> Float32:
        rows = np.empty((len(self.entries), width), np.float32)
        for first in range(0, len(rows), CHUNK):
            last = min(first + CHUNK, len(rows))
            rows[first:last] = function(first, last)
        return rows
