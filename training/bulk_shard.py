"""One shard of ``bulk_encode``: its photos encoded as a gallery's, or the file kept that holds them already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.console import say
from fgsbir_edge.errors import FgsbirError, NonFiniteError, ShardFormatError
from fgsbir_edge.gallery.folder import FolderIndexer, PhotoEncoder
from fgsbir_edge.gallery.shards import Failed, Part, Shard, load_shard
from fgsbir_edge.gallery.store import Item, PhotoFile


@dataclass(frozen=True)
class Encoding:
    """How shards are made: the encoder, folders of photos and shards, the photos' category, a progress bar."""

    encoder: PhotoEncoder
    folder: Path
    out: Path
    category: str
    progress: bool | None


class _Sink:
    """What a gallery's store is to indexing; keeps it all."""

    def __init__(self) -> None:
        self.files: list[PhotoFile] = []
        self.thumbnails: list[bytes] = []
        self.features: list[Float32] = []

    def items(self) -> list[Item]:
        return []

    def add(self, files: Sequence[PhotoFile], thumbnails: Sequence[bytes], features: Float32) -> None:
        self.files += files
        self.thumbnails += thumbnails
        self.features.append(features)

    def refresh(self, files: Sequence[PhotoFile]) -> None:
        raise AssertionError("no photo is known before it is encoded")


def encode_shard(encoding: Encoding, part: Part, names: Sequence[str]) -> Shard:
    """Encode photos and write the shard; what cannot be read is said and noted in it.

    Raises NonFiniteError where features do not fit float16, OutputError, and what the encoder raises.
    """
    sink = _Sink()
    indexer = FolderIndexer(sink, encoding.encoder, encoding.folder, encoding.category, lambda _, error: say(f"skipped: {error}"))
    report = indexer.run(names, encoding.progress)
    with np.errstate(over="ignore"):
        features = np.concatenate([np.empty((0, part.features), np.float32), *sink.features]).astype("<f2")
    if not np.isfinite(features).all():
        raise NonFiniteError("photo features exceed float16 (65504); the bundle's encoder is not fit for galleries")
    failed = tuple(_failed(encoding.folder, name, error) for name, error in report.failed)
    shard = Shard(part, tuple(sink.files), features, tuple(sink.thumbnails), failed)
    for stale in encoding.out.glob(f".{part.file}.*.part"):  # of a process that was killed; no other writes this shard
        stale.unlink(missing_ok=True)
    shard.save(encoding.out / part.file)
    return shard


def kept_shard(encoding: Encoding, part: Part, names: Sequence[str]) -> Shard | None:
    """The shard of an earlier run: whole, of the same photos, and no photo has changed since; None otherwise."""
    path = encoding.out / part.file
    if not path.exists():
        return None
    try:
        shard = load_shard(path)
    except ShardFormatError as error:
        say(f"encoded again: {error}")
        return None
    facts = {file.name: (file.size, file.mtime_ns) for file in shard.files}
    facts |= {one.name: (one.size, one.mtime_ns) for one in shard.failed}  # type: ignore[misc]
    same = shard.part == part and all(facts.get(_text(name)) == _facts(encoding.folder / name) for name in names)
    return shard if same and len(facts) == len(names) else None


def _failed(folder: Path, name: str, error: FgsbirError) -> Failed:
    size, mtime_ns = _facts(folder / name)
    return Failed(_text(name), _text(str(error)), size, mtime_ns)


def _facts(path: Path) -> tuple[int, int] | tuple[None, None]:
    """Size and time of a file as it is now."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None, None
    return status.st_size, status.st_mtime_ns


def _text(name: str) -> str:
    """A name that can be written down, also of a file whose name is no text."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
