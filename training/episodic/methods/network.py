"""Methods whose inner loop changes the network and not only its last layer: fine-tuning, MAML, sign-MAML.

MAML (Finn et al., ICML 2017) descends from trained initial weights, in training to second order or to first. Sign-MAML (Fan et
al., 2021, arXiv 2109.07497) steps by the sign of the gradient; since a sign has no derivative it is of first order by itself.
Fine-tuning descends from the supervised weights. All use the triplet loss of the support with one fixed margin (METHODS C.9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from training.episodes import Task
from training.episodic.methods.head import unit
from training.episodic.methods.protocol import EncodedEpisode, Role, Scorer, cosine
from training.episodic.methods.settings import Setting
from training.episodic.methods.support import layout
from training.episodic.methods.tail import Activations, Maps, Tail, chosen, joined
from training.inner_loop import Support, triplet_loss

Order = Literal["first", "second", "sign"]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class InnerConfig:
    """The inner loop over weights.

    rate, steps  plain gradient descent
    order        what the outer loop sees of a step: "second" all of it, "first" its result alone; "sign" steps by signs
    margin, sharpness, negatives  of the support's triplet loss (sharpness 0: the hinge; negatives: further photos)
    """

    rate: float = 0.01
    steps: int = 1
    order: Order = "second"
    margin: float = 0.3
    sharpness: float = 10.0
    negatives: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.negatives < 0 or self.sharpness < 0:
            raise ValueError("steps, negatives and sharpness must not be negative")


def descend(weights: Weights, loss: Callable[[Weights], Tensor], config: InnerConfig, rate: Tensor | None = None) -> Weights:
    """Weights after `config.steps` steps down `loss`; differentiable in `weights` (and `rate`, which replaces the fixed one).

    Weights that the loss does not depend on stay as they are.
    """
    size = config.rate if rate is None else rate
    for _ in range(config.steps):
        with torch.enable_grad():
            names = list(weights)
            tensors = [item if item.requires_grad else item.detach().requires_grad_() for item in weights.values()]
            value = loss(dict(zip(names, tensors, strict=True)))
            second = config.order == "second"
            gradients = torch.autograd.grad(value, tensors, create_graph=second, allow_unused=True, materialize_grads=True)
            signed = [gradient.sign() if config.order == "sign" else gradient for gradient in gradients]
            moved = [tensor - size * gradient for tensor, gradient in zip(tensors, signed, strict=True)]
        weights = dict(zip(names, moved, strict=True))
    return weights


def support_loss(tail: Tail, episode: EncodedEpisode, config: InnerConfig) -> Callable[[Weights], Tensor]:
    """The triplet loss of an episode's support as a function of the tail's weights."""
    sketches, photos, places = episode.support(config.negatives)
    maps = joined(sketches, photos)
    order, mask = layout(places, len(photos[0]))
    order = torch.cat([torch.arange(len(places)), len(places) + order])

    def loss(weights: Weights) -> Tensor:
        outputs: Tensor = functional_call(tail, weights, (maps,))
        rows = outputs[order][None]
        return triplet_loss(rows, Support(rows, mask), torch.full((1,), config.margin, dtype=rows.dtype), config.sharpness).sum()

    return loss


@dataclass(frozen=True, eq=False)
class NetworkMethod:
    """Descends from a tail's own weights on every episode: fine-tuning, or MAML where the weights were trained for it."""

    name: str
    tail: Tail
    activations: dict[str, Activations]
    config: InnerConfig = field(default_factory=InnerConfig)

    def items(self, setting: Setting, tasks: Sequence[Task]) -> Activations:
        """The setting's activations."""
        return self.activations[setting.name]

    def adapted(self, episode: EncodedEpisode, rng: np.random.Generator) -> Scorer:
        own = {name: parameter.detach() for name, parameter in self.tail.learned().items()}
        first = InnerConfig(**{**vars(self.config), "order": "sign" if self.config.order == "sign" else "first"})
        weights = descend(own, support_loss(self.tail, episode, first), first)
        return cosine(embedder(self.tail, weights))


def embedder(tail: Tail, weights: Weights) -> Callable[[Any, Role], np.ndarray]:
    """Unit embeddings float32 [n,D] of maps by a tail with these weights."""

    def embed(maps: Maps, role: Role) -> np.ndarray:
        with torch.no_grad():
            parts = [functional_call(tail, weights, (part,)) for part in split(maps)]
        return unit(torch.cat(parts))

    return embed


def split(maps: Maps, size: int = 64) -> list[Maps]:
    """Rows in parts of at most `size`."""
    return [chosen(maps, range(start, min(start + size, len(maps[0])))) for start in range(0, len(maps[0]), size)]
