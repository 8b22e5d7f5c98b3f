"""Cross-category generalisation without adaptation (CC-DG): the representation depends on the query sketch itself.

The source (Pang et al., Generalising Fine-Grained Sketch-Based Image Retrieval, CVPR 2019) says in its abstract: a universal
manifold of prototypical sketch traits is learned without labels; a sketch's place on it parameterises the representation of
sketches and photos, so that a new category needs no pairs. Chosen here, over the features of a fixed encoder:

    traits       t_1..t_K, unit vectors: spherical k-means of the training sketches' features, no labels
    place        v(s) = softmax_k(s . t_k / temperature)
    embedding    z(f; s) = normalise(W (f * (1 + G v(s))) + b) of the sketch and of every photo it is compared with

G [C,K] starts at 0, where the method is the supervised baseline, and trains with W and b on episodes of training tasks, without
support and inner loop. A gallery has another embedding for every query: exact search costs Q times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from training.checkpoint import read_meta, save_tensors
from training.config import ConfigError
from training.episodes import Task, draw, gives
from training.episodic.methods.head import Features, HeadMethod, Layer
from training.episodic.methods.outer import OuterConfig, gallery_of, query_loss
from training.episodic.methods.protocol import EncodedEpisode, Scorer
from training.episodic.methods.run import LoopConfig, MethodRun

ROUNDS = 25  # of k-means


@dataclass(frozen=True)
class TraitsConfig:
    """K traits, the temperature of a sketch's place among them, and how the rest trains."""

    traits: int = 32
    temperature: float = 0.1
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(LoopConfig(400, 100), rate=1e-4, versions=1))

    def __post_init__(self) -> None:
        if self.traits < 1 or self.temperature <= 0:
            raise ValueError("traits and temperature must be positive")


class TraitHead(nn.Module):
    """Features and the query's place among the traits to embeddings."""

    traits: Tensor

    def __init__(self, layer: Layer, traits: Tensor, temperature: float) -> None:
        super().__init__()
        self.register_buffer("traits", traits)
        self.temperature = temperature
        self.weight, self.bias = nn.Parameter(layer.weight.clone()), nn.Parameter(layer.bias.clone())
        self.gains = nn.Parameter(torch.zeros(layer.weight.shape[1], len(traits)))

    def place(self, sketches: Tensor) -> Tensor:
        """Unit features [Q,C] -> [Q,K], rows of sum 1."""
        return F.softmax(sketches @ self.traits.T / self.temperature, dim=1)

    def forward(self, sketches: Tensor, photos: Tensor) -> Tensor:
        """Similarities [Q,N] of sketches [Q,C] to photos [N,C]."""
        gains = 1.0 + self.place(sketches) @ self.gains.T
        ours = F.normalize((sketches * gains) @ self.weight.T + self.bias, dim=1)
        theirs = F.normalize((photos[None] * gains[:, None]) @ self.weight.T + self.bias, dim=2)
        return (theirs @ ours[:, :, None])[:, :, 0]


def find_traits(rows: Tensor, count: int, seed: int) -> Tensor:
    """Unit centres [K,C] of unit rows [n,C] by spherical k-means, K at most n; a function of the rows and the seed.

    Starts as k-means++ does; a centre that nobody is nearest to moves to the row that is worst represented.
    """
    rng = np.random.default_rng([seed, 4])
    centres = rows[[int(rng.integers(len(rows)))]]
    while len(centres) < min(count, len(rows)):
        far = (1.0 - (rows @ centres.T).amax(1)).clamp_min(0.0).double().numpy()
        chance = far / far.sum() if far.sum() > 0 else None
        centres = torch.cat([centres, rows[[int(rng.choice(len(rows), p=chance))]]])
    for _ in range(ROUNDS):
        similarity, nearest = (rows @ centres.T).max(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        empty = torch.bincount(nearest, minlength=len(centres)) == 0
        sums[empty] = rows[similarity.argsort()[: int(empty.sum())]]
        centres = F.normalize(sums, dim=1)
    return centres


def train_traits(
    features: Features, layer: Layer, tasks: Sequence[Task], config: TraitsConfig, folder: Path, table: dict[str, Any]
) -> Path:
    """Find the traits of the training tasks' sketches and train on their episodes; returns the checkpoint.

    Raises ConfigError where no task is large enough, and what MethodRun.fit raises.
    """
    outer = config.outer
    large = [task for task in tasks if gives(task, outer.k)]
    if not large:
        raise ConfigError(f"{folder}: no training task can give {outer.k} pairs and a query; lower k")
    features.prepare(large)
    rows = features.sketches(np.unique(np.concatenate([task.sketches for task in large])))
    model = TraitHead(layer, find_traits(rows, config.traits, outer.loop.seed), config.temperature)

    def step(rng: np.random.Generator) -> float:
        total = 0.0
        for pick in rng.integers(len(large), size=outer.tasks):
            task = large[int(pick)]
            query = draw(task, outer.k, rng, queries=outer.queries).query
            gallery, truth = gallery_of(task, query, outer.others, rng)
            similarities = model(features.sketches(task.sketches[query]), features.photos(task.gallery[gallery]))
            loss = query_loss(similarities, truth, outer) / outer.tasks
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    def save(path: Path, done: int) -> None:
        save_tensors(path, dict(model.state_dict()), {"method": table, "step": done, "temperature": config.temperature})

    return MethodRun(folder, outer.loop, outer.rate, model, list(model.parameters()), table).fit(step, save)


@dataclass(frozen=True, eq=False)
class Traits(HeadMethod):
    """CC-DG as trained: nothing of an episode's support is looked at."""

    model: TraitHead

    def adapted(self, episode: EncodedEpisode, rng: np.random.Generator) -> Scorer:
        @torch.no_grad()
        def score(sketches: Tensor, photos: Tensor) -> np.ndarray:
            parts = [self.model(sketches[row : row + 1], photos) for row in range(len(sketches))]
            rows: np.ndarray = torch.cat(parts).numpy()
            return rows

        return score


def load_traits(checkpoint: Path, layer: Layer) -> TraitHead:
    """What `train_traits` wrote."""
    tensors = load_file(checkpoint)
    model = TraitHead(layer, tensors["traits"], float(read_meta(checkpoint)["temperature"]))
    model.load_state_dict(tensors)
    return model
