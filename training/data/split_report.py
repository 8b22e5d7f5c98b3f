"""What a dataset holds, and what two of its splits share that they should not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.pairs import Pair
from fgsbir_edge.sketch import Sketch
from training.data.fingerprints import Float32, PhotoPrints, equal_sketches, near_photos, sketch_print, stacked
from training.data.folder import PairsFolder
from training.data.unlabelled import read_unlabelled

LOOK_ALIKES = 20  # that are listed; all are counted


@dataclass(frozen=True)
class Thresholds:
    """When two photos, or two sketches, count as one. docs/data.md says how these were chosen.

    Args:
        distance: bits of 64 in which the hashes of two photos may differ.
        likeness: what near-duplicate photos must reach; below it they are look-alikes, such as two shoes of one shape.
        sketch: likeness that equal sketches must reach.
    """

    distance: int = 6
    likeness: float = 0.98
    sketch: float = 0.95


@dataclass(frozen=True)
class DataSet:
    """A folder or split as the report sees it: photos by name, and the folder with the pairs where there are any."""

    name: str
    photos: dict[str, Path]
    folder: PairsFolder | None = None

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return self.folder.pairs if self.folder else ()

    @classmethod
    def of_folder(cls, name: str, folder: PairsFolder) -> DataSet:
        return cls(name, {photo: folder.photo_path(photo) for photo in sorted(folder.photo_category)}, folder)

    @classmethod
    def read(cls, text: str) -> DataSet:
        """A dataset folder, ``FOLDER#TABLE`` for another pairs table of it, or any folder of photos.

        Raises PairsFormatError and UnreadableImageError.
        """
        root, _, table = (text, "", "") if Path(text).exists() else text.partition("#")
        if table or (Path(root) / "pairs.csv").is_file():
            return cls.of_folder(text, PairsFolder.read(root, table or "pairs.csv"))
        photos = read_unlabelled(Path(root) / "photos" if (Path(root) / "photos").is_dir() else root, check=False)
        return cls(text, {photo: photos.photo_path(photo) for photo in photos.names})


@dataclass(frozen=True)
class Prints:
    """A dataset with its fingerprints; what could not be read is named in `unreadable` and compared with nothing."""

    data: DataSet
    photos: PhotoPrints
    paired: frozenset[str]
    keys: list[str]
    sketches: Float32
    points: list[int]
    strokes: list[int]
    unreadable: list[str]

    @classmethod
    def of(cls, data: DataSet) -> Prints:
        """Read every photo and every sketch once."""
        photos, unreadable = PhotoPrints.of(data.photos)
        keys, prints, points, strokes = [], [], [], []
        for pair in {pair.sketch: pair for pair in data.pairs}.values():
            assert data.folder is not None
            try:
                item = data.folder.sketch(pair.sketch)
                prints.append(sketch_print(item))
            except FgsbirError as error:
                unreadable.append(f"{pair.sketch}: {error}")
                continue
            keys.append(pair.sketch)
            if isinstance(item, Sketch):
                points.append(item.num_points)
                strokes.append(item.num_strokes)
        paired = frozenset(pair.photo for pair in data.pairs)
        return cls(data, photos, paired, keys, stacked(prints), points, strokes, unreadable)


def report(sets: Sequence[DataSet], thresholds: Thresholds | None = None) -> dict[str, Any]:
    """Counts of every set, and overlaps within each and between every two; plain values, ready for JSON."""
    thresholds = thresholds or Thresholds()
    prints = [Prints.of(data) for data in sets]
    return {
        "thresholds": asdict(thresholds),
        "sets": [counts(print_) for print_ in prints],
        "overlaps": [overlap(a, b, thresholds) for a, b in combinations_with_replacement(prints, 2)],
    }


def counts(prints: Prints) -> dict[str, Any]:
    """What one set holds. Distractors are photos that no sketch means."""
    pairs = prints.data.pairs
    each = Counter(pair.photo for pair in pairs)
    users = Counter(pair.user for pair in pairs if pair.user)
    categories = set(prints.data.folder.photo_category.values()) if prints.data.folder else set()
    return {
        "name": prints.data.name,
        "photos": len(prints.data.photos),
        "distractors": len(set(prints.data.photos) - prints.paired),
        "sketches": len({pair.sketch for pair in pairs}),
        "vector_sketches": len(prints.points),
        "categories": len(categories - {""}),
        "users": len(users),
        "sketches_per_photo": spread(each.values()),
        "sketches_per_user": spread(users.values()),
        "points_per_sketch": spread(prints.points),
        "strokes_per_sketch": spread(prints.strokes),
        "unreadable": prints.unreadable,
    }


def spread(values: Iterable[int]) -> dict[str, float] | None:
    """Smallest, mean, median, 95th percentile and largest; None of nothing."""
    array = np.array(list(values))
    if not array.size:
        return None
    low, median, high, largest = (float(value) for value in np.percentile(array, [0, 50, 95, 100]))
    return {"min": low, "mean": round(float(array.mean()), 2), "median": median, "p95": round(high, 2), "max": largest}


def overlap(a: Prints, b: Prints, thresholds: Thresholds) -> dict[str, Any]:
    """What two sets share, or what one set holds twice (`a` is `b`).

    A photo is given by name and as "pair" or "distractor": one that is an answer on both sides is a leak, a shared distractor is
    at most a nuisance. A pair of photos is in one list only, the strongest.
    """
    within = a is b
    same = _same_files(a, b)
    known = {(entry["a"], entry["b"]) for entry in same}
    near: list[dict[str, Any]] = []
    alike: list[dict[str, Any]] = []
    for row, column, bits, likeness in near_photos(a.photos, None if within else b.photos, thresholds.distance):
        entry = {**_photo_pair(a, b, row, column), "distance": bits, "likeness": round(likeness, 4)}
        if (entry["a"], entry["b"]) not in known:
            (near if likeness >= thresholds.likeness else alike).append(entry)
    equal = [
        {"a": a.keys[row], "b": b.keys[column], "likeness": round(likeness, 4)}
        for row, column, likeness in equal_sketches(a.sketches, None if within else b.sketches, thresholds.sketch)
    ]
    return {
        "a": a.data.name,
        "b": b.data.name,
        "within": within,
        "same_file": same,
        "near_duplicates": _strongest(near),
        "look_alikes": len(alike),
        "closest_look_alikes": _strongest(alike)[:LOOK_ALIKES],
        "equal_sketches": _strongest(equal),
        "same_photo_name": [] if within else _same_names(a, b),
        "shared_categories": [] if within else _shared(a, b, "category"),
        "shared_users": [] if within else _shared(a, b, "user"),
    }


def _strongest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: (-entry["likeness"], entry["a"], entry["b"]))


def _photo_pair(a: Prints, b: Prints, row: int, column: int) -> dict[str, Any]:
    first, second = a.photos.names[row], b.photos.names[column]
    roles = ["pair" if first in a.paired else "distractor", "pair" if second in b.paired else "distractor"]
    return {"a": first, "b": second, "roles": roles}


def _same_files(a: Prints, b: Prints) -> list[dict[str, Any]]:
    there: dict[str, list[int]] = defaultdict(list)
    for column, digest in enumerate(b.photos.sha256):
        there[digest].append(column)
    return [
        _photo_pair(a, b, row, column)
        for row, digest in enumerate(a.photos.sha256)
        for column in there.get(digest, ())
        if a is not b or row < column
    ]


def _same_names(a: Prints, b: Prints) -> list[str]:
    """Names, without suffix, of photos on both sides; a hint, no more: many collections count from 1."""
    first, second = ({PurePosixPath(name).with_suffix("").as_posix() for name in prints.data.photos} for prints in (a, b))
    return sorted(first & second)


def _shared(a: Prints, b: Prints, what: str) -> list[str]:
    first, second = ({getattr(pair, what) for pair in prints.data.pairs} for prints in (a, b))
    return sorted((first & second) - {""})
