"""Flat indexes: the inner products of a query with every embedding, the largest first. By the native core, faiss or NumPy.

What an index stores may be rounded (float16, 8 bits). ``error`` bounds what that does to an inner product, so that a search which
scores its candidates anew can tell whether it has missed one (``search.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import FaissMissingError
from fgsbir_edge.inner import native

Backend = Literal["auto", "native", "numpy", "faiss", "cupy"]
Storage = Literal["float32", "float16", "int8"]
Places = NDArray[np.int64]
STORAGES: dict[str, tuple[Storage, ...]] = {
    "auto": get_args(Storage),
    "native": ("float32", "float16"),
    "numpy": ("float32",),
    "faiss": get_args(Storage),
    "cupy": ("float32", "float16"),
}
Rows = Callable[[int, int], Float32]  # (first, last) -> embeddings [last - first, D] of photos first to last - 1

CHUNK = 4096  # photos embedded at a time
ROUNDING = 1e-6  # of float32 sums of products of unit vectors
BLOCK = 64  # products of which the largest is looked at first, where NumPy searches


@dataclass(frozen=True)
class SearchOptions:
    """How galleries are searched; whatever is chosen, answers are the same unless ``shortlist`` is given.

    Args:
        backend: "native" (the compiled core), "faiss" (``pip install 'fgsbir-edge[search]'``), "numpy", or "cupy" (an NVIDIA GPU,
            on which features and embeddings stay). "auto": the core, or for "int8" faiss where it is installed.
        storage: what an index keeps of each number: "float32", "float16" ("native", "faiss", "cupy") or "int8" (8 bits, "faiss").
            Less is faster to read.
        threads: for one search, at least 1.
        shortlist: M; adapters that move photos re-rank the M photos that the base head finds nearest, from their stored
            features, instead of looking at all. None: all are looked at. "auto": M as ``fgsbir-edge gallery recall --keep`` has
            left it in the gallery, all where it has not.

    Raises:
        ValueError: a value out of range, or a storage that the backend has not.
    """

    backend: Backend = "auto"
    storage: Storage = "float32"
    threads: int = 1
    shortlist: int | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        if self.backend not in get_args(Backend) or self.storage not in get_args(Storage):
            raise ValueError(
                f"backend {self.backend!r} or storage {self.storage!r} is unknown; "
                f"expected one of {get_args(Backend)} and one of {get_args(Storage)}"
            )
        if self.storage not in STORAGES[self.backend]:
            raise ValueError(f"{self.backend!r} has no storage {self.storage!r}, expected one of {STORAGES[self.backend]}")
        if self.threads < 1 or (isinstance(self.shortlist, int) and self.shortlist < 1):
            raise ValueError(f"threads is {self.threads} and shortlist {self.shortlist}, expected at least 1")
        if isinstance(self.shortlist, str) and self.shortlist != "auto":
            raise ValueError(f"shortlist is {self.shortlist!r}, expected a number, None or 'auto'")


class Flat(Protocol):
    """N embeddings to search in."""

    error: float  # a stored inner product lies at most this far from the true one, for unit queries

    def top(self, queries: Float32, count: int, allowed: NDArray[np.bool_] | None) -> tuple[Float32, Places]:
        """The ``count`` largest inner products with each query [B, D], and the places they have: both [B, count], descending.

        ``allowed`` [N] leaves photos out; at least ``count`` must be allowed.
        """
        ...

    def rows(self, places: Places) -> Float32 | None:
        """The embeddings at ``places`` [n, D], or None where they are not stored unrounded."""
        ...


class NumpyFlat:
    """All embeddings [N, D] in one array."""

    error = ROUNDING

    def __init__(self, embeddings: Float32) -> None:
        self.embeddings = embeddings

    def top(self, queries: Float32, count: int, allowed: NDArray[np.bool_] | None) -> tuple[Float32, Places]:
        """See ``Flat``."""
        scores, places = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
        for query, best, where in zip(queries, scores, places, strict=True):
            row = self.embeddings @ query
            if allowed is not None:
                row = np.where(allowed, row, -np.inf)
            where[:] = largest(row, count)
            best[:] = row[where]
        return scores, places

    def rows(self, places: Places) -> Float32:
        """See ``Flat``."""
        return self.embeddings[places]


class FaissFlat:
    """faiss's flat index of N embeddings of width D, filled ``CHUNK`` at a time.

    Args:
        rows: rows(first, last) gives the embeddings of photos first to last - 1, float32 [n, D]; asked for twice where storage
            needs to see them first ("int8": the range of every dimension).

    Raises:
        FaissMissingError: faiss cannot be imported.
    """

    def __init__(self, rows: Rows, shape: tuple[int, int], options: SearchOptions) -> None:
        self._faiss, self._threads = faiss(), options.threads
        self._count, width = shape
        self._exact = options.storage == "float32"
        metric = self._faiss.METRIC_INNER_PRODUCT
        if self._exact:
            self.index = self._faiss.IndexFlatIP(width)
        else:
            kinds = self._faiss.ScalarQuantizer
            kind = kinds.QT_fp16 if options.storage == "float16" else kinds.QT_8bit
            self.index = self._faiss.IndexScalarQuantizer(width, kind, metric)
        spans = [(first, min(first + CHUNK, self._count)) for first in range(0, self._count, CHUNK)]
        if options.storage == "int8":
            self.index.train(_extremes(rows, spans))
        elif not self._exact:
            self.index.train(rows(*spans[0]))  # float16 learns nothing; faiss wants it said
        rounding = 0.0
        for first, last in spans:
            chunk = np.ascontiguousarray(rows(first, last))
            self.index.add(chunk)
            if not self._exact:
                stored = self.index.reconstruct_n(first, last - first)
                rounding = max(rounding, float(np.sqrt(((stored - chunk) ** 2).sum(axis=1).max())))
        self.error = rounding + ROUNDING

    def top(self, queries: Float32, count: int, allowed: NDArray[np.bool_] | None) -> tuple[Float32, Places]:
        """See ``Flat``."""
        options: dict[str, Any] = {}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")  # must outlive the search
            options["params"] = self._faiss.SearchParameters(sel=self._faiss.IDSelectorBitmap(bits))
        before = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(self._threads)
        try:
            scores, places = self.index.search(np.ascontiguousarray(queries), count, **options)
        finally:
            self._faiss.omp_set_num_threads(before)
        return scores, places

    def rows(self, places: Places) -> Float32 | None:
        """See ``Flat``."""
        if not self._exact:
            return None
        stored: Float32 = self.index.reconstruct_batch(places)
        return stored


def faiss() -> ModuleType:
    """The faiss module. Raises FaissMissingError naming the remedy."""
    try:
        import faiss as module
    except ImportError as error:
        raise FaissMissingError(
            f"faiss cannot be imported ({error}); pip install 'fgsbir-edge[search]', or search with backend 'numpy'"
        ) from error
    found: ModuleType = module
    return found


def chosen(options: SearchOptions) -> Backend:
    """The backend that ``options`` mean, never "auto". Raises FaissMissingError where it is asked for and absent."""
    if options.backend == "faiss":
        faiss()
    if options.backend != "auto":
        return options.backend
    if options.storage == "int8":
        with contextlib.suppress(FaissMissingError):
            faiss()
            return "faiss"
    return "native" if hasattr(native(), "top_products") else "numpy"  # a core compiled before it had that


def largest(row: Float32, count: int) -> Places:
    """Places of the ``count`` largest of row [N], descending, equal ones ascending.

    No more than ``count`` blocks hold a number above the count-th largest of all blocks' maxima: only few numbers are sorted.
    """
    whole = len(row) // BLOCK * BLOCK
    if whole >= 4 * count * BLOCK:
        maxima = row[:whole].reshape(-1, BLOCK).max(axis=1)
        found = np.flatnonzero(row >= np.partition(maxima, -count)[-count])
    elif count < len(row):
        found = np.flatnonzero(row >= np.partition(row, -count)[-count])
    else:
        found = np.arange(len(row))
    chosen: Places = found[np.argsort(-row[found], kind="stable")[:count]]
    return chosen


def _extremes(rows: Rows, spans: list[tuple[int, int]]) -> Float32:
    """Two rows [2, D] that span all embeddings: 8 bits between them lose least where every value lies in the range."""
    lowest = np.min([rows(*span).min(axis=0) for span in spans], axis=0)
    highest = np.max([rows(*span).max(axis=0) for span in spans], axis=0)
    return np.stack([lowest, highest]).astype(np.float32)
