"""``Gallery``: the photos that sketches are looked up in."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from fgsbir_edge.arrays import Float32, matrix
from fgsbir_edge.errors import GalleryMismatchError, UnknownPhotoError
from fgsbir_edge.gallery.flat import SearchOptions
from fgsbir_edge.gallery.folder import AddReport, Category, FolderIndexer, OnError, PhotoEncoder, photo_names
from fgsbir_edge.gallery.people import People
from fgsbir_edge.gallery.search import Hit, PhotoIndex
from fgsbir_edge.gallery.store import MEMORY, Item, Store
from fgsbir_edge.head import Adapter, Head

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle


class Gallery:
    """One SQLite file (or ":memory:") of photos and their features, and exact search in it. Use from one thread.

    It is bound to the encoder, and the way photos become its input, that it was made with: stored features of another encoder
    would be found without an error and mean nothing.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index: tuple[int, PhotoIndex] | None = None
        self._search_options = SearchOptions()

    @property
    def people(self) -> People:
        """The people that this gallery knows."""
        return People(self._store)

    @property
    def search_options(self) -> SearchOptions:
        """How this gallery is searched; may be set at any time."""
        return self._search_options

    @search_options.setter
    def search_options(self, options: SearchOptions) -> None:
        self._search_options = options
        self._index = None

    @classmethod
    def create(cls, path: str | os.PathLike[str], bundle: Bundle) -> Gallery:
        """A new, empty gallery. Raises OutputError when the file exists or cannot be made."""
        return cls(Store.create(os.fspath(path), bundle.features_digest, bundle.head.features))

    @classmethod
    def open(cls, path: str | os.PathLike[str], bundle: Bundle | None, readonly: bool | None = None) -> Gallery:
        """An existing gallery; ``readonly`` None means: where it cannot be written. ``bundle`` None: to list or remove only.

        Raises GalleryFormatError (missing, damaged, another version) and GalleryMismatchError (another encoder).
        """
        store = Store.open(os.fspath(path), readonly)
        if bundle is not None and (store.features_digest, store.features) != (bundle.features_digest, bundle.head.features):
            store.close()
            raise GalleryMismatchError(
                f"{path}: indexed with another encoder ({store.features_digest[:12]}, C={store.features}) than that of "
                f"bundle {bundle.name!r} ({bundle.features_digest[:12]}, C={bundle.head.features}); use that one, or index again"
            )
        return cls(store)

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str], bundle: Bundle) -> Gallery:
        """The gallery at ``path``, made where there is none (or an empty file). Raises what ``open`` and ``create`` raise."""
        place = os.fspath(path)
        if place != MEMORY and os.path.exists(place) and os.path.getsize(place) > 0:
            return cls.open(place, bundle)
        return cls.create(place, bundle)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.index.entries)

    @property
    def path(self) -> str:
        """Where it lies; ":memory:" for one that is not kept."""
        return self._store.path

    @property
    def index(self) -> PhotoIndex:
        """The photos in memory, read again when this or another process has changed the file."""
        version = self._store.data_version()
        if self._index is None or self._index[0] != version:
            self._index = version, PhotoIndex(*self._store.load(), self._search_options)
        return self._index[1]

    def items(self) -> tuple[Item, ...]:
        """All photos, in the order in which they were added."""
        return tuple(self._store.items())

    def thumbnail(self, name: str) -> bytes:
        """A photo's thumbnail as JPEG, its longer side at most 128 pixels. Raises UnknownPhotoError."""
        data = self._store.thumbnail(name)
        if data is None:
            raise self.unknown(name)
        return data

    def add_folder(
        self,
        engine: PhotoEncoder,
        folder: str | os.PathLike[str],
        *,
        recursive: bool = True,
        category: Category = "folder",
        progress: bool | None = None,
        on_error: OnError | None = None,
    ) -> AddReport:
        """Add the JPEG, PNG, WebP and BMP files of a folder; photos are named by their POSIX path relative to it.

        Resumable: files known by name, size and time are skipped, changed ones encoded again, and every 32 photos are committed.
        Files that cannot be read are skipped, reported and handed to ``on_error``. ``category`` "folder" takes the name of the
        sub-folder (None for files at the top); another text is given to all; a mapping gives it by name. ``progress`` None shows
        a bar on stderr where that is a terminal. Raises UnreadableImageError (no such folder), OutputError.
        """
        root = Path(folder)
        names = photo_names(root, recursive)
        try:
            return FolderIndexer(self._store, engine, root, category, on_error).run(names, progress)
        finally:
            self._index = None

    def remove(self, names: Sequence[str]) -> None:
        """Remove photos; nothing of them stays in the file. Raises UnknownPhotoError (then none is removed), OutputError."""
        self.positions(names)
        self._store.remove(names)
        self._index = None

    def name_of(self, photo: str | os.PathLike[str]) -> str | None:
        """The name of a photo given by name, or by the path it was indexed from; None where it is neither."""
        name = os.fspath(photo)
        return name if name in self.index.positions else self._store.name_of_source(str(Path(name).absolute()))

    def positions(self, names: Sequence[str]) -> list[int]:
        """Positions of photos in ``items()``. Raises UnknownPhotoError with the nearest names."""
        known = self.index.positions
        for name in names:
            if name not in known:
                raise self.unknown(name)
        return [known[name] for name in names]

    def features(self, names: Sequence[str]) -> Float32:
        """Stored features of photos, float32 [n, C] (float16 precision). Raises UnknownPhotoError."""
        return self.index.features(self.positions(names))

    def search(
        self,
        sketches: ArrayLike,
        k: int = 10,
        *,
        head: Head,
        adapter: Adapter | None = None,
        category: str | None = None,
    ) -> list[list[Hit]]:
        """The k nearest photos of each sketch, from sketch features [B, C]; exact, nearest first, ties in gallery order.

        How is told by ``search_options``. With an adapter, sketches (and with side "both" photos too) are embedded by the adapted
        head. Raises EmptyGalleryError (no photos, or none in ``category``), AdapterMismatchError, ShapeError, NonFiniteError,
        FaissMissingError, ValueError (k below 1).
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        index = self.index
        places = None if category is None and index.entries else index.select(category)
        return index.search(matrix("sketch features", sketches, head.features), k, head=head, adapter=adapter, places=places)

    def ranks(
        self,
        sketches: ArrayLike,
        names: Sequence[str],
        *,
        head: Head,
        adapter: Adapter | None = None,
        category: str | None = None,
    ) -> list[int]:
        """Rank of each sketch's true photo, ties against (METHODS A.4), from sketch features [B, C] and B names.

        Raises UnknownPhotoError, also when a photo lies outside ``category``, and what ``search`` raises.
        """
        index = self.index
        places = index.select(category)
        place_of = {int(place): i for i, place in enumerate(places)}
        for name, position in zip(names, self.positions(names), strict=True):
            if position not in place_of:
                raise UnknownPhotoError(f"photo {name!r} is not in category {category!r}; search without --category")
        own = [place_of[position] for position in self.positions(names)]
        return index.ranks(_embedded(sketches, head, adapter), index.embeddings(head, adapter), own, places)

    def unknown(self, name: str) -> UnknownPhotoError:
        """The error for a name that is not here, with the names it may have meant."""
        known = list(self.index.positions)
        base = PurePosixPath(name).name
        near = [other for other in known if PurePosixPath(other).name == base][:3] or difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(repr(other) for other in near)}?" if near else "see 'fgsbir-edge list' for its photos"
        return UnknownPhotoError(f"photo {name!r} is not in the gallery of {len(known)} photos; {hint}")


def _embedded(features: ArrayLike, head: Head, adapter: Adapter | None) -> Float32:
    rows = matrix("sketch features", features, head.features)
    return head.embed(rows) if adapter is None else adapter.embed(head, rows, "sketch")
