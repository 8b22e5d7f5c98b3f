"""The settings of the table: tasks to be measured on, tasks to train on, and tasks to choose a method's options by.

Options of methods that nothing is trained for (rates of fine-tuning, strength of ridge regression) are chosen on tasks that
train, never on those the table is measured on: on the ones that the backbone has not seen, where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from training.config import ConfigError
from training.data.folder import Pair, PairsFolder
from training.data.splits import select, split_categories, split_drawings
from training.episodes import Task, person_tasks
from training.episodic.config import DomainConfig
from training.episodic.config import Setting as Kind
from training.episodic.domains import Dataset, TaskSet, open_domains


@dataclass(frozen=True)
class SettingConfig:
    """A setting by name.

    kind      whether a task is a "person" or a "category" (METHODS C.1)
    folder    the dataset's folder under --data, split as for meta-training (domains.py)
    measured  the validation set that the table is measured on; "": the same tasks train and are measured, for trials
    """

    name: str
    kind: Kind
    folder: str
    measured: str = ""


PEOPLE = SettingConfig("person", "person", "drawings32", "drawings32_unseen")
CATEGORIES = SettingConfig("category", "category", "sketchy", "sketchy")


@dataclass(frozen=True, eq=False)
class Setting:
    """Tasks of a setting. Their rows are the dataset's: sketches by key, photos by name."""

    name: str
    dataset: Dataset
    measured: Sequence[Task]
    training: Sequence[Task]
    choosing: Sequence[Task]

    @property
    def folder(self) -> PairsFolder:
        return self.dataset.folder

    @property
    def sketches(self) -> list[str]:
        """Keys by row."""
        return self.dataset.keys

    @property
    def photos(self) -> list[str]:
        """Names by row."""
        return self.dataset.photos

    @cached_property
    def pair_of(self) -> dict[str, Pair]:
        """The pair of every sketch, by its key."""
        return {pair.sketch: pair for pair in self.folder.pairs}


def open_setting(config: SettingConfig, data: Path) -> Setting:
    """Read a setting's folder and cut its tasks.

    Raises PairsFormatError, and ConfigError where there is no such validation set or no tasks to train on.
    """
    split = DomainConfig(config.folder, config.folder, config.kind, split="train" if config.measured else "all")
    (domain,), held = open_domains([split], data, (1,))
    if not config.measured:
        return Setting(config.name, domain.dataset, domain.tasks, domain.tasks, domain.tasks)
    sets = {item.name: item for item in held}
    if config.measured not in sets:
        raise ConfigError(f"setting {config.name}: there is no set {config.measured!r}; there are {', '.join(sets) or 'none'}")
    return Setting(config.name, domain.dataset, sets[config.measured].tasks, domain.tasks, unknown_to_backbone(domain))


def unknown_to_backbone(domain: TaskSet) -> list[Task]:
    """What of the training tasks supervised training left out; all of them where that is not known."""
    folder = domain.dataset.folder
    if folder.root.name == "drawings32":
        split = split_drawings(folder)
        pairs = select(folder.pairs, users=split.train, photos=split.outer)
        return person_tasks(pairs, sorted(split.outer), *domain.dataset.rows)
    if folder.root.name == "sketchy" and domain.setting == "category":
        outer = split_categories(folder).outer
        return [task for task in domain.tasks if task.name in outer]
    return domain.tasks
