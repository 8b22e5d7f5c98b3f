"""The people that a gallery knows: which photos they meant by which sketches, and the adapter learned from that.

    people    id, name, version, oldest, created_at    version: counts what they have shown; oldest: as far as one can go back
    pairs     id, person, photo, sketch, added, removed, added_at    float32 features; in force from `added` to before `removed`
    adapters  person, head, data    of the present version, by the head with that digest; none: to be learned again

A pair names its photo; the photo's features are those of the gallery, and where the photo is removed its pairs go too.

All sketches of a file are of one encoder: ``meta`` holds its digest under "pairs_digest", or it is the photos' where there is
none. A bundle with another sketch encoder may search the file, but not use, nor add to, what people have shown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from fgsbir_edge.arrays import Float32, matrix
from fgsbir_edge.errors import GalleryMismatchError, OutputError, PersonFormatError, UnknownPersonError
from fgsbir_edge.files import pack_tensors, read_bounded, unpack_tensors, write_atomic
from fgsbir_edge.gallery.store import Store
from fgsbir_edge.head import Adapter, Head

HISTORY = 32  # versions that can be undone; pairs that went out of force before them are deleted
PERSON_FORMAT = "fgsbir-edge-person-1"
KEY = "pairs_digest"  # in the file's table ``meta``
MAX_NAME = 200  # characters
NO_IDS: Mapping[str, int] = MappingProxyType({})

_AT = "added <= ? AND (removed IS NULL OR removed > ?)"  # in force at a version


@dataclass(frozen=True, eq=False)
class Shown:
    """What a person has shown as of a version: k pairs, the oldest first."""

    person: str
    version: int  # 0: nothing yet
    photos: tuple[str, ...]
    sketches: Float32  # features [k, C]
    rows: tuple[int, ...] = ()  # where they lie

    def __len__(self) -> int:
        return len(self.photos)

    def with_pair(self, photo: str, sketch: Float32, limit: int) -> Shown:
        """The next version: one more pair, with sketch features [C], and the oldest given up beyond ``limit``."""
        photos, sketches = (*self.photos, photo)[-limit:], np.concatenate([self.sketches, sketch[None]])[-limit:]
        return Shown(self.person, self.version + 1, photos, sketches, self.rows[max(0, len(self) + 1 - limit) :])


class OutdatedError(Exception):
    """Another process has changed the person, or a photo that the adapter was learned from, since; read again and repeat."""


class People:
    """The people of one gallery file. Use from one thread. All writing raises OutputError where it cannot be done.

    Whatever reads or writes pairs raises GalleryMismatchError where they are another sketch encoder's than that of the bundle.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._db = store, store.db

    def names(self) -> list[str]:
        """Everyone's name, sorted."""
        if not self._store.has_people:
            return []
        with self._store.errors():
            return [row[0] for row in self._db.execute("SELECT name FROM people ORDER BY name")]

    def shown(self, person: str, *, back: int = 0) -> Shown:
        """What a person has shown, or had ``back`` versions ago. Raises UnknownPersonError."""
        with self._store.errors(), self._store.reading():
            found = self._row(person)
            if found is None:
                raise self._unknown(person)
            self._check_encoder()
            number, version, oldest = found
            if version - back < oldest:
                raise UnknownPersonError(f"{person!r} has nothing left that could be undone; {HISTORY} steps are kept")
            return self._at(person, number, version - back)

    def shown_or_nothing(self, person: str) -> Shown:
        """The same, where nobody of that name is nothing shown yet."""
        _check_name(person)
        if person in self.names():
            return self.shown(person)
        return Shown(person, 0, (), np.empty((0, self._store.features), np.float32))

    def replace(self, before: Shown, after: Shown, adapter: Adapter, ids: Mapping[str, int] = NO_IDS) -> None:
        """Go from one version to the next, with the adapter learned from it, in one transaction.

        Pairs of ``after`` without a row are its last ones. ``ids``: of the photos that the adapter was learned from, as they were
        then. Raises OutdatedError where ``before`` is not the present version or one of these photos is another by now, and
        UnknownPhotoError where the photo of a new pair has been removed meanwhile.
        """
        with self._store.writing():
            self._check_encoder()
            number = self._held(before)
            self._mark_encoder()
            known = set(after.rows)
            dropped = [row for row in before.rows if row not in known]
            self._db.executemany("UPDATE pairs SET removed = ? WHERE id = ?", [(after.version, row) for row in dropped])
            new = range(len(after.rows), len(after))
            self._store.check_photos([after.photos[i] for i in new])
            self._db.executemany(
                "INSERT INTO pairs (person, photo, sketch, added) VALUES (?, ?, ?, ?)",
                [(number, after.photos[i], after.sketches[i].astype("<f4").tobytes(), after.version) for i in new],
            )
            self._move_to(number, after.version)
            self._keep(number, adapter, ids)

    def undo(self, before: Shown, adapter: Adapter, ids: Mapping[str, int] = NO_IDS) -> None:
        """Go back by one version, for good, with the adapter learned from it; ``ids`` as in ``replace``. Raises OutdatedError."""
        with self._store.writing():
            number = self._held(before)
            self._db.execute("DELETE FROM pairs WHERE person = ? AND added = ?", (number, before.version))
            self._db.execute("UPDATE pairs SET removed = NULL WHERE person = ? AND removed = ?", (number, before.version))
            self._db.execute("UPDATE people SET version = version - 1 WHERE id = ?", (number,))
            self._keep(number, adapter, ids)

    def forget(self, person: str) -> None:
        """Delete a person: nothing of them stays in the file. Raises UnknownPersonError, OutputError."""
        with self._store.writing():
            if self._db.execute("DELETE FROM people WHERE name = ?", (person,)).rowcount == 0:
                raise self._unknown(person)
        self._store.clear_log()

    def adapter(self, person: str, head: Head) -> Adapter | None:
        """The adapter learned from all that is in force; None where it is to be learned again (another head, changed photos)."""
        if not self._store.has_people:
            return None
        with self._store.errors():
            self._check_encoder()
            row = self._db.execute(
                "SELECT data FROM adapters JOIN people ON people.id = person WHERE name = ? AND head = ?", (person, head.digest)
            ).fetchone()
        return None if row is None else Adapter.from_bytes(bytes(row[0]), head, f"{self._store.path}: adapter of {person!r}")

    def keep(self, shown: Shown, adapter: Adapter, ids: Mapping[str, int] = NO_IDS) -> None:
        """Keep an adapter that was learned again; ``ids`` as in ``replace``. Raises OutdatedError."""
        with self._store.writing():
            self._keep(self._held(shown), adapter, ids)

    def pairs_of_others(self, person: str, limit: int) -> tuple[list[str], Float32]:
        """The latest pairs of all other people, at most ``limit``: photos [n], sketch features [n, C]."""
        if not self._store.has_people:
            return [], self._features([])
        with self._store.errors():
            self._check_encoder()
            rows = self._db.execute(
                "SELECT photo, sketch FROM pairs JOIN people ON people.id = person "
                "WHERE name <> ? AND removed IS NULL ORDER BY pairs.id DESC LIMIT ?",
                (person, limit),
            ).fetchall()
        return [row[0] for row in rows], self._features([row[1] for row in rows])

    def save(self, person: str, path: str | os.PathLike[str]) -> None:
        """Write what a person has shown to a file that ``load`` reads. Raises UnknownPersonError, OutputError."""
        shown = self.shown(person)
        meta = {"format": PERSON_FORMAT, "features_digest": self._encoder(), "name": person}
        write_atomic(path, pack_tensors({"sketches": shown.sketches}, {**meta, "photos": json.dumps(shown.photos)}))

    def load(self, path: str | os.PathLike[str]) -> Shown:
        """Read what ``save`` wrote, as version 1 of a person; nothing is kept yet. Raises PersonFormatError."""
        try:
            tensors, meta = unpack_tensors(read_bounded(path))
            if meta.get("format") != PERSON_FORMAT:
                raise ValueError(f"format is {meta.get('format')!r}, expected {PERSON_FORMAT!r}")
            photos = json.loads(meta["photos"])
            if not (isinstance(photos, list) and all(isinstance(photo, str) for photo in photos)):
                raise ValueError("photos are no list of names")
            if meta["features_digest"] != (self._store.pairs_digest or self._encoder()):
                raise ValueError("made with another encoder than this gallery")
            sketches = matrix("sketches", tensors["sketches"], self._store.features)
            if len(sketches) != len(photos):
                raise ValueError(f"{len(sketches)} sketches, {len(photos)} photos")
            _check_name(meta["name"])
        except OSError as error:
            raise PersonFormatError(f"{path}: cannot read ({error.strerror}); check the path") from error
        except KeyError as error:
            raise PersonFormatError(f"{path}: {error} is missing; export the person again") from error
        except Exception as error:
            raise PersonFormatError(f"{path}: {error}; export the person again") from error
        return Shown(meta["name"], 1, tuple(photos), sketches)

    def _encoder(self) -> str:
        """What encoded the sketches that are here."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (KEY,)).fetchone()
        return self._store.features_digest if row is None else str(row[0])

    def _check_encoder(self) -> None:
        now, before = self._store.pairs_digest, self._encoder()
        if now in (None, before) or self._db.execute("SELECT 1 FROM pairs LIMIT 1").fetchone() is None:
            return
        raise GalleryMismatchError(
            f"{self._store.path}: what people have shown was encoded by another sketch encoder ({before[:12]}) than the bundle's "
            f"({now[:12]}); use the bundle it was shown to, or 'fgsbir-edge people forget' everyone and let them show it again"
        )

    def _mark_encoder(self) -> None:
        """Note what encodes the sketches from now on, within a transaction; there are none of another one."""
        now = self._store.pairs_digest
        if now not in (None, self._encoder()):
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (KEY, now))

    def _row(self, person: str) -> tuple[int, int, int] | None:
        """Number, version and the oldest version to go back to."""
        if not self._store.has_people:
            return None
        row = self._db.execute("SELECT id, version, oldest FROM people WHERE name = ?", (person,)).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def _at(self, person: str, number: int, version: int) -> Shown:
        rows = self._db.execute(
            f"SELECT id, photo, sketch FROM pairs WHERE person = ? AND {_AT} ORDER BY id", (number, version, version)
        ).fetchall()
        sketches = self._features([row[2] for row in rows])
        return Shown(person, version, tuple(row[1] for row in rows), sketches, tuple(row[0] for row in rows))

    def _held(self, before: Shown) -> int:
        """The person's number, made now where the version is 0. Raises OutdatedError, within a transaction."""
        found = self._row(before.person)
        if found is None and before.version == 0:
            cursor = self._db.execute("INSERT INTO people (name) VALUES (?)", (before.person,))
            assert cursor.lastrowid is not None
            return cursor.lastrowid
        if found is None or found[1] != before.version or self._at(before.person, found[0], found[1]).rows != before.rows:
            raise OutdatedError
        return found[0]

    def _move_to(self, number: int, version: int) -> None:
        """Set the version, and let go of what lies too far back to be undone."""
        oldest = max(0, version - HISTORY)
        self._db.execute("UPDATE people SET version = ?, oldest = max(oldest, ?) WHERE id = ?", (version, oldest, number))
        self._db.execute("DELETE FROM pairs WHERE person = ? AND removed <= ?", (number, oldest))

    def _keep(self, number: int, adapter: Adapter, ids: Mapping[str, int]) -> None:
        if self._store.ids_of(ids) != dict(ids):
            raise OutdatedError
        self._db.execute("INSERT OR REPLACE INTO adapters VALUES (?, ?, ?)", (number, adapter.head_digest, adapter.to_bytes()))

    def _features(self, blobs: Sequence[bytes]) -> Float32:
        """Sketch features [k, C] of stored rows. Raises OutputError where a row has another width."""
        width = self._store.features
        if any(len(blob) != 4 * width for blob in blobs):
            raise OutputError(f"{self._store.path}: a stored sketch has not {width} features; run 'fgsbir-edge gallery check'")
        return np.frombuffer(b"".join(blobs), "<f4").astype(np.float32).reshape(len(blobs), width)

    def _unknown(self, person: str) -> UnknownPersonError:
        known = ", ".join(map(repr, self.names()[:10])) or "nobody yet"
        return UnknownPersonError(f"person {person!r} is not known in {self._store.path}; there are: {known}")


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"{name!r} is no name for a person; take 1 to {MAX_NAME} printable characters")
