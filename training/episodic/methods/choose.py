"""Options of methods that nothing is trained for, chosen by what they are worth on training tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from training.episodes import Task, gives
from training.episodic.methods.protocol import Method, ProtocolConfig, measure
from training.episodic.methods.settings import Setting

T = TypeVar("T")


@dataclass(frozen=True)
class ChoosingConfig:
    """At most `tasks` of the setting's tasks for choosing, `draws` episodes of each, drawn by another seed than the table's."""

    tasks: int = 16
    draws: int = 4
    seed: int = 1

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.draws < 1 or self.seed < 0:
            raise ValueError(f"tasks {self.tasks} and draws {self.draws} must be positive, seed {self.seed} not negative")


def choosing_tasks(setting: Setting, k: int, config: ChoosingConfig) -> list[Task]:
    """Tasks that can give k pairs: those the backbone has not seen, or any that train where none of these is large enough."""
    for tasks in (setting.choosing, setting.training):
        large = [task for task in tasks if gives(task, k)]
        if large:
            order = np.random.default_rng([config.seed, k]).permutation(len(large))[: config.tasks]
            return [large[index] for index in sorted(order)]
    return []


def choose(
    candidates: Sequence[T], build: Callable[[T], Method], setting: Setting, k: int, config: ChoosingConfig
) -> tuple[T, list[float]]:
    """The candidate of highest mean Acc@1 over training tasks, the first of equals, and the figure of each.

    One candidate is taken as it is (and has no figure). Raises ConfigError where no training task can give k pairs.
    """
    if len(candidates) == 1:
        return candidates[0], []
    tasks = choosing_tasks(setting, k, config)
    protocol = ProtocolConfig((k,), config.draws, config.seed)
    scores = [measure(build(candidate), setting, tasks, k, protocol).mean("acc@1") for candidate in candidates]
    return candidates[int(np.argmax(scores))], [round(score, 2) for score in scores]
