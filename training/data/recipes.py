"""The known datasets: which side of each trains, and which validates.

A dataset is known by the name of its folder. Its split is cut from pairs.csv, whatever other table the training pairs come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fgsbir_edge.errors import PairsFormatError
from training.data.folder import Pair, PairsFolder
from training.data.splits import (
    CHAIRV1_VALIDATION_PHOTOS,
    CHAIRV2_VALIDATION_PHOTOS,
    SHOEV1_VALIDATION_PHOTOS,
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
    """A dataset split by photo."""

    validation: int
    salt: str
    keep: frozenset[str] = frozenset()

    def _held(self, folder: PairsFolder) -> frozenset[str]:
        return split_photos(folder, self.validation, self.salt, self.keep)[1]

    def training(self, folder: PairsFolder) -> TrainingSide:
        return TrainingSide(frozenset(folder.photo_category) - self._held(folder))

    def validations(self, name: str, folder: PairsFolder) -> list[ValidationSet]:
        held = self._held(folder)
        return [ValidationSet(name, folder, select(folder.pairs, photos=held), held, False)]


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


RECIPES: dict[str, PhotoRecipe | DrawingsRecipe | CategoryRecipe] = {
    "chairv2": PhotoRecipe(CHAIRV2_VALIDATION_PHOTOS, "chairv2-photos", frozenset(CHAIRV2_SHARED)),
    "chairv1": PhotoRecipe(CHAIRV1_VALIDATION_PHOTOS, "chairv1-photos", frozenset(CHAIRV1_SHARED)),
    "shoev1": PhotoRecipe(SHOEV1_VALIDATION_PHOTOS, "shoev1-photos"),
    "drawings32": DrawingsRecipe(),
    "sketchy": CategoryRecipe(),
}


def everything(folder: PairsFolder) -> TrainingSide:
    """No split: all photos, all people."""
    return TrainingSide(frozenset(folder.photo_category))


def training_side(folder: PairsFolder, split: str) -> TrainingSide:
    """The photos and people that train: "all", or "train" for the split of the dataset of this folder's name.

    Raises PairsFormatError for another split, and for "train" where no split is known.
    """
    recipes: dict[str, Callable[[PairsFolder], TrainingSide]] = {name: recipe.training for name, recipe in RECIPES.items()}
    if split == "all":
        return everything(folder)
    if split != "train":
        raise PairsFormatError(f'{folder.root}: no split named {split!r}; write "train" or "all"')
    if folder.root.name not in recipes:
        known = ", ".join(RECIPES)
        raise PairsFormatError(
            f'{folder.root}: no split is known for a folder of this name (known: {known}); rename it, or write split = "all"'
        )
    return recipes[folder.root.name](folder)


def validation_sets(data: Path) -> list[ValidationSet]:
    """Of every known dataset in the folder `data`, its validation sets. Raises PairsFormatError for a bad table."""
    found: list[ValidationSet] = []
    for name, recipe in RECIPES.items():
        if (data / name / "pairs.csv").is_file():
            found += recipe.validations(name, PairsFolder.read(data / name))
    return found
