"""``Gallery``: the photos that sketches are looked up in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgsbir_edge.arrays import Float32, matrix
from fgsbir_edge.errors import EmptyGalleryError, GalleryMismatchError, UnknownPhotoError
from fgsbir_edge.gallery.flat import SearchOptions
from fgsbir_edge.gallery.folder import AddReport, Category, FolderIndexer, OnError, PhotoEncoder, picture_names
from fgsbir_edge.gallery.people import People
from fgsbir_edge.gallery.search import Categories, Chosen, Hit, PhotoIndex
from fgsbir_edge.gallery.shortlist import Shortlist
from fgsbir_edge.gallery.store import MEMORY, Item, Store
from fgsbir_edge.head import Adapter, Head

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.gallery.columns import Columns
    from fgsbir_edge.gallery.filters import Filter, Where
    from fgsbir_edge.gallery.metadata import Facts, Given, Metadata


def _filter(where: Where | Sequence[Where] | None) -> Filter | None:
    """``as_filter``, which is loaded when the first filter comes: most searches, and short commands, have none."""
    if where is None:
        return None
    from fgsbir_edge.gallery.filters import as_filter

    return as_filter(where)


@dataclass(frozen=True)
class Selection:
    """Some of the photos of an index: places, or a mask [N]; None for all."""

    index: PhotoIndex
    places: Chosen | None

    def as_places(self) -> NDArray[np.intp]:
        """Their places, ascending."""
        if self.places is None:
            return np.arange(len(self.index.entries))
        return np.flatnonzero(self.places) if self.places.dtype == np.bool_ else self.places.astype(np.intp, copy=False)


class Gallery:
    """One SQLite file (or ":memory:") of photos and their features, and exact search in it. Use from one thread.

    It is bound to the encoder, and the way photos become its input, that it was made with: stored features of another encoder
    would be found without an error and mean nothing.
    """

    def __init__(self, store: Store, bundle: Bundle | None = None) -> None:
        self._store = store
        if bundle is not None:
            store.pairs_digest = bundle.pairs_digest
        self._index: tuple[int, PhotoIndex] | None = None
        self._columns: tuple[PhotoIndex, Columns] | None = None
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

    def keep_shortlist(self, shortlist: Shortlist) -> None:
        """Write a shortlist's length to the file, for searches with ``SearchOptions(shortlist="auto")``. Raises OutputError."""
        shortlist.keep(self._store)
        self._index = None

    @classmethod
    def create(cls, path: str | os.PathLike[str], bundle: Bundle) -> Gallery:
        """A new, empty gallery. Raises OutputError when the file exists or cannot be made."""
        return cls(Store.create(os.fspath(path), bundle.features_digest, bundle.head.features), bundle)

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
        return cls(store, bundle)

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
            self._index = version, PhotoIndex(*self._store.load(), self._search_options, Shortlist.kept(self._store))
        return self._index[1]

    def items(self, *, category: Categories = None, where: Where | Sequence[Where] | None = None) -> tuple[Item, ...]:
        """All photos, or those of a category and through a filter, in the order in which they were added. Raises FilterError."""
        items, wanted = self._store.items(), _filter(where)
        if wanted is not None:
            mask = self._read_columns([(item.name, item.category) for item in items]).mask(wanted)
            items = [item for item, chosen in zip(items, mask, strict=True) if chosen]
        if category is not None:
            names = {category} if isinstance(category, str) else set(category)
            items = [item for item in items if item.category in names]
        return tuple(items)

    @property
    def columns(self) -> Columns:
        """The metadata in memory, in the order of ``index``; read when first needed, and again when the file has changed."""
        while True:
            version, index = self._store.data_version(), self.index
            if self._columns is None or self._columns[0] is not index:
                entries = [(entry.name, entry.category) for entry in index.entries]
                self._columns = index, self._read_columns(entries)
            if self._store.data_version() == version:  # else another process wrote between photos and metadata
                return self._columns[1]

    def _read_columns(self, photos: list[tuple[str, str | None]]) -> Columns:
        from fgsbir_edge.gallery.columns import Columns

        return Columns(photos, self._metadata.rows())

    @property
    def _metadata(self) -> Metadata:
        from fgsbir_edge.gallery.metadata import Metadata

        return Metadata(self._store)

    def metadata(self, name: str) -> Facts:
        """A photo's metadata; empty where it has none. Raises UnknownPhotoError."""
        if not self._store.has(name):
            raise self.unknown(name)
        return self._metadata.of(name)

    def set_metadata(self, changes: Mapping[str, Given], *, replace: bool = False, skip_missing: bool = False) -> tuple[str, ...]:
        """Change the metadata of photos by name, key by key (None takes one away), or all of a photo's with ``replace``.

        One transaction. Values are text, finite numbers, booleans or lists of text. Names that the gallery does not hold are an
        UnknownPhotoError, or with ``skip_missing`` left out and returned. Raises MetadataError, OutputError.
        """
        missing = [name for name in changes if not self._store.has(name)]
        if missing and not skip_missing:
            raise self.unknown(missing[0])
        self._metadata.set({name: given for name, given in changes.items() if name not in set(missing)}, replace=replace)
        self._columns = None
        return tuple(missing)

    def select(self, category: Categories = None, where: Where | Sequence[Where] | None = None) -> Selection:
        """The photos of a category, or of several, that a filter lets through; all of them without either.

        Raises EmptyGalleryError where there are none, FilterError.
        """
        wanted = _filter(where)
        if wanted is None:
            index = self.index
            return Selection(index, None if category is None and index.entries else index.select(category))
        columns = self.columns
        assert self._columns is not None
        index = self._columns[0]
        places = index.select(category)
        mask = columns.mask(wanted)
        if category is not None:
            inside = np.zeros(len(mask), np.bool_)
            inside[places] = True
            mask = mask & inside
        if not mask.any():
            raise EmptyGalleryError(f"no photo matches {str(wanted)[:400]}; widen it, or see 'fgsbir-edge gallery metadata keys'")
        return Selection(index, mask)

    def thumbnail(self, name: str) -> bytes:
        """A photo's thumbnail as JPEG, its longer side at most 128 pixels. Raises UnknownPhotoError."""
        data = self._store.thumbnail(name)
        if data is None:
            raise self.unknown(name)
        return data

    def item(self, number: int) -> Item:
        """The photo with this ``id``. Raises UnknownPhotoError."""
        found = self._store.item(number)
        if found is None:
            raise UnknownPhotoError(f"photo {number} is not in the gallery; see 'fgsbir-edge list' for its photos")
        return found

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
        Files that cannot be read are skipped, reported and handed to ``on_error``; pictures of other kinds are counted in
        ``others``. ``category`` "folder" takes the name of the sub-folder (None for files at the top); another text is given to
        all; a mapping gives it by name. ``progress`` None shows a bar on stderr where that is a terminal. Raises
        UnreadableImageError (no such folder), OutputError.
        """
        root = Path(folder)
        names, others = picture_names(root, recursive)
        try:
            report = FolderIndexer(self._store, engine, root, category, on_error).run(names, progress)
            report.others = others
            return report
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
        return self._positions(self.index, names)

    def features(self, names: Sequence[str]) -> Float32:
        """Stored features of photos, float32 [n, C] (float16 precision). Raises UnknownPhotoError."""
        index = self.index  # one for both: another process may change the file between two
        return index.features(self._positions(index, names))

    def _positions(self, index: PhotoIndex, names: Sequence[str]) -> list[int]:
        for name in names:
            if name not in index.positions:
                raise self.unknown(name)
        return [index.positions[name] for name in names]

    def ids_of(self, names: Sequence[str]) -> dict[str, int]:
        """The ids of those photos that are here; a photo whose file has changed has another one."""
        return self._store.ids_of(names)

    def sha256_of(self, names: Sequence[str]) -> dict[str, str]:
        """The hashes of the files of those photos that are here."""
        return self._store.sha256_of(names)

    def search(
        self,
        sketches: ArrayLike,
        k: int = 10,
        *,
        head: Head,
        adapter: Adapter | None = None,
        category: Categories = None,
        where: Where | Sequence[Where] | None = None,
    ) -> list[list[Hit]]:
        """The k nearest photos of each sketch, from sketch features [B, C]; exact, nearest first, ties in gallery order.

        How is told by ``search_options``. With an adapter, sketches (and with side "both" photos too) are embedded by the adapted
        head. ``category`` (one or several) and ``where`` (``filters.py``) leave photos out. Raises EmptyGalleryError (no photos,
        or none such), FilterError, AdapterMismatchError, ShapeError, NonFiniteError, FaissMissingError, ValueError (k below 1).
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        chosen = self.select(category, where)
        rows = matrix("sketch features", sketches, head.features)
        return chosen.index.search(rows, k, head=head, adapter=adapter, places=chosen.places)

    def ranks(
        self,
        sketches: ArrayLike,
        names: Sequence[str],
        *,
        head: Head,
        adapter: Adapter | None = None,
        category: Categories = None,
        where: Where | Sequence[Where] | None = None,
    ) -> list[int]:
        """Rank of each sketch's true photo, ties against (METHODS A.4), from sketch features [B, C] and B names.

        Raises UnknownPhotoError, also when a photo lies outside ``category`` or ``where``, and what ``search`` raises.
        """
        chosen = self.select(category, where)
        index, places = chosen.index, chosen.as_places()
        place_of = {int(place): i for i, place in enumerate(places)}
        for name, position in zip(names, self.positions(names), strict=True):
            if position not in place_of:
                outside = f"category {category!r}" if where is None else f"what {str(_filter(where))[:200]} lets through"
                raise UnknownPhotoError(f"photo {name!r} is not in {outside}; search without --category and --where")
        own = [place_of[position] for position in self.positions(names)]
        return index.ranks(_embedded(sketches, head, adapter), index.embeddings(head, adapter), own, places)

    def unknown(self, name: str) -> UnknownPhotoError:
        """The error for a name that is not here, with the names it may have meant."""
        import difflib

        known = list(self.index.positions)
        base = PurePosixPath(name).name
        near = [other for other in known if PurePosixPath(other).name == base][:3] or difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(repr(other) for other in near)}?" if near else "see 'fgsbir-edge list' for its photos"
        return UnknownPhotoError(f"photo {name!r} is not in the gallery of {len(known)} photos; {hint}")


def _embedded(features: ArrayLike, head: Head, adapter: Adapter | None) -> Float32:
    rows = matrix("sketch features", features, head.features)
    return head.embed(rows) if adapter is None else adapter.embed(head, rows, "sketch")
