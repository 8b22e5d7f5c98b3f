"""The gallery's file: one SQLite database, written so that power loss leaves the old state or the new one.

    meta    key, value             "features_digest" (encoder and photo input), "features" (C)
    blocks  id, count, crc, data   float16 little-endian [count, C], one block for each transaction that added photos
    items   id, name, category, source, size, mtime_ns, sha256, block, slot, thumbnail, added_at
    people, pairs, adapters        what people have shown, and what was learned of it (``people.py``)
    metadata                       what is known of photos beside their looks (``metadata.py``)

``application_id`` marks the file, ``user_version`` is the schema's version; older files get the tables that they lack
when they are opened for writing. Removing a photo overwrites its thumbnail and its slot with zeros, closes up blocks that are
mostly empty then and drops those that nothing points to, and the pairs and metadata that name it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import GalleryFormatError, NonFiniteError, OutputError, UnknownPhotoError
from fgsbir_edge.gallery.schema import APPLICATION_ID, SCHEMA, VERSION, WITH_METADATA, WITH_PEOPLE, configure, connect, upgrade

MEMORY = ":memory:"
DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter where SQLite's message quotes what should be text

_ITEM_COLUMNS = "id, name, category, source, size, mtime_ns, sha256, block, slot, added_at"

Float16 = NDArray[np.float16]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhotoFile:
    """A photo on disk as it was when it was read."""

    name: str  # POSIX path relative to the indexed folder
    category: str | None
    source: str  # absolute path
    size: int  # bytes
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Item(PhotoFile):
    """A photo of the gallery."""

    id: int
    block: int
    slot: int
    added_at: str  # UTC, ISO 8601


@dataclass(frozen=True)
class Entry:
    """What a search must know of a photo: little, since there may be millions."""

    __slots__ = ("category", "id", "name")

    id: int
    name: str
    category: str | None


class Store:
    """Rows in, rows out; knows nothing of images or heads. Use from one thread."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self.db = connection
        self.path = path
        self.pairs_digest: str | None = None  # Bundle.pairs_digest of the bundle in use; None: nothing is encoded, only listed
        with self.errors():
            meta = dict(self.db.execute("SELECT key, value FROM meta"))
            version = self.db.execute("PRAGMA user_version").fetchone()[0]
            self.has_people, self.has_metadata = version >= WITH_PEOPLE, version >= WITH_METADATA
            try:
                self.features_digest, self.features = meta["features_digest"], int(meta["features"])
            except (KeyError, ValueError) as error:
                raise GalleryFormatError(f"{path}: its meta table lacks {error}; index the photos again") from error

    @classmethod
    def create(cls, path: str, features_digest: str, features: int) -> Store:
        """A new database at ``path`` (or MEMORY) for features of one encoder and C = ``features``. Raises OutputError."""
        if path != MEMORY and os.path.exists(path) and os.path.getsize(path) > 0:
            raise OutputError(f"{path}: exists already; open it, or choose another file")
        connection = None
        try:
            connection = sqlite3.connect(path, isolation_level=None)
            connection.executescript(SCHEMA)
            meta = {"features_digest": features_digest, "features": str(features)}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            connection.execute("COMMIT")
            configure(connection)
        except sqlite3.Error as error:
            if connection is not None:  # the file was absent or empty before
                connection.close()
                Path(path).unlink(missing_ok=True)
            raise OutputError(f"{path}: cannot be created ({error}); choose a writable folder with free space") from error
        return cls(connection, path)

    @classmethod
    def open(cls, path: str, readonly: bool | None = None) -> Store:
        """Open an existing file; ``readonly`` None means: where it cannot be written. Raises GalleryFormatError."""
        if not os.path.isfile(path):
            raise GalleryFormatError(f"{path}: no such gallery; make one with 'fgsbir-edge index FOLDER --gallery {path}'")
        if readonly is None:
            readonly = not (os.access(path, os.W_OK) and os.access(os.path.dirname(os.path.abspath(path)), os.W_OK))
        try:
            connection = connect(path, readonly)
            marks = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        except sqlite3.Error as error:
            raise GalleryFormatError(f"{path}: not a gallery, or damaged ({error}); index the photos again") from error
        if marks[0] != APPLICATION_ID or not 1 <= marks[1] <= VERSION:
            connection.close()
            what = f"version {marks[1]} of a gallery" if marks[0] == APPLICATION_ID else "another program's database, or empty"
            raise GalleryFormatError(
                f"{path}: {what}; this release reads galleries up to version {VERSION}, update it or index the photos again"
            )
        try:
            if not readonly:
                configure(connection)  # only now: another program's database must stay as it is
                upgrade(connection)
            return cls(connection, path)
        except (GalleryFormatError, sqlite3.Error) as error:
            connection.close()
            if isinstance(error, GalleryFormatError):
                raise
            raise GalleryFormatError(f"{path}: damaged or locked ({error}); restore a copy, or index again") from error

    def close(self) -> None:
        """Close; the write-ahead log is folded into the file."""
        self.db.close()

    def data_version(self) -> int:
        """Changes when another connection has committed."""
        with self.errors():
            return int(self.db.execute("PRAGMA data_version").fetchone()[0])

    def items(self) -> list[Item]:
        """All photos, in the order in which they were added."""
        with self.errors():
            rows = self.db.execute(f"SELECT {_ITEM_COLUMNS} FROM items ORDER BY id").fetchall()
        return [_item(row) for row in rows]

    def item(self, number: int) -> Item | None:
        """The photo with this id, None where there is none."""
        with self.errors():
            row = self.db.execute(f"SELECT {_ITEM_COLUMNS} FROM items WHERE id = ?", (number,)).fetchone()
        return None if row is None else _item(row)

    def thumbnail(self, name: str) -> bytes | None:
        """JPEG bytes of a photo's thumbnail, None for an unknown name."""
        with self.errors():
            row = self.db.execute("SELECT thumbnail FROM items WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def load(self) -> tuple[list[Entry], Float16]:
        """All photos in the order in which they were added, and their features, float16 [N, C] row for row.

        Raises GalleryFormatError on a damaged block.
        """
        with self.errors(), self.reading():
            entries: list[Entry] = []
            places: dict[int, list[tuple[int, int]]] = {}  # of each block: (row, slot)
            categories: dict[str | None, str | None] = {}  # each name once in memory
            for number, name, category, block, slot in self.db.execute(
                "SELECT id, name, category, block, slot FROM items ORDER BY id"
            ):
                places.setdefault(block, []).append((len(entries), slot))
                entries.append(Entry(number, name, categories.setdefault(category, category)))
            features = np.empty((len(entries), self.features), np.float16)
            for block, count, crc, data in self.db.execute("SELECT id, count, crc, data FROM blocks"):
                rows, slots = np.array(places.pop(block, []), np.intp).reshape(-1, 2).T
                if len(slots) and not 0 <= slots.min() <= slots.max() < count:
                    places[block] = []
                    break
                features[rows] = self._block(block, count, crc, data)[slots]
        if places:
            raise GalleryFormatError(f"{self.path}: an item points outside its block; index the photos again")
        return entries, features

    def has(self, name: str) -> bool:
        """Whether there is a photo of that name."""
        with self.errors():
            return self.db.execute("SELECT 1 FROM items WHERE name = ?", (name,)).fetchone() is not None

    def sha256_of(self, names: Sequence[str]) -> dict[str, str]:
        """The hashes of the files of those photos that are here."""
        with self.errors():
            rows = [self.db.execute("SELECT name, sha256 FROM items WHERE name = ?", (name,)).fetchone() for name in names]
        return {row[0]: row[1] for row in rows if row is not None}

    def ids_of(self, names: Iterable[str]) -> dict[str, int]:
        """The ids of those photos that are here; a photo whose file has changed has another one."""
        with self.errors():
            rows = [self.db.execute("SELECT name, id FROM items WHERE name = ?", (name,)).fetchone() for name in names]
        return {row[0]: row[1] for row in rows if row is not None}

    def name_of_source(self, source: str) -> str | None:
        """The photo that was indexed from a path, None where there is none."""
        with self.errors():
            row = self.db.execute("SELECT name FROM items WHERE source = ? ORDER BY id DESC LIMIT 1", (source,)).fetchone()
        return None if row is None else str(row[0])

    def add(self, files: Sequence[PhotoFile], thumbnails: Sequence[bytes], features: Float32) -> None:
        """Add photos with features [n, C] in one transaction; those whose names are known replace the old ones.

        Raises NonFiniteError when features do not fit float16, OutputError when nothing can be written; then nothing is changed.
        """
        with np.errstate(over="ignore"):
            half = features.astype("<f2")
        if not np.isfinite(half).all():
            raise NonFiniteError("photo features exceed float16 (65504); the bundle's encoder is not fit for galleries")
        data = half.tobytes()
        with self.writing():
            self._erase([file.name for file in files])
            cursor = self.db.execute(
                "INSERT INTO blocks (count, crc, data) VALUES (?, ?, ?)", (len(files), zlib.crc32(data), data)
            )
            rows = [
                (file.name, file.category, file.source, file.size, file.mtime_ns, file.sha256, cursor.lastrowid, slot, thumbnail)
                for slot, (file, thumbnail) in enumerate(zip(files, thumbnails, strict=True))
            ]
            self.db.executemany(
                "INSERT INTO items (name, category, source, size, mtime_ns, sha256, block, slot, thumbnail) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def refresh(self, files: Sequence[PhotoFile]) -> None:
        """Note where photos lie, their sizes, times and categories now; their content is as it was."""
        with self.writing():
            self.db.executemany(
                "UPDATE items SET category = ?, source = ?, size = ?, mtime_ns = ? WHERE name = ?",
                [(file.category, file.source, file.size, file.mtime_ns, file.name) for file in files],
            )

    def remove(self, names: Sequence[str]) -> None:
        """Remove photos, and what names them, so that nothing is left of them in the file. Raises OutputError."""
        with self.writing():
            self._erase(names)
            for table in ("pairs", "metadata"):
                self.db.executemany(f"DELETE FROM {table} WHERE photo = ?", [(name,) for name in names])
        self.clear_log()

    def check_photos(self, names: Iterable[str]) -> None:
        """Within a transaction: are these photos there? Raises UnknownPhotoError where one was removed since it was looked up."""
        for name in names:
            if not self.has(name):
                raise UnknownPhotoError(f"photo {name!r} is not in {self.path} any more; it was removed meanwhile")

    def clear_log(self) -> None:
        """Fold the write-ahead log into the file: older pages, with what was deleted, would stay in either.

        Where a reader is at work for longer than the wait (5 s), a warning says so; the next deletion, or whoever closes the file
        last, does it then.
        """
        with self.errors():
            (busy, _, _) = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            _log.warning(
                "%s: a reader is at work; what was deleted stays in %s-wal until the next deletion", self.path, self.path
            )

    def _erase(self, names: Sequence[str]) -> None:
        touched: dict[int, list[int]] = {}
        for name in names:
            row = self.db.execute("SELECT block, slot FROM items WHERE name = ?", (name,)).fetchone()
            if row is not None:
                self.db.execute("DELETE FROM items WHERE name = ?", (name,))
                touched.setdefault(row[0], []).append(row[1])
        learned = "DELETE FROM adapters WHERE person IN (SELECT person FROM pairs WHERE photo = ?)"
        self.db.executemany(learned, [(name,) for name in names])  # from a photo that is gone, or looks otherwise now
        for block, slots in touched.items():
            left = self.db.execute("SELECT id, slot FROM items WHERE block = ? ORDER BY slot", (block,)).fetchall()
            if not left:
                self.db.execute("DELETE FROM blocks WHERE id = ?", (block,))
                continue
            count, crc, data = self.db.execute("SELECT count, crc, data FROM blocks WHERE id = ?", (block,)).fetchone()
            array = self._block(block, count, crc, data)
            if not 0 <= min(*slots, left[0][1]) <= max(*slots, left[-1][1]) < count:
                raise GalleryFormatError(f"{self.path}: an item points outside block {block}; restore a copy, or index again")
            self._shrink(block, array, slots, left)

    def _shrink(self, block: int, array: Float16, gone: list[int], left: list[tuple[int, int]]) -> None:
        """Take slots out of a block [count, C]: overwritten, or where most are gone closed up to the (item, slot) ``left``."""
        if 2 * len(left) < len(array):  # or the block would keep its size until its last photo goes
            array = array[[slot for _, slot in left]]
            self.db.executemany("UPDATE items SET slot = ? WHERE id = ?", [(slot, item) for slot, (item, _) in enumerate(left)])
        else:
            array = array.copy()
            array[gone] = 0
        data = array.tobytes()
        statement = "UPDATE blocks SET count = ?, crc = ?, data = ? WHERE id = ?"
        self.db.execute(statement, (len(array), zlib.crc32(data), data, block))

    def _block(self, block: int, count: int, crc: int, data: bytes) -> Float16:
        """A checked block, float16 [count, C]."""
        if len(data) != 2 * count * self.features or zlib.crc32(data) != crc:
            raise GalleryFormatError(f"{self.path}: block {block} is damaged; restore a copy, or index the photos again")
        return np.frombuffer(data, "<f2").reshape(count, self.features)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """One snapshot over several SELECTs, whatever other processes write meanwhile."""
        self.db.execute("BEGIN")
        try:
            yield
        finally:
            self.db.execute("COMMIT")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction, rolled back on any error."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
        except sqlite3.ProgrammingError:  # used after close, or from another thread: the caller's mistake, not the file's
            raise
        except sqlite3.OperationalError as error:  # full disk, read-only file, locked by another process
            raise OutputError(f"{self.path}: cannot be written ({error}); free space, permissions, or another writer?") from error
        except DAMAGE as error:
            raise GalleryFormatError(f"{self.path}: damaged ({error}); restore a copy, or index the photos again") from error

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except DAMAGE as error:
            raise GalleryFormatError(f"{self.path}: damaged or locked ({error}); restore a copy, or index again") from error


def _item(row: tuple[Any, ...]) -> Item:
    """A row of _ITEM_COLUMNS."""
    number, name, category, source, size, mtime_ns, sha256, block, slot, added_at = row
    return Item(name, category, source, size, mtime_ns, sha256, number, block, slot, added_at)
