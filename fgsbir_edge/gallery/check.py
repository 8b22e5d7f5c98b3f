"""Is a gallery's file whole? Everything is read and held against everything else; nothing is changed."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from fgsbir_edge.errors import GalleryFormatError
from fgsbir_edge.files import unpack_tensors
from fgsbir_edge.gallery.metadata import unpack
from fgsbir_edge.gallery.store import DAMAGE, Store

MOST_FAULTS = 100  # that are listed; a file with more is beyond listing them


@dataclass
class CheckReport:
    """What a gallery's file holds, and what is wrong with it: one line a fault, at most MOST_FAULTS."""

    path: str
    photos: int = 0
    blocks: int = 0
    people: int = 0
    pairs: int = 0
    described: int = 0  # photos with metadata
    faults: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def fault(self, text: str) -> None:
        """Note one."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(text)


def check(path: str | os.PathLike[str]) -> CheckReport:
    """Read all of a gallery's file, also while others use it: pages, references, checksums, features, adapters.

    Raises GalleryFormatError where there is no such file, or it is not a gallery at all.
    """
    place = os.fspath(path)
    store = Store.open(place, readonly=True)
    report = CheckReport(place)
    try:
        for part in (_pages, _blocks, _items, _people, _metadata):
            _guarded(report, part, store)
    finally:
        store.close()
    return report


def _guarded(report: CheckReport, part: Callable[[CheckReport, Store], None], store: Store) -> None:
    try:
        part(report, store)
    except (*DAMAGE, GalleryFormatError) as error:
        report.fault(f"{part.__name__.strip('_')} cannot be read: {error}")


def _pages(report: CheckReport, store: Store) -> None:
    """SQLite's own checks: pages, indexes, references."""
    for (line,) in store.db.execute(f"PRAGMA integrity_check({MOST_FAULTS})"):
        if line != "ok":
            report.fault(f"page: {line}")
    for table, row, parent, _ in store.db.execute("PRAGMA foreign_key_check"):
        report.fault(f"row {row} of {table} points to a row of {parent} that is not there")


def _blocks(report: CheckReport, store: Store) -> None:
    for block, count, crc in store.db.execute("SELECT id, count, crc FROM blocks ORDER BY id").fetchall():
        report.blocks += 1
        (data,) = store.db.execute("SELECT data FROM blocks WHERE id = ?", (block,)).fetchone()
        if len(data) != 2 * count * store.features:
            report.fault(f"block {block} has {len(data)} bytes, expected {2 * count * store.features}")
        elif zlib.crc32(data) != crc:
            report.fault(f"block {block}: its checksum is wrong")


def _items(report: CheckReport, store: Store) -> None:
    counts = dict(store.db.execute("SELECT id, count FROM blocks"))
    taken: set[tuple[int, int]] = set()
    for name, block, slot in store.db.execute("SELECT name, block, slot FROM items"):
        report.photos += 1
        if not 0 <= slot < counts.get(block, 0):
            report.fault(f"photo {name!r} points outside block {block}")
        elif (block, slot) in taken:
            report.fault(f"photo {name!r} shares slot {slot} of block {block} with another")
        taken.add((block, slot))


def _people(report: CheckReport, store: Store) -> None:
    if not store.has_people:
        return
    report.people = store.db.execute("SELECT count(*) FROM people").fetchone()[0]
    known = {name for (name,) in store.db.execute("SELECT name FROM items")}
    for row, photo, size in store.db.execute("SELECT id, photo, length(sketch) FROM pairs"):
        report.pairs += 1
        if size != 4 * store.features:
            report.fault(f"pair {row} has {size} bytes of features, expected {4 * store.features}")
        if photo not in known:
            report.fault(f"pair {row} names photo {photo!r}, which is not here")
    for row, data in store.db.execute("SELECT person, data FROM adapters"):
        problem = _not_tensors(bytes(data))
        if problem:
            report.fault(f"adapter of person {row}: {problem}")


def _metadata(report: CheckReport, store: Store) -> None:
    if not store.has_metadata:
        return
    known = {name for (name,) in store.db.execute("SELECT name FROM items")}
    for photo, data, crc in store.db.execute("SELECT photo, data, crc FROM metadata"):
        report.described += 1
        try:
            unpack(data, crc)
        except ValueError as error:
            report.fault(f"metadata of photo {photo!r}: {error}")
        if photo not in known:
            report.fault(f"metadata names photo {photo!r}, which is not here")


def _not_tensors(data: bytes) -> str:
    """Why these bytes are no safetensors file; "" where they are one."""
    try:
        unpack_tensors(data)
    except ValueError as error:
        return str(error)
    return ""
