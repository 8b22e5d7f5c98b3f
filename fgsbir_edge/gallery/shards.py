"""Shards: encoded photos on their way into a gallery, from processes or machines that do not share it.

A shard is a safetensors file, whole or not there:

    files       uint8, JSON: for each photo [name, category, source, size, mtime_ns, sha256], in the order of the features
    failed      uint8, JSON: for each photo that could not be read [name, message, size, mtime_ns], or nulls last
    features    float16 [n, C]
    thumbnails  uint8, JPEG files one after the other
    ends        int64 [n], where each thumbnail ends

Its metadata, under the key "shard": format, features_digest, features (C), run, number, of, and the SHA-256 of these and of the
data. Photos of a run, sorted by name, are cut into ``of`` shards; ``run`` is a hash of their names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import ShardFormatError
from fgsbir_edge.files import read_bounded, write_atomic
from fgsbir_edge.gallery.store import Float16, PhotoFile
from fgsbir_edge.head import digest_of

FORMAT = "fgsbir-edge-shard-1"
KEY = "shard"
SUFFIX = ".shard"
MOST_PHOTOS = 8192
_TENSORS = {"files": np.uint8, "failed": np.uint8, "features": np.float16, "thumbnails": np.uint8, "ends": np.int64}
_JPEG = b"\xff\xd8\xff"
_LARGEST = 2**63 - 1  # integers in SQLite
_Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Part:
    """Which part of which run a shard is, and by which encoder (``Bundle.features_digest``, C)."""

    features_digest: str
    features: int
    run: str
    number: int
    of: int

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"{self.number:05d}-of-{self.of:05d}{SUFFIX}"


@dataclass(frozen=True)
class Failed:
    """A photo that could not be read; size and time of the file where it could be seen."""

    name: str
    message: str
    size: int | None
    mtime_ns: int | None


@dataclass(frozen=True, eq=False)
class Shard:
    """Photos with features [n, C], and those that failed."""

    part: Part
    files: tuple[PhotoFile, ...]
    features: Float16
    thumbnails: tuple[bytes, ...]
    failed: tuple[Failed, ...] = ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it. Raises OutputError; then there is nothing, or what was there."""
        from safetensors.numpy import save

        ends = np.cumsum([len(one) for one in self.thumbnails], dtype=np.int64)
        tensors: _Tensors = {
            "files": _packed([_row(file) for file in self.files]),
            "failed": _packed([[one.name, one.message, one.size, one.mtime_ns] for one in self.failed]),
            "features": np.ascontiguousarray(self.features, "<f2"),
            "thumbnails": np.frombuffer(b"".join(self.thumbnails), np.uint8),
            "ends": ends,
        }
        part = {**self.part.__dict__, "format": FORMAT}
        write_atomic(path, save(tensors, {KEY: json.dumps({**part, "sha256": _seal(part, tensors)})}))


def load_shard(path: str | os.PathLike[str]) -> Shard:
    """Read a shard and check all of it. Raises ShardFormatError (missing, truncated, changed, no shard)."""
    try:
        return parse_shard(read_bounded(path))
    except OSError as error:
        raise ShardFormatError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise ShardFormatError(f"{path}: {error}; copy it again, or encode its photos again") from error


def parse_shard(data: bytes, *, sealed: bool = True) -> Shard:
    """The shard in the bytes of a file; with ``sealed`` its hash is checked. Raises ValueError with a short reason."""
    tensors, meta = _tensors(data)
    try:
        part = Part(**{name: meta[name] for name in Part.__dataclass_fields__})
        files = tuple(PhotoFile(*row) for row in _unpacked(tensors["files"]))
        failed = tuple(Failed(*row) for row in _unpacked(tensors["failed"]))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a shard, or damaged ({' '.join(str(error).split())[:80]})") from error
    if sealed and meta.get("sha256") != _seal({**part.__dict__, "format": FORMAT}, tensors):
        raise ValueError("its hash is wrong: it was truncated or changed")
    _check_part(part)
    _check_files(files, failed)
    features, ends = tensors["features"], tensors["ends"]
    if features.shape != (len(files), part.features) or not np.isfinite(features).all():
        raise ValueError(f"features are {list(features.shape)}, expected finite numbers [{len(files)}, {part.features}]")
    return Shard(part, files, features, _cut(tensors["thumbnails"].tobytes(), ends, len(files)), failed)


def shard_paths(places: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Shard files of some files and folders, those of a folder sorted by name. Raises ShardFormatError where there is none."""
    paths: list[Path] = []
    for place in map(Path, places):
        found = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else [place]
        if not found:
            raise ShardFormatError(f"{place}: no shards in this folder; encode photos with 'python -m training.bulk_encode'")
        paths += found
    return paths


def _tensors(data: bytes) -> tuple[_Tensors, dict[str, Any]]:
    """Tensors and metadata, names and dtypes checked. Raises ValueError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        meta = json.loads(header["__metadata__"][KEY])
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not a shard, or truncated ({' '.join(str(error).split())[:80]})") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError(f"not a shard of this version ({FORMAT})")
    if {name: tensor.dtype for name, tensor in tensors.items()} != {name: np.dtype(kind) for name, kind in _TENSORS.items()}:
        raise ValueError(f"its tensors are {sorted(tensors)}, expected {sorted(_TENSORS)}, or of another dtype")
    return tensors, meta


def _packed(rows: list[list[Any]]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(rows, ensure_ascii=True).encode(), np.uint8)


def _unpacked(tensor: NDArray[Any]) -> list[list[Any]]:
    rows = json.loads(tensor.tobytes())
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows) or len(rows) > MOST_PHOTOS:
        raise TypeError("photos are no list, or too many")
    return rows


def _row(file: PhotoFile) -> list[Any]:
    return [file.name, file.category, file.source, file.size, file.mtime_ns, file.sha256]


def _seal(part: dict[str, Any], tensors: _Tensors) -> str:
    """SHA-256 of all that a shard says."""
    return digest_of(json.dumps(part, sort_keys=True).encode(), *(tensors[name].tobytes() for name in sorted(_TENSORS)))


def _check_part(part: Part) -> None:
    texts, numbers = (part.features_digest, part.run), (part.features, part.number, part.of)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise ValueError("its metadata are of other types than a shard's")
    if not (0 < part.features < 2**20 and 0 <= part.number < part.of <= 10**9):
        raise ValueError(f"part {part.number} of {part.of}, {part.features} features: out of range")


def _check_files(files: Sequence[PhotoFile], failed: Sequence[Failed]) -> None:
    for file in files:
        texts = (file.name, file.source, file.sha256, *([] if file.category is None else [file.category]))
        if not all(map(_plain, texts)) or not all(map(_whole, (file.size, file.mtime_ns))):
            raise ValueError(f"photo {str(file.name)[:80]!r} has facts of other types than a photo's")
    for one in failed:
        numbers = [number for number in (one.size, one.mtime_ns) if number is not None]
        if not (_plain(one.name) and _plain(one.message) and all(map(_whole, numbers))):
            raise ValueError("what it says of unreadable photos is of other types than that")
    names = [*(file.name for file in files), *(one.name for one in failed)]
    if len(set(names)) != len(names):
        raise ValueError("it names a photo twice")


def _plain(text: object) -> bool:
    """Whether it is text that a database can keep."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(number: object) -> bool:
    """Whether it is a number that a database can keep."""
    return type(number) is int and abs(number) <= _LARGEST


def _cut(data: bytes, ends: NDArray[Any], count: int) -> tuple[bytes, ...]:
    """Thumbnails [count] of their bytes in a row. Raises ValueError."""
    starts = [0, *(int(end) for end in ends.ravel()[:-1])]
    if ends.shape != (count,) or (count and int(ends[-1]) != len(data)) or (np.diff(ends, prepend=0) <= 0).any():
        raise ValueError("its thumbnails do not fit its photos")
    thumbnails = tuple(data[start : int(end)] for start, end in zip(starts, ends, strict=False))
    if not all(one.startswith(_JPEG) for one in thumbnails):
        raise ValueError("a thumbnail is no JPEG")
    return thumbnails
