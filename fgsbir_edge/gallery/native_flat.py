"""A flat index in the native core: float32 or float16 rows that one pass reads, with the selection in the same pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32
from fgsbir_edge.gallery.flat import CHUNK, ROUNDING, Places, Rows
from fgsbir_edge.inner import native


class NativeFlat:
    """Embeddings [N, D] in float32; ``error`` as in ``Flat``."""

    error = ROUNDING
    exact = True  # nothing is rounded

    def __init__(self, embeddings: Float32, threads: int = 1) -> None:
        self.stored: NDArray[Any] = np.ascontiguousarray(embeddings)
        self._search, self._threads = native().top_products, threads

    def top(self, queries: Float32, count: int, allowed: NDArray[np.bool_] | None) -> tuple[Float32, Places]:
        """See ``Flat``."""
        found: tuple[Float32, Places] = self._search(self.stored, queries, count, allowed, self._threads)
        return found

    def rows(self, places: Places) -> Float32 | None:
        """See ``Flat``."""
        stored: Float32 = self.stored[places]
        return stored


class NativeHalfFlat(NativeFlat):
    """Embeddings [N, D] in float16, filled ``CHUNK`` at a time from ``rows``; see ``flat.Rows``."""

    exact = False

    def __init__(self, rows: Rows, shape: tuple[int, int], threads: int = 1) -> None:
        stored, rounding = np.empty(shape, np.float16), 0.0
        for first in range(0, shape[0], CHUNK):
            chunk = rows(first, min(first + CHUNK, shape[0]))
            half = stored[first : first + CHUNK] = chunk.astype(np.float16)
            rounding = max(rounding, float(np.sqrt(((half - chunk) ** 2).sum(axis=1).max())))
        super().__init__(stored.view(np.uint16), threads)
        self.error = rounding + ROUNDING

    def rows(self, places: Places) -> None:
        """They are stored rounded."""
        return
