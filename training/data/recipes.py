"""The known datasets: which side of each trains, and which validates.

A dataset is known by the name of its folder. Its split is cut from pairs.csv, whatever other table the training pairs come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgsbir_edge.errors import PairsFormatError
from training.data.folder import Pair, PairsFolder
from training.data.splits import (
    CHAIRV1_VALIDATION_PHOTOS,
    CHAIRV2_VALIDATION_PHOTOS,
    SHOEV1_VALIDATION_PHOTOS,
    merge_pairs,
    select,
    split_categories,
    split_drawings,
    split_photos,
)

# Photos in both chairv1 and chairv2, as training.data_report finds them, in the same order: both train on them, so that neither
# validates on what the other saw.
CHAIRV1_SHARED = ("68.jpg", "107.jpg", "172.jpg")
CHAIRV2_SHARED = ("70288630_v1.png", "10259485_v1.png", "70087212_v1.png")


@dataclass(frozen=True)
class TrainingSide:
    """What of a dataset training may see: these photos, drawn by these people (None: anyone)."""

    photos: frozenset[str]
    users: frozenset[str] | None = None


@dataclass(frozen=True)
class ValidationSet:
    """Queries and gallery that training never saw; `photos` None: every photo of the categories that the pairs touch."""

    name: str
    folder: PairsFolder
    pairs: tuple[Pair, ...]
    photos: frozenset[str] | None
    per_category: bool


@dataclass(frozen=True)
class PhotoRecipe:
    """A dataset split by photo. `tables`: where its validation queries come from, joined as in a source."""

    validation: int
    salt: str
    keep: frozenset[str] = frozenset()
    tables: tuple[str, ...] = ("pairs.csv",)

    def _held(self, folder: PairsFolder) -> frozenset[str]:
        return split_photos(folder, self.validation, self.salt, self.keep)[1]

    def training(self, folder: PairsFolder) -> TrainingSide:
        return TrainingSide(frozenset(folder.photo_category) - self._held(folder))

    def validations(self, name: str, folder: PairsFolder) -> list[ValidationSet]:
        held = self._held(folder)
        pairs: tuple[Pair, ...] = ()
        for table in self.tables:
            if (folder.root / table).is_file():
                pairs = merge_pairs(pairs, PairsFolder.read(folder.root, table).pairs)
        return [ValidationSet(name, folder, select(pairs, photos=held), held, False)]


@dataclass(frozen=True)
class DrawingsRecipe:
    """drawings32: split by person and by object."""

    def training(self, folder: PairsFolder) -> TrainingSide:
        split = split_drawings(folder)
        return TrainingSide(split.seen - split.outer, split.train)

    def validations(self, name: str, folder: PairsFolder) -> list[ValidationSet]:
        split = split_drawings(folder)
        pairs = select(folder.pairs, users=split.validation)
        unseen = select(pairs, photos=split.unseen)
        return [
            ValidationSet(f"{name}_people", folder, pairs, None, False),
            ValidationSet(f"{name}_unseen", folder, unseen, split.unseen, False),
        ]


@dataclass(frozen=True)
class CategoryRecipe:
    """sketchy: split by category, and a gallery is the query's own category."""

    def training(self, folder: PairsFolder) -> TrainingSide:
        names = split_categories(folder).backbone
        return TrainingSide(frozenset(photo for photo, category in folder.photo_category.items() if category in names))

    def validations(self, name: str, folder: PairsFolder) -> list[ValidationSet]:
        pairs = select(folder.pairs, categories=split_categories(folder).validation)
        return [ValidationSet(name, folder, pairs, None, True)]


@dataclass(frozen=True)
class OwnRecipe:
    """Any other dataset: a fifth of the photos that have sketches are held back, at most 100.

    With one category they are the gallery; with several, a gallery is all photos of the query's category, trained on or not.
    """

    def _held(self, folder: PairsFolder) -> frozenset[str]:
        count = len({pair.photo for pair in folder.pairs})
        return split_photos(folder, min(max(count // 5, 1), 100), f"{folder.root.name}-photos")[1]

    def training(self, folder: PairsFolder) -> TrainingSide:
        return TrainingSide(frozenset(folder.photo_category) - self._held(folder))

    def validations(self, name: str, folder: PairsFolder) -> list[ValidationSet]:
        held = self._held(folder)
        several = len({pair.category for pair in folder.pairs}) > 1
        return [ValidationSet(name, folder, select(folder.pairs, photos=held), None if several else held, several)]


RECIPES: dict[str, PhotoRecipe | DrawingsRecipe | CategoryRecipe] = {
    "chairv2": PhotoRecipe(CHAIRV2_VALIDATION_PHOTOS, "chairv2-photos", frozenset(CHAIRV2_SHARED)),
    "chairv1": PhotoRecipe(CHAIRV1_VALIDATION_PHOTOS, "chairv1-photos", frozenset(CHAIRV1_SHARED)),
    "shoev1": PhotoRecipe(SHOEV1_VALIDATION_PHOTOS, "shoev1-photos", tables=("pairs_extra.csv", "pairs.csv")),
    "drawings32": DrawingsRecipe(),
    "sketchy": CategoryRecipe(),
}
OWN = OwnRecipe()


def everything(folder: PairsFolder) -> TrainingSide:
    """No split: all photos, all people."""
    return TrainingSide(frozenset(folder.photo_category))


def training_side(folder: PairsFolder, split: str) -> TrainingSide:
    """The photos and people that train: "all", or "train" for the split of this folder's name (OWN where it is not known).

    Raises PairsFormatError for another split.
    """
    if split == "all":
        return everything(folder)
    if split != "train":
        raise PairsFormatError(f'{folder.root}: no split named {split!r}; write "train" or "all"')
    return RECIPES.get(folder.root.name, OWN).training(folder)


def validation_sets(data: Path, folders: Sequence[str] = tuple(RECIPES)) -> list[ValidationSet]:
    """The validation sets of those `folders` of `data` that are there. Raises PairsFormatError for a bad table."""
    found: list[ValidationSet] = []
    for name in folders:
        if (data / name / "pairs.csv").is_file():
            found += RECIPES.get(name, OWN).validations(name, PairsFolder.read(data / name))
    return found
