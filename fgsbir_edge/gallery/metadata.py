"""What is known of photos beside their looks: for each a flat object of text, numbers, booleans and lists of text.

    metadata  id, photo, data, crc    data: JSON, keys sorted; crc: CRC-32 of its UTF-8 bytes; photos without metadata have no row

A row names its photo: a photo that is replaced by a changed file keeps its metadata, one that is removed loses it.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from fgsbir_edge.errors import GalleryFormatError, MetadataError, OutputError
from fgsbir_edge.gallery.store import Store

Value = str | int | float | bool | tuple[str, ...]
Given = Mapping[str, "Value | Sequence[str] | None"]  # what callers may give; None takes a key away
Facts = dict[str, Value]

MAX_KEYS = 100  # of one photo
MAX_TEXT = 1000  # characters of one text
MAX_LIST = 100  # texts in one list
MAX_BYTES = 16384  # of a photo's metadata as JSON
MAX_WHOLE = 2**53  # from here on whole numbers are not exact as float64
RESERVED = frozenset({"name", "category", "and", "or", "not", "in", "has", "true", "false"})
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def check_key(key: object) -> str:
    """A key of metadata: a letter or "_", then letters, digits, "_" and "-", at most 64 characters. Raises MetadataError."""
    if not isinstance(key, str):
        raise MetadataError(f"{key!r} is no key; take text")
    return _checked_key(key)


@lru_cache(maxsize=4096)  # galleries have few keys and many photos
def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise MetadataError(f"{key!r} is no key; take 1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or _")
    if key in RESERVED:
        raise MetadataError(f"{key!r} is a word that filters use; take another key (categories are set by indexing)")
    return key


def check_value(key: str, value: object) -> Value:
    """A value as it is kept: lists become tuples. Raises MetadataError naming the key."""
    if isinstance(value, str):
        return _text(key, value)
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        if abs(value) > MAX_WHOLE if isinstance(value, int) else not math.isfinite(value):
            raise MetadataError(
                f"{key!r} is no number that can be compared; they must be finite, whole ones at most 2^53; keep others as text"
            )
        return value
    if isinstance(value, (list, tuple)):
        if not 0 < len(value) <= MAX_LIST or not all(isinstance(one, str) for one in value):
            raise MetadataError(f"{key!r} is a list of {len(value)}; lists hold 1 to {MAX_LIST} texts; leave empty ones out")
        return tuple(_text(key, one) for one in value)
    raise MetadataError(f"{key!r} is of type {type(value).__name__}; values are text, numbers, booleans or lists of text")


def _text(key: str, value: str) -> str:
    if len(value) <= MAX_TEXT and value.isascii() and "\0" not in value:
        return value
    if len(value) > MAX_TEXT or "\0" in value:
        raise MetadataError(f"{key!r} has a text of {len(value)} characters; take at most {MAX_TEXT}, and none that is NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise MetadataError(f"{key!r} has a text that is not valid Unicode; write it anew") from None
    return value


def check_facts(given: Mapping[str, object]) -> Facts:
    """A photo's metadata, checked. Raises MetadataError."""
    if len(given) > MAX_KEYS:
        raise MetadataError(f"{len(given)} keys; a photo can have {MAX_KEYS}")
    return {check_key(key): check_value(key, value) for key, value in given.items()}


def pack(facts: Facts) -> bytes:
    """As JSON, equal facts to equal bytes. Raises MetadataError where it is longer than MAX_BYTES."""
    data = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    if len(data) > MAX_BYTES:
        raise MetadataError(f"{len(data)} bytes of metadata for one photo; the most is {MAX_BYTES}")
    return data


def unpack(data: str, crc: int) -> Facts:
    """The reverse of ``pack``. Raises ValueError with a short reason where the row is damaged."""
    if not isinstance(data, str) or zlib.crc32(data.encode()) != crc:
        raise ValueError("its checksum is wrong")
    try:
        facts = json.loads(data)
        if not isinstance(facts, dict):
            raise ValueError("no JSON object")
        return check_facts(facts)
    except (MetadataError, RecursionError) as error:
        raise ValueError(str(error)) from error


class Metadata:
    """The metadata in one gallery file. Use from one thread. Writing raises OutputError where it cannot be done."""

    def __init__(self, store: Store) -> None:
        self._store, self._db = store, store.db

    def rows(self) -> Iterator[tuple[str, Facts]]:
        """(photo, metadata) of all photos that have any, in no order. Raises GalleryFormatError on a damaged row."""
        if not self._store.has_metadata:
            return
        with self._store.errors():
            for photo, data, crc in self._db.execute("SELECT photo, data, crc FROM metadata"):
                yield photo, self._unpacked(photo, data, crc)

    def of(self, photo: str) -> Facts:
        """One photo's metadata; empty where it has none. Raises GalleryFormatError."""
        if not self._store.has_metadata:
            return {}
        with self._store.errors():
            row = self._db.execute("SELECT data, crc FROM metadata WHERE photo = ?", (photo,)).fetchone()
        return {} if row is None else self._unpacked(photo, *row)

    def set(self, changes: Mapping[str, Given], *, replace: bool = False) -> None:
        """Change photos' metadata in one transaction, key by key (None takes one away), or as a whole with ``replace``.

        Raises MetadataError naming the photo, UnknownPhotoError, OutputError; then nothing is changed.
        """
        if not self._store.has_metadata:
            raise OutputError(f"{self._store.path}: made before metadata and opened read-only; open it for writing once")
        with self._store.writing():
            self._store.check_photos(changes)
            for photo, given in changes.items():
                try:
                    facts: Facts = {} if replace else self.of(photo)
                    gone = [check_key(key) for key, value in given.items() if value is None]
                    facts |= check_facts({key: value for key, value in given.items() if value is not None})
                    for key in gone:
                        facts.pop(key, None)
                    data = pack(check_facts(facts))
                except MetadataError as error:
                    raise MetadataError(f"metadata of {photo!r}: {error}") from None
                if not facts:
                    self._db.execute("DELETE FROM metadata WHERE photo = ?", (photo,))
                    continue
                self._db.execute(
                    "INSERT INTO metadata (photo, data, crc) VALUES (?, ?, ?) "
                    "ON CONFLICT (photo) DO UPDATE SET data = excluded.data, crc = excluded.crc",
                    (photo, data.decode(), zlib.crc32(data)),
                )

    def _unpacked(self, photo: str, data: str, crc: int) -> Facts:
        try:
            return unpack(data, crc)
        except ValueError as error:
            raise GalleryFormatError(
                f"{self._store.path}: metadata of {photo!r} is damaged ({error}); run 'fgsbir-edge gallery repair'"
            ) from error
