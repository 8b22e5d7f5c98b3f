"""A history of changes to a gallery, each a function of its number alone, so that it can be repeated beside a killed one."""

from __future__ import annotations

from typing import Any

import numpy as np

from fgsbir_edge.gallery.merge import merge_into
from fgsbir_edge.gallery.metadata import Given, Metadata
from fgsbir_edge.gallery.people import People, Shown
from fgsbir_edge.gallery.shards import Part, Shard
from fgsbir_edge.gallery.store import PhotoFile, Store
from fgsbir_edge.head import Adapter, Head

FEATURES, EMBEDDING, NAMES, PEOPLE = 24, 8, 40, 4
DIGEST = "0" * 64


def head() -> Head:
    """A head for the adapters that are stored."""
    rng = np.random.default_rng(0)
    return Head(rng.normal(size=(EMBEDDING, FEATURES)), np.zeros(EMBEDDING), np.ones(1))  # type: ignore[arg-type]


def change(store: Store, number: int) -> None:
    """Change ``number``: photos come, also from shards, change, are described, go; people show, undo, are forgotten."""
    rng = np.random.default_rng([7, number])
    kind = rng.choice(["add", "merge", "remove", "show", "show", "show", "undo", "forget", "describe"])
    people = People(store)
    person = f"person {rng.integers(PEOPLE)}"
    if kind in ("add", "merge"):
        chosen = sorted({int(i) for i in rng.integers(NAMES, size=rng.integers(1, 9))})
        files = [PhotoFile(f"{i:02d}.jpg", "c" if i % 3 else None, f"/nowhere/{i}", 1, number, f"{number}") for i in chosen]
        rows = rng.normal(size=(len(files), FEATURES)).astype(np.float32)
        thumbnails = [rng.bytes(int(rng.integers(10, 4000))) for _ in files]
        if kind == "add":
            store.add(files, thumbnails, rows)
        else:
            merge_into(
                store, [Shard(Part(DIGEST, FEATURES, "run", 0, 1), tuple(files), rows.astype(np.float16), tuple(thumbnails))]
            )
    elif kind == "remove":
        store.remove([f"{int(i):02d}.jpg" for i in rng.integers(NAMES, size=2)])
    elif kind == "show":
        photos = [item.name for item in store.items()]
        if photos:
            before = people.shown_or_nothing(person)
            sketch = rng.normal(size=FEATURES).astype(np.float32)
            after = before.with_pair(photos[int(rng.integers(len(photos)))], sketch, limit=4)
            people.replace(before, after, _adapter(rng, after))
    elif kind == "describe":
        sold = None if rng.random() < 0.5 else True
        told: Given = {"price": float(rng.integers(99)), "tags": [f"tag {rng.integers(9)}"], "sold": sold}
        photos = [item.name for item in store.items()]
        Metadata(store).set({photos[int(i)]: told for i in rng.integers(len(photos), size=3)} if photos else {})
    elif person in people.names():
        if kind == "forget" and rng.random() < 0.3:
            people.forget(person)
        elif kind == "undo" and people.shown(person).version > _oldest(store, person):
            people.undo(people.shown(person), _adapter(rng, people.shown(person, back=1)))


def state(store: Store) -> dict[str, Any]:
    """All that a gallery holds but times."""
    _, features = store.load()
    tables = {
        "thumbnails": "SELECT name, thumbnail FROM items ORDER BY id",
        "people": "SELECT id, name, version, oldest FROM people ORDER BY id",
        "pairs": "SELECT id, person, photo, sketch, added, removed FROM pairs ORDER BY id",
        "adapters": "SELECT person, head, data FROM adapters ORDER BY person",
        "metadata": "SELECT id, photo, data, crc FROM metadata ORDER BY id",
    }
    held: dict[str, Any] = {name: store.db.execute(statement).fetchall() for name, statement in tables.items()}
    held["items"] = [(item.name, item.category, item.mtime_ns, item.block, item.slot) for item in store.items()]
    return {**held, "features": features.tobytes()}


def _adapter(rng: np.random.Generator, shown: Shown) -> Adapter:
    change_of = rng.normal(size=(EMBEDDING, len(shown))).astype(np.float32)
    return Adapter(head().digest, change_of, shown.sketches, "sketch", {"pairs": str(len(shown))})


def _oldest(store: Store, person: str) -> int:
    row = store.db.execute("SELECT oldest FROM people WHERE name = ?", (person,)).fetchone()
    return int(row[0])
