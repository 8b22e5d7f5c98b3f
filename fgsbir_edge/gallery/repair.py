"""Copies of a gallery: of a file in use, and of what can still be read of a damaged one."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.errors import GalleryFormatError, OutputError
from fgsbir_edge.files import sync_folder
from fgsbir_edge.gallery.metadata import unpack
from fgsbir_edge.gallery.people import KEY
from fgsbir_edge.gallery.store import DAMAGE, PhotoFile, Store

_ITEM = "SELECT name, category, source, size, mtime_ns, sha256, block, slot, thumbnail FROM items WHERE id = ?"
_BATCH = 32  # photos to a new block


@dataclass
class RepairReport:
    """What could be saved. Photos that were lost are named where their names could be read."""

    photos: int = 0
    pairs: int = 0
    described: int = 0  # photos whose metadata was saved
    lost: list[str] = field(default_factory=list)
    unreadable: int = 0  # rows of which not even a name could be read


def backup(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """A copy of a gallery as of one moment, also while others write to it.

    Raises GalleryFormatError (no gallery, damaged) and OutputError; then nothing is left at ``target`` that was not there.
    """
    source = Store.open(os.fspath(path), readonly=True)
    try:
        with _new_file(target) as part:
            copy = sqlite3.connect(part)
            try:
                source.db.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, no log beside it
            finally:
                copy.close()
    except sqlite3.OperationalError as error:
        raise OutputError(f"{path}: cannot be copied to {target} ({error}); is there space?") from error
    except DAMAGE as error:
        raise GalleryFormatError(f"{path}: damaged ({error}); run 'fgsbir-edge gallery repair'") from error
    finally:
        source.close()


def repair(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> RepairReport:
    """Write what can be read of a damaged gallery to a new file; the damaged one stays as it is.

    Kept are photos whose block is whole, and the people's pairs and metadata that name such photos; adapters are learned again
    when needed, and what could be undone is forgotten. Raises GalleryFormatError where not even the head of the file can be
    read, OutputError.
    """
    source = Store.open(os.fspath(path), readonly=True)
    report = RepairReport()
    try:
        with _new_file(target) as part:
            copy = Store.create(part, source.features_digest, source.features)
            try:
                _copy_photos(source, copy, report)
                _copy_people(source, copy, report)
                _copy_metadata(source, copy, report)
            finally:
                copy.close()
    finally:
        source.close()
    return report


@contextlib.contextmanager
def _new_file(target: str | os.PathLike[str]) -> Iterator[str]:
    """The name of a file beside ``target`` that takes its place on success, and goes on failure."""
    place = Path(target)
    if place.exists():
        raise OutputError(f"{target}: exists already; choose another file")
    part = place.parent / f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}.part"
    try:
        open(part, "xb").close()  # where nothing can be written, that shows now
        yield str(part)
        with open(part, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, place)
        sync_folder(place.parent)
    except OSError as error:
        raise OutputError(f"{target}: cannot write ({error.strerror}); choose a writable folder with free space") from error
    finally:
        for ending in ("", "-wal", "-shm", "-journal"):
            Path(f"{part}{ending}").unlink(missing_ok=True)


def _rows(store: Store, table: str) -> Iterator[int]:
    """Numbers of a table's rows, as far as they can be found: by scanning, and past a damaged page by asking for each."""
    last = 0
    try:
        for (row,) in store.db.execute(f"SELECT id FROM {table} NOT INDEXED ORDER BY id"):
            last = row
            yield row
        return
    except DAMAGE:
        pass
    try:
        end = store.db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()[0]
    except (*DAMAGE, TypeError):
        return
    yield from range(last + 1, end + 1)


def _read(store: Store, statement: str, row: int) -> tuple[Any, ...] | None:
    """One row; None where it cannot be read. Raises KeyError where it is not there."""
    try:
        found = store.db.execute(statement, (row,)).fetchone()
    except DAMAGE:
        return None
    if found is None:
        raise KeyError(row)
    return tuple(found)


def _copy_photos(source: Store, copy: Store, report: RepairReport) -> None:
    blocks: dict[int, np.ndarray | None] = {}
    batch: list[tuple[PhotoFile, bytes, np.ndarray]] = []

    def flush() -> None:
        if batch:
            copy.add([one[0] for one in batch], [one[1] for one in batch], np.stack([one[2] for one in batch]).astype(np.float32))
            report.photos += len(batch)
            batch.clear()

    for row in _rows(source, "items"):
        try:
            found = _read(source, _ITEM, row)
        except KeyError:
            continue
        if found is None:
            report.unreadable += 1
            continue
        name, block, slot = found[0], found[6], found[7]
        if block not in blocks:
            blocks[block] = _block(source, block)
        features = blocks[block]
        if features is None or not 0 <= slot < len(features):
            report.lost.append(name)
            continue
        batch.append((PhotoFile(*found[:6]), bytes(found[8]), features[slot]))
        if len(batch) == _BATCH:
            flush()
    flush()


def _block(source: Store, block: int) -> np.ndarray | None:
    """A block's features [count, C], None where it is damaged or gone."""
    try:
        found = _read(source, "SELECT count, crc, data FROM blocks WHERE id = ?", block)
    except KeyError:
        return None
    if found is None or len(found[2]) != 2 * found[0] * source.features or zlib.crc32(found[2]) != found[1]:
        return None
    return np.frombuffer(found[2], "<f2").reshape(found[0], source.features)


def _copy_people(source: Store, copy: Store, report: RepairReport) -> None:
    if not source.has_people:
        return
    known = {item.name for item in copy.items()}
    encoder = source.db.execute("SELECT key, value FROM meta WHERE key = ?", (KEY,)).fetchone()
    with copy.writing():
        if encoder is not None:
            copy.db.execute("INSERT INTO meta VALUES (?, ?)", encoder)
        for row in _rows(source, "people"):
            try:
                person = _read(source, "SELECT id, name, created_at FROM people WHERE id = ?", row)
            except KeyError:
                continue
            if person is None:
                report.unreadable += 1
                continue
            copy.db.execute("INSERT INTO people (id, name, version, oldest, created_at) VALUES (?, ?, 1, 1, ?)", person)
        people = {row[0] for row in copy.db.execute("SELECT id FROM people")}
        for row in _rows(source, "pairs"):
            try:
                pair = _read(source, "SELECT person, photo, sketch, added_at, removed FROM pairs WHERE id = ?", row)
            except KeyError:
                continue
            if pair is None:
                report.unreadable += 1
            elif pair[4] is None and pair[0] in people and pair[1] in known and len(pair[2]) == 4 * source.features:
                copy.db.execute("INSERT INTO pairs (person, photo, sketch, added, added_at) VALUES (?, ?, ?, 1, ?)", pair[:4])
                report.pairs += 1


def _copy_metadata(source: Store, copy: Store, report: RepairReport) -> None:
    if not source.has_metadata:
        return
    known = {item.name for item in copy.items()}
    with copy.writing():
        for row in _rows(source, "metadata"):
            try:
                found = _read(source, "SELECT photo, data, crc FROM metadata WHERE id = ?", row)
                if found is None:
                    raise ValueError
                unpack(found[1], found[2])
            except KeyError:
                continue
            except ValueError:
                report.unreadable += 1
                continue
            if found[0] in known:
                statement = "INSERT OR IGNORE INTO metadata (photo, data, crc) VALUES (?, ?, ?)"
                report.described += copy.db.execute(statement, found).rowcount
