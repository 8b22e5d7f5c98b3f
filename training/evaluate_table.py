"""A pairs table to be measured: its queries, and which photos they are searched among."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fgsbir_edge.errors import NoPairsError
from training.data.folder import Pair, PairsFolder

GalleryRule = Literal["category", "all"]


@dataclass(frozen=True)
class Table:
    """Queries of one pairs table, and the photos of all their galleries by name.

    Args:
        name: of the file inside the folder.
        folder: with a category for every photo.
        pairs: without repeated rows.
        photos: sorted; those that lie in no gallery are left out.
        per_category: the gallery of a query is its own category's photos, not all of them.
        notes: what a reader of the figures should know.
    """

    name: str
    folder: PairsFolder
    pairs: tuple[Pair, ...]
    photos: tuple[str, ...]
    per_category: bool
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, root: Path, name: str, gallery: GalleryRule) -> Table:
        """Read a table of the folder `root`. Raises what `PairsFolder.read` raises."""
        folder = PairsFolder.read(root, name)
        pairs = tuple(dict.fromkeys(folder.pairs))
        notes = []
        if len(pairs) < len(folder.pairs):
            notes.append(f"{name}: {len(folder.pairs) - len(pairs)} rows repeat another one and count once")
        several = sum(count > 1 for count in Counter(pair.sketch for pair in pairs).values())
        if several:
            notes.append(f"{name}: {several} sketches are listed with several photos or people; every row is a query of its own")
        per_category = gallery == "category" and has_categories(pairs)
        touched = {pair.category for pair in pairs} if per_category else set(folder.photo_category.values())
        searched = {photo for photo, category in folder.photo_category.items() if category in touched}
        searched |= {pair.photo for pair in pairs}
        outside = [photo for photo in folder.photo_category if photo not in searched]
        if outside:
            notes.append(
                f"{name}: {len(outside)} photos ({outside[0]}, ...) are of categories without a sketch and in no gallery; "
                "--gallery all searches them too"
            )
        return cls(name, folder, pairs, tuple(sorted(searched)), per_category, tuple(notes))

    @property
    def sketches(self) -> list[str]:
        """Keys of the sketches, each once, in the table's order."""
        return list(dict.fromkeys(pair.sketch for pair in self.pairs))

    @property
    def photo_category(self) -> dict[str, str]:
        """Category of every photo that is searched; where categories do not divide the gallery, that of the table."""
        if self.per_category or len({pair.category for pair in self.pairs}) > 1:
            return {photo: self.folder.photo_category[photo] for photo in self.photos}
        return dict.fromkeys(self.photos, self.pairs[0].category)

    def without(self, photos: Collection[str], sketches: Collection[str]) -> Table:
        """The table without files that could not be read. Raises NoPairsError when no query is left."""
        pairs = tuple(pair for pair in self.pairs if pair.photo not in photos and pair.sketch not in sketches)
        if not pairs:
            raise NoPairsError(f"{self.folder.root / self.name}: not one row's sketch and photo can be read; check the files")
        return replace(self, pairs=pairs, photos=tuple(photo for photo in self.photos if photo not in photos))


def has_categories(pairs: tuple[Pair, ...]) -> bool:
    """Whether categories divide the photos: several in the table, or one whose photos all lie in the folder of its name."""
    categories = {pair.category for pair in pairs}
    return len(categories) > 1 or all(pair.photo.split("/")[0] == pair.category and "/" in pair.photo for pair in pairs)
