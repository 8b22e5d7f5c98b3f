"""Tasks of the outer loop and tasks to validate on, from dataset folders; none of the latter's people, objects, photos or
categories trains.

The outer loop of a known dataset may see more than the backbone did: objects of drawings32 and categories of sketchy that are
kept for it (training/data/splits.py). An episode over things that the backbone knows leaves its inner step nothing to learn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fgsbir_edge.errors import PairsFormatError
from training.config import ConfigError
from training.data.folder import Pair, PairsFolder
from training.data.recipes import RECIPES, PhotoRecipe
from training.data.splits import merge_pairs, ordered, select, split_categories, split_drawings, split_photos
from training.episodes import Task, category_tasks, gives, person_tasks
from training.episodic.config import DomainConfig, Setting

HELD = 5  # of a dataset that is not known, one person, category or photo in so many is held back


@dataclass(frozen=True, eq=False)
class Dataset:
    """A folder with one table of pairs: what tasks are numbered in. Sketches count as in `folder.pairs`, photos by name."""

    number: int  # among the datasets of a run
    folder: PairsFolder
    table: str

    @cached_property
    def keys(self) -> list[str]:
        """Of sketches [S]."""
        return [pair.sketch for pair in self.folder.pairs]

    @cached_property
    def photos(self) -> list[str]:
        """Names [P]."""
        return sorted(self.folder.photo_category)

    @cached_property
    def rows(self) -> tuple[dict[str, int], dict[str, int]]:
        """Row of a sketch by its key, and of a photo by its name."""
        return {key: row for row, key in enumerate(self.keys)}, {name: row for row, name in enumerate(self.photos)}


@dataclass(frozen=True, eq=False)
class TaskSet:
    """Tasks of one dataset; their rows are the dataset's."""

    name: str
    setting: Setting
    dataset: Dataset
    tasks: list[Task]

    def large(self, k: int) -> list[Task]:
        """The tasks that can give k support pairs and a query."""
        return [task for task in self.tasks if gives(task, k)]


@dataclass(frozen=True, eq=False)
class Domain(TaskSet):
    """Tasks that train, each large enough for every k."""

    share: float
    k: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Pairs whose people or categories are tasks, and the photos that galleries are made of."""

    name: str
    pairs: tuple[Pair, ...]
    photos: frozenset[str]


def open_domains(configs: Sequence[DomainConfig], data: Path, k: tuple[int, ...]) -> tuple[list[Domain], list[TaskSet]]:
    """Training domains in the order of `configs`, and all validation sets; `k` is for domains without numbers of their own.

    Raises:
        PairsFormatError: a table that cannot be read, or that has no people where tasks are people.
        ConfigError: a domain without a task that is large enough.
    """
    datasets: dict[tuple[str, str], Dataset] = {}
    domains: list[Domain] = []
    validation: list[TaskSet] = []
    for config in configs:
        key = config.folder, config.pairs
        if key not in datasets:
            datasets[key] = Dataset(len(datasets), _read(data / config.folder, config.pairs), config.pairs)
        dataset = datasets[key]
        train, held = parts(dataset.folder, config)
        for part in held:
            found = _tasks(part, config.setting, dataset)
            if found:
                validation.append(TaskSet(part.name, config.setting, dataset, found))
        if train is not None and config.share > 0:
            wanted = config.k or k
            tasks = [task for task in _tasks(train, config.setting, dataset) if gives(task, max(wanted))]
            if not tasks:
                raise ConfigError(
                    f"domain {config.name}: no {config.setting} of {dataset.folder.root} has {max(wanted)} sketches to adapt to "
                    "and another photo to be asked for; lower k"
                )
            domains.append(Domain(config.name, config.setting, dataset, tasks, config.share, wanted))
    if not domains:
        raise ConfigError('nothing trains: every domain has share 0 or split "none"; give one a share')
    return domains, validation


def _read(root: Path, table: str) -> PairsFolder:
    first, *further = table.split("+")
    folder = PairsFolder.read(root, first)
    for name in further:
        folder = replace(folder, pairs=merge_pairs(folder.pairs, PairsFolder.read(root, name).pairs))
    return folder


def _tasks(part: Part, setting: Setting, dataset: Dataset) -> list[Task]:
    if setting == "person":
        return person_tasks(part.pairs, sorted(part.photos), *dataset.rows)
    categories = dataset.folder.photo_category
    return category_tasks(part.pairs, {name: categories[name] for name in sorted(part.photos)}, *dataset.rows)


def parts(folder: PairsFolder, config: DomainConfig) -> tuple[Part | None, tuple[Part, ...]]:
    """What trains (None: nothing), and what validates. Raises PairsFormatError."""
    if config.setting == "person" and not all(pair.user for pair in folder.pairs):
        raise PairsFormatError(
            f"{folder.root}: sketches without a user; tasks that are people need the column user in {config.pairs}, "
            'or take setting "category"'
        )
    name, everything = config.name, frozenset(folder.photo_category)
    if config.split == "all":
        return Part(name, folder.pairs, everything), ()
    if config.split == "none":
        return None, (Part(name, folder.pairs, everything),)
    if folder.root.name == "drawings32":
        return _drawings(folder, name)
    if folder.root.name == "sketchy" and config.setting == "category":
        split = split_categories(folder)
        return _by_category(folder, name, split.backbone | split.outer, split.validation)
    if config.setting == "person":
        return _by_person(folder, name)
    categories = ordered({pair.category for pair in folder.pairs}, f"{folder.root.name}-categories")
    if len(categories) > 1:
        cut = max(1, len(categories) // HELD)
        return _by_category(folder, name, frozenset(categories[cut:]), frozenset(categories[:cut]))
    return _by_photo(folder, name)


def _drawings(folder: PairsFolder, name: str) -> tuple[Part, tuple[Part, ...]]:
    split = split_drawings(folder)
    train = Part(name, select(folder.pairs, users=split.train, photos=split.seen), split.seen)
    people = select(folder.pairs, users=split.validation)
    known = select(folder.pairs, users=split.train, photos=split.unseen)
    return train, (
        Part(f"{name}_people", people, frozenset(folder.photo_category)),
        Part(f"{name}_known", known, split.unseen),
        Part(f"{name}_unseen", select(people, photos=split.unseen), split.unseen),
    )


def _by_category(folder: PairsFolder, name: str, train: frozenset[str], held: frozenset[str]) -> tuple[Part, tuple[Part, ...]]:
    def part(categories: frozenset[str]) -> Part:
        photos = (photo for photo, category in folder.photo_category.items() if category in categories)
        return Part(name, select(folder.pairs, categories=categories), frozenset(photos))

    return part(train), (part(held),)


def _by_person(folder: PairsFolder, name: str) -> tuple[Part, tuple[Part, ...]]:
    """People and photos of a dataset that is not known: a fifth of each is held back."""
    people = ordered(folder.users, f"{folder.root.name}-people")
    cut = max(1, len(people) // HELD)
    held = _held_photos(folder)
    seen = frozenset(folder.photo_category) - held
    mine, theirs = frozenset(people[cut:]), frozenset(people[:cut])
    own = select(folder.pairs, users=theirs)
    return Part(name, select(folder.pairs, users=mine, photos=seen), seen), (
        Part(f"{name}_people", own, frozenset(folder.photo_category)),
        Part(f"{name}_unseen", select(own, photos=held), held),
    )


def _by_photo(folder: PairsFolder, name: str) -> tuple[Part, tuple[Part, ...]]:
    held = _held_photos(folder)
    seen = frozenset(folder.photo_category) - held
    return Part(name, select(folder.pairs, photos=seen), seen), (Part(name, select(folder.pairs, photos=held), held),)


def _held_photos(folder: PairsFolder) -> frozenset[str]:
    """The photos that supervised training of this folder holds back too, where it is a known one."""
    recipe = RECIPES.get(folder.root.name)
    known = folder if not isinstance(recipe, PhotoRecipe) else PairsFolder.read(folder.root)
    if isinstance(recipe, PhotoRecipe):
        return split_photos(known, recipe.validation, recipe.salt, recipe.keep)[1]
    drawn = len({pair.photo for pair in folder.pairs})
    return split_photos(folder, max(2, drawn // HELD), f"{folder.root.name}-photos")[1]


def used_rows(sets: Iterable[TaskSet]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the sketches and of the photos that any task of `sets`, all of one dataset, may ask for."""
    tasks = [task for item in sets for task in item.tasks]
    sketches, photos = [task.sketches for task in tasks], [task.gallery for task in tasks]
    return np.unique(np.concatenate(sketches)), np.unique(np.concatenate(photos))
