"""Shards into a gallery, as if it had indexed their folder itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from fgsbir_edge.errors import GalleryMismatchError, ShardFormatError, UnreadableImageError
from fgsbir_edge.gallery.folder import BATCH, AddReport, check_same_place
from fgsbir_edge.gallery.shards import Part, Shard, load_shard, shard_paths
from fgsbir_edge.gallery.store import Float16, Item, PhotoFile, Store

_New = tuple[PhotoFile, bytes, Float16]  # file, thumbnail, features [C]


@dataclass
class MergeReport(AddReport):
    """What merging did; see ``AddReport``. ``unread`` holds (name, message) of photos that were unreadable when encoded."""

    unread: list[tuple[str, str]] = field(default_factory=list)


def merge(
    shards: Sequence[str | os.PathLike[str]],
    gallery: str | os.PathLike[str],
    *,
    photos: str | os.PathLike[str] | None = None,
    partial: bool = False,
) -> MergeReport:
    """Write shards (files, or folders of them) into a gallery, made where there is none; photos that it has already stay.

    All shards are checked before anything is written, and every 32 photos are one transaction: after an interruption the same
    call goes on. ``photos`` is the folder where they lie on this machine (None: where they lay when they were encoded). Runs of
    which shards are missing are refused unless ``partial``. A photo of the same name from another place is reported in
    ``failed`` and left out.

    Raises ShardFormatError, GalleryMismatchError (another encoder), GalleryFormatError, OutputError.
    """
    paths = _in_order(shard_paths(shards), partial)
    path, part = os.fspath(gallery), load_shard(paths[0]).part
    if os.path.exists(path) and os.path.getsize(path) > 0:
        store = Store.open(path)
    else:
        store = Store.create(path, part.features_digest, part.features)
    try:
        if (store.features_digest, store.features) != (part.features_digest, part.features):
            raise GalleryMismatchError(
                f"{path}: indexed with another encoder ({store.features_digest[:12]}, C={store.features}) than that of the "
                f"shards ({part.features_digest[:12]}, C={part.features}); encode the photos with the gallery's bundle"
            )
        return merge_into(store, (load_shard(one) for one in paths), None if photos is None else Path(photos))
    finally:
        store.close()


def merge_into(store: Store, shards: Iterable[Shard], photos: Path | None = None) -> MergeReport:
    """The same for a store that is open and shards in memory, of the store's encoder. Raises OutputError."""
    return _Merger(store, photos).run(shards)


def _in_order(paths: Sequence[Path], partial: bool) -> list[Path]:
    """The paths of shards run by run, each by number and each shard once. Raises ShardFormatError."""
    runs: dict[tuple[str, int], dict[int, Path]] = {}
    first: Part | None = None
    for path in paths:
        part = load_shard(path).part
        first = first or part
        if (part.features_digest, part.features) != (first.features_digest, first.features):
            raise ShardFormatError(
                f"{path}: encoded by another encoder ({part.features_digest[:12]}, C={part.features}) than {paths[0]} "
                f"({first.features_digest[:12]}, C={first.features}); merge shards of one encoder"
            )
        runs.setdefault((part.run, part.of), {})[part.number] = path
    for (_, of), found in runs.items():
        if len(found) < of and not partial:
            some = ", ".join(map(str, islice((number for number in range(of) if number not in found), 10)))
            raise ShardFormatError(
                f"{next(iter(found.values())).parent}: {of - len(found)} shards are missing, numbers {some}; run the encoding "
                "again, which makes what is missing, or take what is there with --partial"
            )
    return [found[number] for found in runs.values() for number in sorted(found)]


class _Merger:
    """One pass over shards."""

    def __init__(self, store: Store, folder: Path | None) -> None:
        self._store, self._folder = store, folder
        self._known = {item.name: item for item in store.items()}
        self._merged: set[str] = set()
        self.report = MergeReport()

    def run(self, shards: Iterable[Shard]) -> MergeReport:
        new: list[_New] = []
        moved: list[PhotoFile] = []  # same content; one transaction at the end is enough for them
        for shard in shards:
            self.report.unread += [(one.name, one.message) for one in shard.failed]
            for file, thumbnail, features in zip(shard.files, shard.thumbnails, shard.features, strict=True):
                self._sort(self._placed(file), thumbnail, features, new, moved)
                if len(new) == BATCH:
                    self._commit(new)
                    new.clear()
        if new:
            self._commit(new)
        if moved:
            self._store.refresh(moved)
        return self.report

    def _placed(self, file: PhotoFile) -> PhotoFile:
        return file if self._folder is None else replace(file, source=str((self._folder / file.name).absolute()))

    def _sort(self, file: PhotoFile, thumbnail: bytes, features: Float16, new: list[_New], moved: list[PhotoFile]) -> None:
        """Is it new, known, or known by other facts?"""
        known = self._known.get(file.name)
        try:
            if file.name in self._merged:
                raise UnreadableImageError(
                    f"{file.source}: another run has a photo of that name; encode their common parent folder"
                )
            if known is not None:
                check_same_place(known, file.source)
        except UnreadableImageError as error:
            self.report.failed.append((file.name, error))
            return
        self._merged.add(file.name)
        if known is None or known.sha256 != file.sha256:
            new.append((file, thumbnail, features))
            return
        self.report.unchanged += 1
        if _facts(known) != _facts(file):
            moved.append(file)

    def _commit(self, new: Sequence[_New]) -> None:
        files, thumbnails, features = zip(*new, strict=True)
        self._store.add(files, thumbnails, np.stack(features).astype(np.float32))
        updated = sum(file.name in self._known for file in files)
        self.report.updated += updated
        self.report.added += len(files) - updated


def _facts(file: PhotoFile | Item) -> tuple[str | None, str, int, int]:
    return file.category, file.source, file.size, file.mtime_ns
