"""Constants of ``Confidence`` for a gallery of one's own, from pairs whose photo is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fgsbir_edge.confidence import SHORTLIST, Confidence
from fgsbir_edge.confidence_fit import ABSENT, BEHIND, Searches, fit, padded
from fgsbir_edge.errors import BundleFormatError, NoPairsError
from fgsbir_edge.head import Adapter

if TYPE_CHECKING:
    from fgsbir_edge.engine import Engine, SketchLike

FEWEST = 20  # pairs that are worth moving constants for
# How far the constants of one kind of photos may well lie from those of all. The slope by size and what lies behind the shortlist
# take galleries of many sizes to tell, and stay.
SPREAD = (3.0, 1e-6, 1e-6, 1e-6, 1e-6, 1.0, 0.1, 3.0, 3.0, 1e-6)


def calibrated(engine: Engine, pairs: Sequence[tuple[SketchLike, str]], *, adapter: Adapter | None = None) -> Confidence:
    """The engine's constants, moved towards what (sketch, photo name) pairs say; for ``engine.confidence`` or a bundle.

    Few pairs move little; thresholds stay as they are. Raises NoPairsError below FEWEST pairs, BundleFormatError where the bundle
    has no constants to begin with, and UnknownPhotoError.
    """
    if engine.confidence is None:
        raise BundleFormatError(f"{engine.bundle.name}: no constants of confidence to begin with; take a bundle that has some")
    if len(pairs) < FEWEST:
        raise NoPairsError(f"{len(pairs)} pairs say too little of confidence; give at least {FEWEST}, better hundreds")
    return fit(searches_for(engine, pairs, adapter), start=engine.confidence, spread=SPREAD)


def searches_for(engine: Engine, pairs: Sequence[tuple[SketchLike, str]], adapter: Adapter | None = None) -> Searches:
    """Every sketch searched for in the whole gallery, and in the gallery without its photo. Raises UnknownPhotoError."""
    engine.gallery.positions([photo for _, photo in pairs])  # before sketches cost an encoding
    features = engine.encode_sketches([sketch for sketch, _ in pairs])
    answers = engine.gallery.search(features, SHORTLIST + 1, head=engine.head, adapter=adapter)
    rows, sizes, places = [], [], []
    for (_, photo), hits in zip(pairs, answers, strict=True):
        among, scores = hits[0].among, [hit.score for hit in hits]
        place = next((number for number, hit in enumerate(hits) if hit.name == photo), BEHIND)
        rows.append(padded(scores))
        sizes.append(among)
        places.append(min(place, BEHIND))
        if among > 1:
            rows.append(padded([score for number, score in enumerate(scores) if number != place]))
            sizes.append(among - 1)
            places.append(ABSENT)
    adapted = np.full(len(rows), adapter is not None and adapter.changes)
    return Searches(np.stack(rows), np.array(sizes), np.array(places), adapted)
