"""The photos that the guard of adaptation ranks among: some of a gallery, always the same ones, embedded once.

What the head makes of them is nearly all of the guard's work among thousands of photos, and does not depend on who adapts.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fgsbir_edge.arrays import Float32, matrix
from fgsbir_edge.errors import AdapterMismatchError
from fgsbir_edge.head import Head
from fgsbir_edge.inner import Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fgsbir_edge.gallery.search import PhotoIndex

MAX_CANDIDATES = 4096  # enough to see a rank get worse, whatever the gallery's size
KEPT = 4  # categories whose candidates stay in memory, the latest; each takes at most 4096 (C + D) float32, 8 MiB with 240
_SEED = 0  # larger galleries are sampled, always alike, so that adapting twice gives the same adapter


@dataclass(frozen=True, eq=False)
class Candidates:
    """Features [N, C] of photos and a head's outputs [N, D] for them, float32."""

    features: Float32
    outputs: Float32
    head: str  # digest

    @classmethod
    def of(cls, head: Head, features: ArrayLike) -> Candidates:
        """Embed them once, for any number of adaptations. Raises ShapeError, NonFiniteError."""
        rows = matrix("candidates", features, head.features)
        return cls(rows, np.ascontiguousarray(head.outputs(rows)), head.digest)

    def __len__(self) -> int:
        return len(self.features)


def pool_of(head: Head, candidates: ArrayLike | Candidates | None) -> Pool | None:
    """Candidates as the native core takes them; None for none.

    Raises ShapeError, NonFiniteError, AdapterMismatchError where they were embedded by another head.
    """
    if isinstance(candidates, Candidates):
        if candidates.head != head.digest:
            raise AdapterMismatchError(
                f"the candidates were embedded by head {candidates.head[:12]}, not {head.digest[:12]}; make them with that one"
            )
        return candidates.features, candidates.outputs
    if candidates is None or np.size(candidates) == 0:
        return None
    return matrix("candidates", candidates, head.features)


def sampled(places: NDArray[np.intp]) -> NDArray[np.intp]:
    """Photos in an order of chance, always the same."""
    return np.random.default_rng(_SEED).permutation(places)


class Guarded:
    """Candidates of a gallery by category, as long as it does not change.

    Of a gallery that has changed nothing but these stays in memory until the next adaptation: not the index, which may be large.
    """

    def __init__(self) -> None:
        self._index: Callable[[], PhotoIndex | None] = lambda: None
        self._kept: OrderedDict[tuple[str, str | None], Candidates] = OrderedDict()

    def candidates(self, head: Head, index: PhotoIndex, category: str | None) -> Candidates | None:
        """At most MAX_CANDIDATES photos of the category (None: of all), None of an empty gallery. Raises EmptyGalleryError."""
        if index is not self._index():
            self._index = weakref.ref(index)
            self._kept.clear()
        if not index.entries:
            return None
        key = head.digest, category
        if key not in self._kept:
            places = index.select(category)
            if len(places) > MAX_CANDIDATES:
                places = np.sort(sampled(places)[:MAX_CANDIDATES])
            self._kept[key] = Candidates.of(head, index.features(places))
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
