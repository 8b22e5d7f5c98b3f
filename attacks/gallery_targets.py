"""Files of and for galleries, for ``targets.py``: how they are made and what is done with them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from attacks.gallery_ops import DIGEST, FEATURES, change, head
from fgsbir_edge.errors import ShardFormatError
from fgsbir_edge.gallery.check import check
from fgsbir_edge.gallery.columns import Columns
from fgsbir_edge.gallery.filter_text import parse_filter
from fgsbir_edge.gallery.filters import as_filter
from fgsbir_edge.gallery.merge import merge_into
from fgsbir_edge.gallery.metadata import Metadata
from fgsbir_edge.gallery.people import People
from fgsbir_edge.gallery.repair import repair
from fgsbir_edge.gallery.shards import Failed, Part, Shard, load_shard, parse_shard
from fgsbir_edge.gallery.shortlist import Shortlist
from fgsbir_edge.gallery.store import MEMORY, PhotoFile, Store


@cache
def people_of() -> People:
    """A gallery to import into."""
    return People(Store.create(MEMORY, DIGEST, FEATURES))


def write_person(path: Path) -> None:
    """Export someone."""
    store = Store.create(MEMORY, DIGEST, FEATURES)
    people, number = People(store), 0
    while not people.names():
        change(store, number)
        number += 1
    people.save(people.names()[0], path)


def write_gallery(changes: int) -> Callable[[Path], object]:
    """What writes a gallery after so many changes."""

    def write(path: Path) -> None:
        store = Store.create(str(path), DIGEST, FEATURES)
        for number in range(changes):
            change(store, number)
        Shortlist(head().digest, 20, 40, 0.99, 10).keep(store)
        store.close()

    return write


def use_gallery(path: Path) -> None:
    """Open, read, check and repair."""
    saved = path.with_suffix(".saved")
    for ending in ("", "-wal", "-shm"):
        Path(f"{saved}{ending}").unlink(missing_ok=True)
    check(path)
    store = Store.open(str(path), readonly=True)
    try:
        people = People(store)
        for name in people.names():
            shown = people.shown(name)
            people.adapter(shown.person, head())
        store.load()
        dict(Metadata(store).rows())
        Shortlist.kept(store)
    finally:
        store.close()
        try:
            repair(path, saved)
        finally:
            saved.unlink(missing_ok=True)


def shards() -> tuple[Shard, Shard]:
    """One of three photos, one of none."""
    rng = np.random.default_rng(0)
    files = tuple(PhotoFile(f"{i}.jpg", "c" if i else None, f"/nowhere/{i}.jpg", 10, 2, "ab" * 32) for i in range(3))
    rows, thumbnails = rng.normal(size=(3, FEATURES)).astype(np.float16), (b"\xff\xd8\xff1", b"\xff\xd8\xff22", b"\xff\xd8\xff")
    whole = Shard(Part(DIGEST, FEATURES, "run", 0, 2), files, rows, thumbnails, (Failed("bad.jpg", "not an image", 3, 4),))
    empty = Shard(Part(DIGEST, FEATURES, "run", 1, 2), (), rows[:0], (), (Failed("gone.jpg", "no such file", None, None),))
    return whole, empty


def use_shard(path: Path) -> None:
    """Read it; then as if its hash were right, as that of a hostile file would be, and into a gallery."""
    with contextlib.suppress(ShardFormatError):
        load_shard(path)
    try:
        shard = parse_shard(path.read_bytes(), sealed=False)
    except ValueError as error:
        raise ShardFormatError(str(error)) from error
    store = Store.create(MEMORY, shard.part.features_digest, shard.part.features)
    try:
        merge_into(store, [shard])
        store.load()
    finally:
        store.close()


def use_filter(path: Path) -> None:
    """Text as a filter over a few photos, and as JSON where it is some."""
    text = path.read_text(encoding="utf-8", errors="replace")
    entries = [("a.jpg", "chair"), ("b.jpg", None)]
    known = Columns(entries, [("a.jpg", {"price": 5, "brand": "oak", "sold": True}), ("b.jpg", {"tags": ("a", "b")})])
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = text
    where = as_filter(given)
    if where is not None:
        known.mask(where, warn=False)
        if str(parse_filter(str(where))) != str(where):
            raise AssertionError(f"{where} does not read back")
