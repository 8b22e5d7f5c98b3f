"""The protocol that all methods are measured by: the same episodes, drawn once and for all by their seed (METHODS C.6).

An episode is k support pairs of a task and, as queries, the sketches of all photos that the support does not show. A draw is a
function of (seed, task, turn), the one `training.evaluate --protocol` makes, so that methods differ in nothing but themselves and
their differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from training.config import ConfigError
from training.episodes import Episode, Task, draw, gives
from training.episodic.methods.settings import Setting
from training.metrics import accuracy, ranks_of

Role = Literal["sketch", "photo"]
Embedder = Callable[[Any, Role], np.ndarray]  # items of a method -> unit embeddings float32 [n,D]
Scorer = Callable[[Any, Any], np.ndarray]  # items of sketches and of photos -> similarities [Q,N]

AT = (1, 5)  # the K of Acc@K
_METHOD, _FURTHER = 1, 2  # streams of a draw's seed beyond the episode's own


@dataclass(frozen=True)
class ProtocolConfig:
    """Numbers of support pairs, draws of every task for each, and their seed."""

    ks: tuple[int, ...] = (1, 5, 10)
    draws: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or self.draws < 1 or self.seed < 0:
            raise ValueError(f"ks are {self.ks}, draws {self.draws}, seed {self.seed}; expected 1 or more, seed 0 or more")


class Items(Protocol):
    """What a method's network made of a setting's sketches and photos, by their rows: float32 [n,C], or what the method takes."""

    def sketches(self, rows: np.ndarray) -> Any: ...

    def photos(self, rows: np.ndarray) -> Any: ...


@dataclass(frozen=True, eq=False)
class EncodedEpisode:
    """An episode and the items of its task. `further` are gallery positions of photos that the support does not show.

    They may serve as negatives, in this order: photos that no sketch of the task means come first, since to push away a photo
    that is asked for later costs more than it gives.
    """

    episode: Episode
    items: Items
    further: np.ndarray  # [N - photos of the support]

    @property
    def task(self) -> Task:
        return self.episode.task

    def support(self, negatives: int) -> tuple[Any, Any, np.ndarray]:
        """Items of the k sketches, items of the support's p different photos with n further ones, and places [k] among these.

        At least one further photo is there where all pairs are of one photo: the released code gives every pair a random photo
        of its category as a negative (METHODS C.6), and a lone pair has no other.
        """
        truth = self.task.truth[self.episode.support]
        shown, places = np.unique(truth, return_inverse=True)
        count = max(negatives, 1) if len(shown) == 1 else negatives
        photos = np.concatenate([shown, self.further[:count]])
        sketches = self.items.sketches(self.task.sketches[self.episode.support])
        return sketches, self.items.photos(self.task.gallery[photos]), places.reshape(-1)


class Method(Protocol):
    """A row of the table."""

    @property
    def name(self) -> str: ...

    def items(self, setting: Setting, tasks: Sequence[Task]) -> Items:
        """The items of these tasks' sketches and photos."""
        ...

    def adapted(self, episode: EncodedEpisode, rng: np.random.Generator) -> Scorer:
        """What the method makes of an episode's support: similarities of further sketches to photos."""
        ...


def cosine(embed: Embedder) -> Scorer:
    """Similarities by an embedder: inner products of unit embeddings."""

    def score(sketches: Any, photos: Any) -> np.ndarray:
        similarities: np.ndarray = embed(sketches, "sketch") @ embed(photos, "photo").T
        return similarities

    return score


def episodes(tasks: Sequence[Task], items: Items, k: int, config: ProtocolConfig) -> Iterator[tuple[int, int, EncodedEpisode]]:
    """(task, turn, episode) for every task that can give k pairs, `config.draws` times."""
    large = [task for task in tasks if gives(task, k)]
    for number, task in enumerate(large):
        for turn in range(config.draws):
            seed = [config.seed, number, turn]
            episode = draw(task, k, np.random.default_rng(seed))
            rng = np.random.default_rng([*seed, _FURTHER])
            others = rng.permutation(np.setdiff1d(np.arange(len(task.gallery)), task.truth[episode.support]))
            asked = np.isin(others, task.truth)
            yield number, turn, EncodedEpisode(episode, items, np.concatenate([others[~asked], others[asked]]))


@dataclass(frozen=True)
class Measured:
    """Accuracies of a method for one k: `values` by figure ("acc@1") has a row a task, a column a draw, in percent."""

    tasks: tuple[str, ...]
    values: dict[str, list[list[float]]]

    def mean(self, figure: str) -> float:
        """Mean over tasks of the mean over draws."""
        return float(np.mean(self.values[figure]))


def measure(method: Method, setting: Setting, tasks: Sequence[Task], k: int, config: ProtocolConfig) -> Measured:
    """Acc@1 and Acc@5 of a method on k pairs of every task that can give them. Raises ConfigError where there is none."""
    large = [task for task in tasks if gives(task, k)]
    if not large:
        raise ConfigError(f"setting {setting.name}: no task can give {k} support pairs and a query; lower protocol.ks")
    values = {f"acc@{at}": [[0.0] * config.draws for _ in large] for at in AT}
    for number, turn, encoded in episodes(large, method.items(setting, large), k, config):
        task, query = encoded.task, encoded.episode.query
        rng = np.random.default_rng([config.seed, number, turn, _METHOD])
        score = method.adapted(encoded, rng)
        similarities = score(encoded.items.sketches(task.sketches[query]), encoded.items.photos(task.gallery))
        ranks = ranks_of(similarities, task.truth[query])
        for at in AT:
            values[f"acc@{at}"][number][turn] = accuracy(ranks, at)
    return Measured(tuple(task.name for task in large), values)
