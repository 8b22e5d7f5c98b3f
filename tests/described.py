"""Photos with categories and metadata of all kinds, ties among them, and a plain reading of filters to compare with."""

from __future__ import annotations

import numpy as np

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery.filters import All, Any, Compare, Filter, Has, Is, Not
from fgsbir_edge.gallery.metadata import Facts
from fgsbir_edge.gallery.store import MEMORY, PhotoFile, Store
from tests.toy import FEATURES

PHOTOS = 240
ROWS = np.random.default_rng(0).normal(size=(PHOTOS, FEATURES)).astype(np.float32)
ROWS[1::8] = ROWS[::8]  # every eighth photo stands there twice: ties
BRANDS = ("oak", "ash", "red oak", "50")


def facts_of(number: int) -> Facts:
    """Some have a price, a brand (text, or a list), a flag; some nothing; "mixed" is of all kinds."""
    rng = np.random.default_rng([5, number])
    facts: Facts = {"mixed": (True, "true", 1, 2.5)[number % 4]}
    if number % 5:
        facts["price"] = int(rng.integers(100)) if number % 2 else float(rng.uniform(0, 100))
    if number % 3:
        facts["brand"] = BRANDS[rng.integers(4)] if number % 2 else tuple(BRANDS[i] for i in rng.permutation(4)[:2])
    if number % 7 == 0:
        facts["sold"] = bool(rng.integers(2))
    return {} if number % 11 == 0 else facts


NAMES = [(f"{i:04d}.jpg", (None, "chair", "shoe")[i % 3]) for i in range(PHOTOS)]
FACTS = [facts_of(i) for i in range(PHOTOS)]


def holds(where: Filter, place: int) -> bool:
    """A plain reading of one photo."""
    if isinstance(where, Not):
        return not holds(where.part, place)
    if isinstance(where, All):
        return all(holds(part, place) for part in where.parts)
    if isinstance(where, Any):
        return any(holds(part, place) for part in where.parts)
    name, category = NAMES[place]
    known: dict[str, object] = {**FACTS[place], "name": name, **({} if category is None else {"category": category})}
    if where.key not in known:
        return False
    if isinstance(where, Has):
        return True
    value = known[where.key]
    values = value if isinstance(value, tuple) else (value,)
    if isinstance(where, Compare):
        if isinstance(value, (bool, str, tuple)):
            return False
        order = {"<": value < where.value, "<=": value <= where.value, ">": value > where.value, ">=": value >= where.value}
        return order[where.operator]
    wanted = (where.value,) if isinstance(where, Is) else where.values
    return any(one == other and isinstance(one, bool) == isinstance(other, bool) for one in values for other in wanted)


def described(bundle: Bundle, path: str = MEMORY) -> Gallery:
    """A gallery of them."""
    store = Store.create(path, bundle.features_digest, FEATURES)
    files = [PhotoFile(name, category, f"/nowhere/{name}", 1, 1, name) for name, category in NAMES]
    store.add(files, [b"jpeg"] * PHOTOS, ROWS)
    gallery = Gallery(store)
    gallery.set_metadata({name: facts for (name, _), facts in zip(NAMES, FACTS, strict=True)})
    return gallery
