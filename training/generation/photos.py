"""Which photos are drawn: one file, any folder of photos, or a dataset folder with people's sketches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fgsbir_edge.errors import PairsFormatError, UnreadableImageError
from training.data.folder import PairsFolder
from training.data.recipes import OWN, RECIPES, ValidationSet
from training.data.sources import UnpairedFolder
from training.data.splits import ordered
from training.data.unlabelled import read_unlabelled
from training.evaluate_table import has_categories

Split = Literal["all", "validation"]


@dataclass(frozen=True)
class PhotoList:
    """Photos to draw: `names` in the folder, in a fixed order that is no order of anything; `folder` knows people's sketches."""

    folder: PairsFolder
    names: tuple[str, ...]

    def limited(self, count: int | None) -> PhotoList:
        """The first `count` photos, or all."""
        return self if count is None else replace(self, names=self.names[:count])

    def person(self, name: str) -> str | None:
        """Name of the first sketch that a person made of a photo."""
        return next((pair.sketch for pair in self.folder.pairs if pair.photo == name), None)


def list_photos(place: Path, category: str = "", split: Split = "all") -> PhotoList:
    """The photos of a file, a folder or a dataset folder.

    Args:
        place: an image file; a folder with pairs.csv and photos/; or a folder of photos, however deep.
        category: of photos that have none; without it that of the sub-folder.
        split: "validation" takes those photos of a dataset folder that training holds back (data/recipes.py).

    Raises:
        UnreadableImageError: nothing there, or no photo in it.
        PairsFormatError: a damaged table, or a split of a folder without one.
    """
    if (place / "pairs.csv").is_file():
        folder = PairsFolder.read(place)
        names = set(folder.photo_category)
        if split == "validation":
            names = {pair.photo for item in splits_of(folder, split) for pair in item.pairs}
        folder = replace(folder, photo_category={name: found or category for name, found in folder.photo_category.items()})
        return PhotoList(folder, _ordered(names))
    if split != "all":
        raise PairsFormatError(f"{place}: no pairs.csv, so that nothing says which photos are held back; leave out --split")
    if place.is_file():
        return PhotoList(UnpairedFolder(place.parent, (), {place.name: category}), (place.name,))
    inside = place / "photos"
    root = inside if inside.is_dir() else place
    if not root.is_dir():
        raise UnreadableImageError(f"{place}: no such file or folder; give a photo, a folder of photos or a dataset folder")
    found = read_unlabelled(root, check=False).names
    categories = {name: category or (name.split("/")[0] if "/" in name else "") for name in found}
    return PhotoList(UnpairedFolder(root, (), categories), _ordered(found))


def splits_of(folder: PairsFolder, split: Split) -> list[ValidationSet]:
    """What of a dataset folder is measured: all of it, or the sets that its recipe (data/recipes.py) holds back."""
    name = folder.root.resolve().name
    if split == "validation":
        return RECIPES.get(name, OWN).validations(name, folder)
    return [ValidationSet(name, folder, folder.pairs, None, has_categories(folder.pairs))]


def _ordered(names: Sequence[str] | set[str]) -> tuple[str, ...]:
    return tuple(ordered(names, "drawn"))
