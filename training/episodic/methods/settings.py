"""The two settings of the table: tasks to be measured on, tasks to train on, and tasks to choose a method's options by.

Options of methods that nothing is trained for (rates of fine-tuning, strength of ridge regression) are chosen on tasks that
train, never on those the table is measured on: on the ones that the backbone has not seen, where there are any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.config import ConfigError
from training.data.folder import Pair, PairsFolder
from training.data.splits import select, split_categories, split_drawings
from training.episodes import Task, category_tasks, person_tasks

Kind = Literal["person", "category"]
Split = Literal["drawings32", "sketchy", "none"]


@dataclass(frozen=True)
class SettingConfig:
    """A setting by name.

    kind    whether a task is a person, searching all photos of the setting, or a category, searching its own (METHODS C.1)
    folder  the dataset's folder under --data
    split   "drawings32": people that are measured are not trained on, and neither are the objects they are measured on;
            "sketchy": categories are; "none": the same tasks train and are measured, for trials
    """

    name: str
    kind: Kind
    folder: str
    split: Split = "none"


DRAWINGS = SettingConfig("person", "person", "drawings32", "drawings32")
SKETCHY = SettingConfig("category", "category", "sketchy", "sketchy")


@dataclass(frozen=True, eq=False)
class Setting:
    """Tasks of a setting. Their rows index `sketches` (keys) and `photos` (names) of the whole folder."""

    name: str
    kind: Kind
    folder: PairsFolder
    sketches: tuple[str, ...]
    photos: tuple[str, ...]
    measured: tuple[Task, ...]
    training: tuple[Task, ...]
    choosing: tuple[Task, ...]

    @property
    def pair_of(self) -> dict[str, Pair]:
        """The pair of every sketch, by its key."""
        return {pair.sketch: pair for pair in self.folder.pairs}


def open_setting(config: SettingConfig, data: Path) -> Setting:
    """Read a setting's folder and cut its tasks. Raises PairsFormatError, and ConfigError where a part has no tasks."""
    folder = PairsFolder.read(data / config.folder)
    sketches = tuple(dict.fromkeys(pair.sketch for pair in folder.pairs))
    photos = tuple(sorted(folder.photo_category))
    sketch_rows = {key: row for row, key in enumerate(sketches)}
    photo_rows = {name: row for row, name in enumerate(photos)}

    def tasks(pairs: Iterable[Pair], gallery: Iterable[str]) -> tuple[Task, ...]:
        kept = tuple(pairs)
        if config.kind == "person":
            found = person_tasks(kept, sorted(gallery), sketch_rows, photo_rows)
        else:
            found = category_tasks(kept, folder.photo_category, sketch_rows, photo_rows)
        if not found:
            raise ConfigError(f"setting {config.name}: {folder.root} has no pairs for a part of split {config.split!r}")
        return tuple(found)

    every = folder.photo_category
    if config.split == "drawings32":
        people = split_drawings(folder)
        unseen = select(folder.pairs, users=people.validation, photos=people.unseen)
        known = select(folder.pairs, users=people.train, photos=people.seen)
        fresh = select(known, photos=people.outer)
        parts = tasks(unseen, people.unseen), tasks(known, people.seen), tasks(fresh, people.outer)
    elif config.split == "sketchy":
        names = split_categories(folder)
        held = select(folder.pairs, categories=names.validation)
        known = select(folder.pairs, categories=names.outer | names.backbone)
        fresh = select(known, categories=names.outer)
        parts = tasks(held, every), tasks(known, every), tasks(fresh, every)
    else:
        parts = (tasks(folder.pairs, every),) * 3
    return Setting(config.name, config.kind, folder, sketches, photos, *parts)
