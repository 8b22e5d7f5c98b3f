"""Training a tail on episodes: MAML and sign-MAML through their inner loop, the upper bound and plain baselines without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from training.checkpoint import save_model
from training.config import ConfigError
from training.episodes import Task, draw, gives
from training.episodic.methods.network import InnerConfig, Weights, descend, support_loss
from training.episodic.methods.protocol import EncodedEpisode
from training.episodic.methods.run import LoopConfig, MethodRun
from training.episodic.methods.tail import Activations, Maps, Tail, joined


@dataclass(frozen=True)
class OuterConfig:
    """How episodes train.

    loop         steps, seed and so on
    rate         Adam's
    tasks        episodes a step, every task as likely as the others
    k            support pairs of an episode
    queries      at most so many query sketches of each
    others       at most so many gallery photos beside those that are asked for
    loss         "gallery": cross entropy over these photos, as this project's own outer loop has it, so that methods differ in
                 what they adapt alone; "triplet": the paper's hinge L_T with a fixed margin, against all of them
    versions     of every image: the clean one and versions - 1 augmented ones
    learn_rate   whether the inner rate trains with the weights (in MAML as published it does not)
    """

    loop: LoopConfig = field(default_factory=LoopConfig)
    rate: float = 1e-5
    tasks: int = 2
    k: int = 5
    queries: int = 16
    others: int = 16
    loss: Literal["gallery", "triplet"] = "gallery"
    temperature: float = 0.07
    margin: float = 0.3
    versions: int = 2
    learn_rate: bool = False

    def __post_init__(self) -> None:
        if min(self.tasks, self.k, self.queries, self.versions) < 1 or self.others < 0 or self.rate <= 0:
            raise ValueError("tasks, k, queries, versions and rate must be positive, others not negative")


class Trained(nn.Module):
    """What trains: a tail, and the logarithm of the inner rate."""

    def __init__(self, tail: Tail, rate: float) -> None:
        super().__init__()
        self.tail = tail
        self.log_rate = nn.Parameter(torch.tensor(float(rate)).log())


@dataclass(frozen=True, eq=False)
class Versions:
    """Items of one version."""

    activations: Activations
    version: int

    def sketches(self, rows: np.ndarray) -> Maps:
        return self.activations.sketches(rows, self.version)

    def photos(self, rows: np.ndarray) -> Maps:
        return self.activations.photos(rows, self.version)


def query_loss(similarities: Tensor, truth: Tensor, config: OuterConfig) -> Tensor:
    """Loss of queries with cosine similarities [Q,N] to photos, their own at `truth` [Q]."""
    if config.loss == "gallery":
        return F.cross_entropy(similarities / config.temperature, truth)
    distances = (2.0 - 2.0 * similarities).clamp_min(1e-12).sqrt()
    violation = (config.margin + distances.gather(1, truth[:, None]) - distances).clamp_min(0.0)
    others = torch.ones_like(violation).scatter(1, truth[:, None], 0.0)
    return (violation * others).sum() / others.sum().clamp_min(1.0)


def gallery_of(task: Task, query: np.ndarray, others: int, rng: np.random.Generator) -> tuple[np.ndarray, Tensor]:
    """Gallery positions [N] of an episode of the outer loop, the queries' photos first, and their truth [Q] among these."""
    asked = np.unique(task.truth[query])
    rest = rng.permutation(np.setdiff1d(np.arange(len(task.gallery)), asked))[:others]
    return np.concatenate([asked, rest]), torch.from_numpy(np.searchsorted(asked, task.truth[query]))


@dataclass(frozen=True, eq=False)
class TailTraining:
    """Trains `tail` on episodes of `tasks`, as far as these can give k pairs."""

    tail: Tail
    activations: Activations
    tasks: Sequence[Task]
    inner: InnerConfig
    outer: OuterConfig

    def fit(self, folder: Path, meta: dict[str, Any], table: dict[str, Any]) -> Path:
        """Train in `folder`; returns the checkpoint, which holds the inner rate.

        Raises ConfigError where no task is large enough, and what MethodRun.fit raises.
        """
        outer = self.outer
        large = [task for task in self.tasks if gives(task, outer.k)]
        if not large:
            raise ConfigError(f"{folder}: no training task can give {outer.k} pairs and a query; lower k")
        model = Trained(self.tail, self.inner.rate)
        trained = [*self.tail.learned().values(), *([model.log_rate] if outer.learn_rate else [])]

        def step(rng: np.random.Generator) -> float:
            total = 0.0
            for pick in rng.integers(len(large), size=outer.tasks):
                loss = self._loss(model, large[int(pick)], rng) / outer.tasks
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
            return total

        def save(path: Path, done: int) -> None:
            rate = float(model.log_rate.detach().exp())
            save_model(path, self.tail.encoder, self.tail.head, {**meta, "method": table, "inner_rate": rate, "step": done})

        return MethodRun(folder, outer.loop, outer.rate, model, trained, table).fit(step, save)

    def _loss(self, model: Trained, task: Task, rng: np.random.Generator) -> Tensor:
        """Of one episode's queries, after the inner loop on its support."""
        inner, outer = self.inner, self.outer
        episode = draw(task, outer.k, rng, queries=outer.queries)
        items, clean = Versions(self.activations, int(rng.integers(outer.versions))), Versions(self.activations, 0)
        weights: Weights = dict(self.tail.learned())
        if inner.steps:
            further = rng.permutation(np.setdiff1d(np.arange(len(task.gallery)), task.truth[episode.support]))
            rate = model.log_rate.exp() if outer.learn_rate else None
            weights = descend(weights, support_loss(self.tail, EncodedEpisode(episode, items, further), inner), inner, rate)
        gallery, truth = gallery_of(task, episode.query, outer.others, rng)
        maps = joined(items.sketches(task.sketches[episode.query]), clean.photos(task.gallery[gallery]))
        rows = F.normalize(functional_call(self.tail, weights, (maps,)), dim=1)
        return query_loss(rows[: len(truth)] @ rows[len(truth) :].T, truth, outer)
