"""Sketches of any dataset as strokes, and a classifier's categories of them."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fgsbir_edge.errors import EmptySketchError, PairsFormatError
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.formats.qmul import read_strokes_npz, write_strokes_npz
from fgsbir_edge.sketch import Sketch
from training.data.folder import IMAGE_SUFFIXES, Pair, PairsFolder
from training.data.recipes import OWN, RECIPES, PhotoRecipe
from training.data.splits import merge_pairs, ordered
from training.data.trace import trace_drawing
from training.evaluate_output import ensure_parent
from training.generation.sequences import prepared

FORMAT = 1  # raise when tracing gives other strokes
HELD_SHARE = 5  # one in so many photos of a category is held back


def vector_sketch(item: Sketch | Drawing) -> Sketch:
    """A sketch as it is, or the strokes of a raster one. Raises EmptySketchError where no line is found."""
    return item if isinstance(item, Sketch) else trace_drawing(item)


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


def vector_sketches(folder: PairsFolder, names: Sequence[str], cache: Path | None) -> dict[str, Sketch]:
    """The sketches of these names as strokes; those without a line are left out. `cache`: a folder that keeps what was traced.

    Its files are named by the content of the drawings, so that changed ones are traced again.
    """
    files = [folder.root / part / name for part in ("sketches", "sketches_extra") for name in names]
    raster = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    kept = None if cache is None or not raster else cache / f"traced-{_digest(names, raster)}.npz"
    if kept is not None and kept.is_file():
        return read_strokes_npz(kept)
    found: dict[str, Sketch] = {}
    for name in tqdm(names, desc=folder.root.name, unit=" sketches", disable=None, leave=False):
        try:
            item = vector_sketch(folder.sketch(name))
        except EmptySketchError:
            continue
        found[name] = Sketch(item.points.astype(np.float32), item.offsets)  # as the cache keeps it
    if kept is not None:
        ensure_parent(kept)
        write_strokes_npz(kept, found)
    return found


def _digest(names: Sequence[str], files: Sequence[Path]) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, *names]).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def read_pool(
    sources: Sequence[SketchSource], data: Path, rename: Mapping[str, str], epsilon: float, cache: Path | None = None
) -> SketchPool:
    """Read, trace and thin every sketch of the sources. Categories of the same name are one.

    Raises PairsFormatError for fewer than two categories or a sketch without one, and what the folders' readers raise.
    """
    sketches: dict[str, Sketch] = {}
    training: dict[str, list[Pair]] = defaultdict(list)
    held: list[Pair] = []
    left_out: list[str] = []
    for source in sources:
        folder, pairs = _read(source, data)
        back = held_photos(folder)
        strokes = vector_sketches(folder, list(dict.fromkeys(pair.sketch for pair in pairs)), cache)
        for pair in pairs:
            key = f"{source.folder}/{pair.sketch}"
            if not pair.category:
                raise PairsFormatError(f"{folder.root}: sketch {pair.sketch!r} has no category; fill in the column")
            if key in sketches or key in left_out:
                continue
            try:
                sketches[key] = prepared(strokes[pair.sketch], epsilon)
            except (KeyError, EmptySketchError):
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
