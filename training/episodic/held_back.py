"""Tasks cut from a dataset folder and the features of all they need, encoded once by any model and kept in one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.variant import ENCODER
from training.config import ConfigError
from training.data.folder import Pair, PairsFolder
from training.data.splits import select, split_categories, split_drawings
from training.episodes import Task, category_tasks, person_tasks
from training.evaluation import Encode, encode_photos, encode_sketches

Setting = Literal["category", "person"]
SPLITS = {"sketchy": ("backbone", "outer", "validation", "test"), "drawings32": ("train", "validation", "test", "demo")}


@dataclass(frozen=True)
class TaskSource:
    """Where tasks come from.

    Args:
        name: what tables call them.
        folder: under the data folder.
        setting: tasks are categories, or people.
        splits: parts of this project's own split of the folder (training/data/splits.py), by the names in SPLITS: categories of
            sketchy, people of drawings32. Empty: all of them, the only choice for other folders.
        pairs: the table in the folder.

    Raises ConfigError for a split that the folder has not.
    """

    name: str
    folder: str
    setting: Setting
    splits: tuple[str, ...] = ()
    pairs: str = "pairs.csv"

    def __post_init__(self) -> None:
        known = SPLITS.get(self.folder.rsplit("/", maxsplit=1)[-1], ())
        for split in self.splits:
            if split not in known:
                there = ", ".join(known) or "none, leave it empty"
                raise ConfigError(f"{self.name}: {self.folder} has no split {split!r}; it has {there}")

    def read(self, data: Path) -> tuple[PairsFolder, tuple[Pair, ...]]:
        """The folder and the pairs of the splits. Raises what reading a table raises."""
        folder = PairsFolder.read(data / self.folder, self.pairs)
        if not self.splits:
            return folder, tuple(dict.fromkeys(folder.pairs))
        people = folder.root.name == "drawings32"
        parts = split_drawings(folder) if people else split_categories(folder)
        names = frozenset[str]().union(*(getattr(parts, split) for split in self.splits))
        return folder, select(folder.pairs, users=names if people else None, categories=None if people else names)


@dataclass(frozen=True, eq=False)
class Features:
    """Rows of a dataset's sketches [S,*] and photos [P,*], float32, with the tasks that index them."""

    tasks: list[Task]
    sketches: np.ndarray
    photos: np.ndarray


def tasks_of(source: TaskSource, folder: PairsFolder, pairs: Sequence[Pair]) -> tuple[list[Task], list[str], list[str]]:
    """Tasks, and the sketches and photos whose rows they index. A person's gallery is every photo of the folder."""
    keys = [pair.sketch for pair in pairs]
    categories = {pair.category for pair in pairs}
    person = source.setting == "person"
    photos = sorted(name for name, category in folder.photo_category.items() if person or category in categories)
    rows = ({name: row for row, name in enumerate(names)} for names in (keys, photos))
    if person:
        return person_tasks(pairs, photos, *rows), keys, photos
    return category_tasks(pairs, {name: folder.photo_category[name] for name in photos}, *rows), keys, photos


def open_features(
    source: TaskSource, data: Path, model: Path, network: tuple[Encode, InputSpec], cache: Path, k: int = 0
) -> Features:
    """Tasks of a source that can give `k` pairs and a query, and their features from `cache`, encoded there first where missing.

    `model` is the file or bundle folder that `network` was opened from: its encoder's content names the cached file.

    Raises:
        ConfigError: no task is large enough.
    """
    folder, pairs = source.read(data)
    tasks, keys, photos = tasks_of(source, folder, pairs)
    large = [task for task in tasks if gives(task, k)]
    if not large:
        raise ConfigError(f"{source.name}: no task has {k} pairs to adapt to and another photo to be asked for; lower k")
    content = hashlib.sha256(repr((digest(model), network[1], keys, photos)).encode()).hexdigest()[:16]
    path = cache / f"{folder.root.name}-{content}.npz"
    if not path.is_file():
        encode, spec = network
        cache.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial.npz")
        sketches, rows = encode_sketches(folder, keys, encode, spec), encode_photos(folder, photos, encode, spec)
        np.savez(temporary, sketches=sketches, photos=rows)
        os.replace(temporary, path)
    with np.load(path, allow_pickle=False) as arrays:
        return Features(large, arrays["sketches"], arrays["photos"])


def gives(task: Task, k: int) -> bool:
    """Whether k sketches are left however one photo is kept back for the queries."""
    sketches = np.unique(task.truth, return_counts=True)[1]
    return len(sketches) > 1 and int(sketches.sum() - sketches.max()) >= k


def digest(model: Path) -> str:
    """SHA-256 of a checkpoint file, or of a bundle's encoder."""
    path = model / ENCODER if model.is_dir() else model
    return hashlib.sha256(path.read_bytes()).hexdigest()
