"""Photos of a folder into the gallery: recursive, resumable, bad files reported and skipped."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import FgsbirError, UnreadableImageError
from fgsbir_edge.gallery.store import Item, PhotoFile
from fgsbir_edge.preprocess import InputSpec, open_photo

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp"})
OTHERS = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".tif", ".tiff", ".dng", ".cr2", ".cr3", ".nef", ".arw"})
BATCH = 32  # photos encoded and committed together: what an interruption can lose
THUMBNAIL = 128  # pixels, the longer side

Category = str | Mapping[str, str] | None
OnError = Callable[[str, FgsbirError], None]


class PhotoEncoder(Protocol):
    """What indexing needs of an engine."""

    @property
    def input(self) -> InputSpec:
        """How photos are brought to size."""
        ...

    def encode_pixels(self, images: Sequence[NDArray[np.uint8]]) -> Float32:
        """uint8 [S, S, 3] each -> features float32 [n, C]."""
        ...


@dataclass
class AddReport:
    """What indexing a folder did. ``failed`` holds (name, error) of files that were skipped.

    ``others`` counts pictures of kinds that are not read, by their endings: they are left out, and should not be so in silence.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: list[tuple[str, FgsbirError]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)

    @property
    def found(self) -> int:
        """How many image files the folder has."""
        return self.added + self.updated + self.unchanged + len(self.failed)


@dataclass(frozen=True)
class _Loaded:
    file: PhotoFile
    pixels: NDArray[np.uint8]
    thumbnail: bytes


class Sink(Protocol):
    """What indexing needs of a store."""

    def items(self) -> list[Item]:
        """Photos that are known."""
        ...

    def add(self, files: Sequence[PhotoFile], thumbnails: Sequence[bytes], features: Float32) -> None:
        """Take photos with features [n, C]."""
        ...

    def refresh(self, files: Sequence[PhotoFile]) -> None:
        """Note other facts of known photos."""
        ...


class FolderIndexer:
    """One pass over one folder."""

    def __init__(self, store: Sink, encoder: PhotoEncoder, folder: Path, category: Category, on_error: OnError | None) -> None:
        self._store, self._encoder, self._on_error = store, encoder, on_error
        self._folder, self._category = folder, category
        self._known = {item.name: item for item in store.items()}
        self._moved: list[PhotoFile] = []  # same content; one transaction at the end is enough for them
        self.report = AddReport()

    def run(self, names: Sequence[str], progress: bool | None) -> AddReport:
        """Index files by name; ``progress`` None shows a bar on stderr where that is a terminal."""
        batch: list[_Loaded] = []
        for name in _watched(names, sys.stderr.isatty() if progress is None else progress):
            try:
                loaded = self._load(name)
            except FgsbirError as error:
                self.report.failed.append((name, error))
                if self._on_error is not None:
                    self._on_error(name, error)
                continue
            if loaded is not None:
                batch.append(loaded)
            if len(batch) == BATCH:
                self._commit(batch)
                batch = []
        if batch:
            self._commit(batch)
        if self._moved:
            self._store.refresh(self._moved)
        return self.report

    def _load(self, name: str) -> _Loaded | None:
        """Read one photo, or None where the gallery has it already."""
        path = self._folder / name
        try:
            name.encode()
            status = path.stat()
        except UnicodeEncodeError:
            raise UnreadableImageError(f"{name!r}: the file name is not valid text; rename it") from None
        except OSError as error:
            raise UnreadableImageError(f"{path}: cannot be read ({error.strerror}); check the link or its permissions") from error
        known = self._known.get(name)
        source = str(path.absolute())
        if known is not None:
            check_same_place(known, source)
            if (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
                self.report.unchanged += 1
                if known.source != source or known.category != self._category_of(name):
                    self._moved.append(self._file(name, source, status, known.sha256))
                return None
        pixels, thumbnail, sha256 = _read(path, self._encoder.input)
        file = self._file(name, source, status, sha256)
        if known is not None and known.sha256 == sha256:  # touched or copied, not changed
            self.report.unchanged += 1
            self._moved.append(file)
            return None
        return _Loaded(file, pixels, thumbnail)

    def _commit(self, batch: Sequence[_Loaded]) -> None:
        features = self._encoder.encode_pixels([loaded.pixels for loaded in batch])
        self._store.add([loaded.file for loaded in batch], [loaded.thumbnail for loaded in batch], features)
        updated = sum(loaded.file.name in self._known for loaded in batch)
        self.report.updated += updated
        self.report.added += len(batch) - updated

    def _file(self, name: str, source: str, status: os.stat_result, sha256: str) -> PhotoFile:
        return PhotoFile(name, self._category_of(name), source, status.st_size, status.st_mtime_ns, sha256)

    def _category_of(self, name: str) -> str | None:
        parent = PurePosixPath(name).parent.as_posix()
        by_folder = None if parent == "." else parent
        if isinstance(self._category, Mapping):
            return self._category.get(name, by_folder)
        return by_folder if self._category == "folder" else self._category


def _watched(names: Sequence[str], progress: bool) -> Iterable[str]:
    if not progress:  # and the bar is not loaded either, which takes longer than reading a photo
        return names
    from tqdm import tqdm

    bar: Iterable[str] = tqdm(names, desc="indexing", unit="photo", leave=False)
    return bar


def photo_names(folder: Path, recursive: bool = True) -> list[str]:
    """Names of the image files below a folder: POSIX, relative, sorted; hidden files and folders are left out.

    Links to folders are followed, each real folder once, so that a loop ends. Raises UnreadableImageError without such a folder.
    """
    return picture_names(folder, recursive)[0]


def picture_names(folder: Path, recursive: bool = True) -> tuple[list[str], dict[str, int]]:
    """``photo_names``, and how many pictures of other kinds there are, by ending. Raises UnreadableImageError."""
    if not folder.is_dir():
        raise UnreadableImageError(f"{folder}: no such folder; check the path")
    names: list[str] = []
    others: Counter[str] = Counter()
    for name in _walk(folder, recursive):
        ending = os.path.splitext(name)[1].lower()
        if ending in SUFFIXES:
            names.append(name)
        elif ending in OTHERS:
            others[ending] += 1
    return sorted(names), dict(sorted(others.items()))


def _walk(root: Path, recursive: bool) -> Iterator[str]:
    """Every file that is not hidden."""
    seen: set[str] = set()
    for here, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        for name in files:
            if not name.startswith("."):
                yield Path(here, name).relative_to(root).as_posix()


def check_same_place(known: Item, source: str) -> None:
    """Two photos cannot have one name; a folder that was moved as a whole may keep its names."""
    if known.source != source and os.path.exists(known.source) and not os.path.samefile(known.source, source):
        raise UnreadableImageError(
            f"{source}: the gallery has another photo of that name, from {known.source}; index their common parent folder instead"
        )


def _read(path: Path, spec: InputSpec) -> tuple[NDArray[np.uint8], bytes, str]:
    """Encoder-size pixels uint8 [S, S, 3], a JPEG thumbnail, and the file's SHA-256."""
    from fgsbir_edge.photo import photo_pixels

    image = open_photo(path, spec)  # checks the kind and size of the file before it is read for its hash
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path}: cannot be read ({error.strerror}); was it moved meanwhile?") from error
    pixels = photo_pixels(image, spec.size, spec.photo_fit)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    return pixels, jpeg.getvalue(), hashlib.sha256(data).hexdigest()
