"""One model for K categories (or people) against K individual models: the poster's last figure (METHODS C.8), cheaply.

The figure is the motivation of adapting: a model that has to serve many categories is worse at each of them than a model of that
category alone. Of people, who are tasks just as well, the poster has none. Here a model is a layer, or two, on features that a
fixed encoder gave once:

    "head"        z = (W f + b) / |.|,  starting at the model's own W [D,C] and b [D]
    "projection"  f = (P x + p) / |.| first, from pooled maps x [R], starting at the model's own P [C,R] and p [C]

The photos that have sketches are cut in two, anew in every repeat. Models train on pairs of the one part, with photos without
sketches as further negatives; sketches of the other part are searched among all photos of their category. A single model sees, in
an order drawn at random, exactly the batches that the K individual ones see. People share their photos: the same ones are held
for all.

What differs from the poster is in DIFFERS, which every report repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import ConfigError
from training.data.splits import ordered
from training.episodes import negative_mask
from training.episodic.held_back import TaskSource
from training.inner_loop import Support, triplet_loss
from training.metrics import accuracy, bootstrap_interval, gallery_ranks

DIFFERENCE = "individual - single"
_ALWAYS = (
    "the poster trains whole networks, here a layer or two on features of a fixed encoder, which may have seen these tasks",
    "the poster does not say how models were trained, nor on which photos they were judged; see the configuration",
    "a single model takes K times as many steps as an individual one: each task is seen as often",
)
DIFFERS: dict[str, tuple[str, ...]] = {
    "category": (
        *_ALWAYS,
        "the poster's K goes to 125 categories of Sketchy; here it goes as far as the categories of the data",
        "in the part of Sketchy at hand 3 to 5 photos of a category have sketches: a model of one category learns from very few",
    ),
    "person": (*_ALWAYS, "the poster has categories, and no such figure of people", "people draw the same photos"),
}


@dataclass(frozen=True)
class ManyModelsConfig:
    """The command's configuration.

    Args:
        source: the categories, or people.
        counts: the values of K, each at most the number of these.
        repeats: random choices of K of them and of the photos held; those of a larger K hold those of a smaller one.
        layers: what trains. "projection" needs a checkpoint, whose pooled maps are read.
        held: share of a category's photos with sketches that do not train; of people, of all photos.
        batch: pairs in a step; negatives: further photos in it; steps: of an individual model.
        rate: Adam's, falling to 0 along a cosine.
        margin, sharpness: of the triplet loss, softplus; sharpness 0 is the hinge.
        threads: of the encoder and of training.
    """

    source: TaskSource
    counts: tuple[int, ...] = (1, 2, 5, 10, 20)
    repeats: int = 3
    layers: Literal["head", "projection"] = "head"
    held: float = 0.3
    batch: int = 16
    negatives: int = 16
    steps: int = 200
    rate: float = 3e-4
    margin: float = 0.3
    sharpness: float = 10.0
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1 or self.repeats < 1 or self.batch < 2:
            raise ConfigError("expected counts of 1 or more, repeats of 1 or more, and a batch of 2 or more")
        if not 0.0 < self.held < 1.0:
            raise ConfigError(f"held is {self.held}, expected a share between 0 and 1")


@dataclass(frozen=True, eq=False)
class Category:
    """Rows [S,*] of sketches and [N,*] of photos; `truth` [S] places of the sketches' photos, `judged` [S] if they are held."""

    name: str
    sketches: Tensor
    photos: Tensor
    truth: np.ndarray
    judged: np.ndarray

    @classmethod
    def of(cls, name: str, rows: tuple[np.ndarray, np.ndarray], truth: np.ndarray) -> Category:
        """From rows of sketches and photos; nothing is held."""
        sketches, photos = (torch.from_numpy(np.ascontiguousarray(side, dtype=np.float32)) for side in rows)
        return cls(name, sketches, photos, truth, np.zeros(len(truth), dtype=np.bool_))

    def cut(self, share: float, repeat: int, *, alike: bool = False) -> Category:
        """The same with a share of the photos that have sketches held, one or more, in an order that belongs to the repeat.

        `alike`: a share of all photos, the same whatever the name and whichever have sketches.
        Raises ConfigError where fewer than two are left to train on, or none of those held has a sketch.
        """
        shown = np.unique(self.truth)
        places, salt = (np.arange(len(self.photos)), "") if alike else (shown, f"{self.name}-")
        order = [int(place) for place in ordered((str(place) for place in places), f"{salt}held-{repeat}")]
        held = np.intersect1d(order[: max(1, round(share * len(order)))], shown)
        if len(shown) - len(held) < 2 or not len(held):
            raise ConfigError(
                f"task {self.name!r} has {len(shown)} photos with sketches, {len(held)} of them held; give three or more, "
                "or another share to hold"
            )
        return replace(self, judged=np.isin(self.truth, held))


@dataclass(frozen=True, eq=False)
class Layers:
    """The tensors that train, in order: (P, p,) W, b."""

    tensors: tuple[Tensor, ...]

    def copy(self) -> Layers:
        """Leaves of their own."""
        return Layers(tuple(tensor.detach().clone().requires_grad_() for tensor in self.tensors))

    def outputs(self, rows: Tensor) -> Tensor:
        """[n,*] -> [n,D], not of unit length."""
        *first, weight, bias = self.tensors
        features = F.normalize(F.linear(rows, *first), dim=-1) if first else rows
        return F.linear(features, weight, bias)


def train(start: Layers, categories: Sequence[tuple[int, Category]], config: ManyModelsConfig) -> Layers:
    """One model of `categories`, each with its number: `config.steps` batches of every one, in an order drawn at random."""
    layers = start.copy()
    optimizer = torch.optim.Adam(layers.tensors, lr=config.rate)
    total = config.steps * len(categories)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    numbers = [number for number, _ in categories]
    order = np.random.default_rng([config.seed, 1, *numbers]).permutation(total)
    for turn in order:
        number, category = categories[int(turn) % len(categories)]
        rows, support = _batch(category, config, np.random.default_rng([config.seed, 2, number, int(turn) // len(categories)]))
        margin = torch.full((1,), config.margin)
        loss = triplet_loss(layers.outputs(rows)[None], support, margin, config.sharpness).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return layers


def _batch(category: Category, config: ManyModelsConfig, rng: np.random.Generator) -> tuple[Tensor, Support]:
    """Rows of sketches, their photos and further ones, and who is whose negative; a photo counts once, held photos not at all."""
    picked = rng.permutation(np.flatnonzero(~category.judged))[: config.batch]
    truth = category.truth[picked]
    free = np.setdiff1d(np.arange(len(category.photos)), category.truth)
    photos = np.concatenate([truth, rng.permutation(free)[: config.negatives]])
    mask = torch.from_numpy(negative_mask(truth, photos))
    rows = torch.cat([category.sketches[torch.from_numpy(picked)], category.photos[torch.from_numpy(photos)]])
    return rows, Support(rows[None], mask[None])


@torch.no_grad()
def judge(layers: Layers, category: Category) -> float:
    """Acc@1 in percent of the held photos' sketches among all photos of the category."""
    asked = category.sketches[torch.from_numpy(category.judged)]
    queries, gallery = (F.normalize(layers.outputs(rows), dim=-1).numpy() for rows in (asked, category.photos))
    return accuracy(gallery_ranks(queries, gallery, category.truth[category.judged]), 1)


def chosen(names: Sequence[str], count: int, repeat: int, seed: int) -> list[int]:
    """Numbers of the `count` categories of a repeat."""
    order = np.random.default_rng([seed, 3, repeat]).permutation(len(names))
    return sorted(order[:count].tolist())


def summarise(
    start: Sequence[dict[str, float]], individual: Sequence[dict[str, float]], single: dict[int, Sequence[dict[str, float]]]
) -> dict[str, Any]:
    """A point for each K: Acc@1 of the model before training, of a single model, of individual ones, and their difference.

    All are by repeat and category. A category counts with its mean over the repeats that chose it; intervals (95 %) are over
    categories.
    """
    points = {}
    for count, repeats in sorted(single.items()):
        found: dict[str, list[tuple[float, float, float]]] = {}
        for repeat, accuracies in enumerate(repeats):
            for name, value in accuracies.items():
                found.setdefault(name, []).append((start[repeat][name], value, individual[repeat][name]))
        means = np.array([np.mean(found[name], axis=0) for name in sorted(found)])
        columns = {**dict(zip(("start", "single", "individual"), means.T, strict=True)), DIFFERENCE: means[:, 2] - means[:, 1]}
        points[str(count)] = {"categories": len(found), **{what: _mean(values) for what, values in columns.items()}}
    return {"points": points}


def _mean(values: np.ndarray) -> dict[str, Any]:
    interval = [round(bound, 3) + 0.0 for bound in bootstrap_interval(values)] if len(values) > 1 else None  # + 0.0: no -0.0
    return {"mean": round(float(values.mean()), 3) + 0.0, "interval": interval}
