"""The sketches that a classifier learns: of several datasets, by category, all as strokes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from fgsbir_edge.errors import EmptySketchError, PairsFormatError
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.sketch import Sketch
from training.data.folder import Pair, PairsFolder
from training.data.recipes import OWN, RECIPES, PhotoRecipe
from training.data.splits import merge_pairs, ordered
from training.generation.dataset import vector_sketch
from training.generation.sequences import prepared

HELD_SHARE = 5  # one in so many photos of a category is held back


@dataclass(frozen=True)
class SketchSource:
    """Sketches that a classifier learns: a dataset folder below --data, and tables in it as a training source joins them."""

    folder: str
    pairs: str = "pairs.csv"


@dataclass(frozen=True)
class VectorFolder(PairsFolder):
    """Sketches in memory, by name."""

    sketches: dict[str, Sketch]

    def sketch(self, name: str) -> Sketch | Drawing:
        return self.sketches[name]


@dataclass(frozen=True, eq=False)
class SketchPool:
    """All sketches by category.

    Args:
        folder: every sketch, thinned as the generator's are.
        training: category -> its training sketches, at least one.
        held: sketches of photos that were held back, whose figures say what the classifier is worth.
        left_out: sketches without a line.
    """

    folder: VectorFolder
    training: dict[str, tuple[Pair, ...]]
    held: tuple[Pair, ...]
    left_out: tuple[str, ...] = ()

    @property
    def categories(self) -> tuple[str, ...]:
        """In order."""
        return tuple(sorted(self.training))


def held_photos(folder: PairsFolder) -> frozenset[str]:
    """The photos whose sketches a classifier may not learn.

    Those that training of retrieval and of the generator hold back (data/recipes.py), where a folder is split by photo: drawings
    of them are what is measured. In a folder of several categories a fifth of each one's photos, one at least.
    """
    recipe = RECIPES.get(folder.root.name)
    categories = {pair.category for pair in folder.pairs}
    if isinstance(recipe, PhotoRecipe) or len(categories) == 1:
        chosen = recipe if isinstance(recipe, PhotoRecipe) else OWN
        return frozenset(folder.photo_category) - chosen.training(folder).photos
    held: set[str] = set()
    for category in sorted(categories):
        photos = ordered((pair.photo for pair in folder.pairs if pair.category == category), f"{folder.root.name}-classes")
        held.update(photos[: max(1, len(photos) // HELD_SHARE)] if len(photos) > 1 else ())
    return frozenset(held)


def read_pool(
    sources: Sequence[SketchSource], data: Path, rename: Mapping[str, str], epsilon: float, cache: Path | None = None
) -> SketchPool:
    """Read, trace and thin every sketch of the sources; `cache` keeps what was traced. Categories of the same name are one.

    Raises PairsFormatError for fewer than two categories or a sketch without one, and what the folders' readers raise.
    """
    sketches: dict[str, Sketch] = {}
    training: dict[str, list[Pair]] = defaultdict(list)
    held: list[Pair] = []
    left_out: list[str] = []
    for source in sources:
        folder, pairs = _read(source, data)
        back = held_photos(folder)
        for pair in tqdm(pairs, desc=source.folder, unit=" sketches", disable=None, leave=False):
            key = f"{source.folder}/{pair.sketch}"
            if not pair.category:
                raise PairsFormatError(f"{folder.root}: sketch {pair.sketch!r} has no category; fill in the column")
            if key in sketches or key in left_out:
                continue
            try:
                sketches[key] = prepared(vector_sketch(folder, pair.sketch, cache)[0], epsilon)
            except EmptySketchError:
                left_out.append(key)
                continue
            item = replace(pair, sketch=key, category=rename.get(pair.category, pair.category))
            if pair.photo in back:
                held.append(item)
            else:
                training[item.category].append(item)
    if len(training) < 2:
        raise PairsFormatError(f"{data}: {len(training)} categories in the sources; a classifier needs two: name more folders")
    known = {name: tuple(pairs) for name, pairs in training.items()}
    whole = VectorFolder(data, (), {}, sketches)
    return SketchPool(whole, known, tuple(pair for pair in held if pair.category in known), tuple(left_out))


def _read(source: SketchSource, data: Path) -> tuple[PairsFolder, tuple[Pair, ...]]:
    """A source's folder with the pairs of all its tables."""
    folders = [PairsFolder.read(data / source.folder, table) for table in source.pairs.split("+")]
    pairs: tuple[Pair, ...] = ()
    for folder in folders:
        pairs = merge_pairs(pairs, folder.pairs)
    return replace(folders[0], pairs=pairs), pairs
