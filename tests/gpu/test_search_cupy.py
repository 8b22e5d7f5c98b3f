"""Search by CuPy on a real GPU: the answers of the processor, with adapters, filters and batches. Never run so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fgsbir_edge.gallery.flat import SearchOptions, Storage
from fgsbir_edge.gallery.search import PhotoIndex
from fgsbir_edge.gallery.store import Entry
from fgsbir_edge.head import Adapter, Head

FEATURES, EMBEDDING, PHOTOS = 512, 64, 20_000


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("batch", [1, 70])
def test_answers_are_those_of_the_processor(library: Any, storage: Storage, batch: int) -> None:
    if library.name != "cupy":
        pytest.skip("CuPy's arrays only")
    rng = np.random.default_rng(0)
    head = Head(rng.normal(size=(EMBEDDING, FEATURES)) / 20.0, rng.normal(size=EMBEDDING), np.ones(1))
    features = rng.normal(size=(PHOTOS, FEATURES)).astype(np.float16)
    entries = [Entry(i, f"{i}", None) for i in range(PHOTOS)]
    sketches = rng.normal(size=(batch, FEATURES)).astype(np.float32)
    change = 0.02 * rng.normal(size=(EMBEDDING, 10))
    adapter = Adapter(head.digest, change, rng.normal(size=(10, FEATURES)), "both")
    some = np.sort(rng.choice(PHOTOS, 300, replace=False))
    for moved in (None, adapter):
        for places in (None, some):
            answers = []
            for options in (SearchOptions(backend="cupy", storage=storage), SearchOptions(backend="numpy")):
                index = PhotoIndex(entries, features, options)
                found = index.search(sketches, 10, head=head, adapter=moved, places=places)
                answers.append([[hit.id for hit in hits] for hits in found])
            assert answers[0] == answers[1]
