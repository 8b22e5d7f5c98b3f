"""The upper bound: a network trained on the very tasks it is measured on, though never on a photo it is asked for.

The photos of the measured tasks that have sketches are dealt into folds; for every fold a network is trained on the training
tasks and on the measured tasks without the fold's photos, and queries for the fold's photos are answered by that network. So
every query is answered by a network that knows its category (or person) well and has not seen its photo. (METHODS C.8: trained
with the target categories; of their photos with sketches the paper had 90 each for that.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.splits import ordered
from training.episodes import Task
from training.episodic.methods.head import Features, Layer
from training.episodic.methods.outer import OuterConfig
from training.episodic.methods.protocol import EncodedEpisode, Scorer
from training.episodic.methods.settings import Setting


@dataclass(frozen=True)
class UpperConfig:
    """`share` of the episodes that are of measured tasks, in each of `folds` networks."""

    folds: int = 3
    share: float = 0.5
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(k=1))

    def __post_init__(self) -> None:
        if self.folds < 2 or not 0.0 < self.share < 1.0:
            raise ValueError(f"folds is {self.folds}, share {self.share}; expected at least 2, and between 0 and 1")


def deal(setting: Setting, folds: int) -> dict[int, int]:
    """Photo row -> fold, for every photo that a measured task has a sketch of; by name, within each category in turn."""
    rows = np.unique(np.concatenate([task.gallery[task.truth] for task in setting.measured]))
    by_category: dict[str, list[str]] = {}
    row_of = {setting.photos[row]: int(row) for row in rows}
    for name in row_of:
        by_category.setdefault(setting.folder.photo_category[name], []).append(name)
    return {
        row_of[name]: index % folds
        for names in by_category.values()
        for index, name in enumerate(ordered(names, "upper-bound-folds"))
    }


def without(task: Task, rows: set[int]) -> Task | None:
    """A task without these photos and their sketches; None where fewer than two photos with sketches are left."""
    kept = np.array([position for position, row in enumerate(task.gallery) if int(row) not in rows], dtype=np.int64)
    own = np.isin(task.truth, kept)
    truth = np.searchsorted(kept, task.truth[own])
    if len(np.unique(truth)) < 2:
        return None
    return Task(task.name, task.sketches[own], truth, task.gallery[kept])


def fold_tasks(setting: Setting, fold: int, config: UpperConfig) -> list[Task]:
    """What the network of a fold trains on: tasks listed so often that measured ones make up their share (to a tenth)."""
    rows = {row for row, own in deal(setting, config.folds).items() if own == fold}
    measured = [task for task in (without(task, rows) for task in setting.measured) if task is not None]
    training = [task for task in (without(task, rows) for task in setting.training) if task is not None]
    if not measured:
        return training
    times = config.share / (1.0 - config.share) * len(training) / len(measured)
    return [*training, *measured * max(1, round(times))] if times >= 1 else [*training * max(1, round(1 / times)), *measured]


@dataclass(eq=False)
class Folded:
    """Unit embeddings of a setting's items by the network of every fold, and the fold of every sketch."""

    setting: Setting
    features: Sequence[Features]
    layers: Sequence[Layer]

    def __post_init__(self) -> None:
        dealt = deal(self.setting, len(self.layers))
        self._fold = np.zeros(len(self.setting.sketches), dtype=np.int64)
        for task in self.setting.measured:
            self._fold[task.sketches] = [dealt[int(row)] for row in task.gallery[task.truth]]

    def sketches(self, rows: np.ndarray) -> Tensor:
        """[n,D], each by the network that has not seen its photo, and its fold in column D."""
        every = self._embedded([features.sketches(rows) for features in self.features])
        folds = torch.from_numpy(self._fold[rows])
        return torch.cat([every[folds, torch.arange(len(rows))], folds[:, None].to(every.dtype)], dim=1)

    def photos(self, rows: np.ndarray) -> Tensor:
        """[F,n,D]."""
        return self._embedded([features.photos(rows) for features in self.features])

    def _embedded(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([F.normalize(layer.outputs(part), dim=1) for layer, part in zip(self.layers, parts, strict=True)])


@dataclass(frozen=True, eq=False)
class Upper:
    """The upper bound over the checkpoints of its folds: nothing of an episode's support is looked at."""

    name: str
    folded: dict[str, Folded]

    def items(self, setting: Setting, tasks: Sequence[Task]) -> Folded:
        """The setting's embeddings."""
        found = self.folded[setting.name]
        for features in found.features:
            features.prepare(tasks)
        return found

    def adapted(self, episode: EncodedEpisode, rng: np.random.Generator) -> Scorer:
        def score(sketches: Tensor, photos: Tensor) -> np.ndarray:
            folds = sketches[:, -1].long()
            similarities: np.ndarray = (photos[folds] @ sketches[:, :-1, None])[:, :, 0].numpy()
            return similarities

        return score
