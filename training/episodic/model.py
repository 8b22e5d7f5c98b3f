"""What the outer loop trains above the encoder: gains, head, step sizes, centring and margin; and what below it may train."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.config import ConfigError
from training.episodic.config import InnerConfig, MarginConfig
from training.episodic.margins import build_margin
from training.inner_loop import Support, adapt, adapted_outputs, centring
from training.models.encoder import Encoder

Kind = Literal["projected", "pooled", "pixels"]  # what a feature source gives: float32 [n,C], [n,R] or [n,3,S,S]


class MetaModel(nn.Module):
    """Feature gains, head, step sizes, centring and margin over projected features [..,C].

    Args:
        head: the embedding layer W [D,C], b [D]; trained in place.
        gains: whether the gains train; else they are 1.
    """

    def __init__(self, head: nn.Linear, inner: InnerConfig, margin: MarginConfig, *, gains: bool = True) -> None:
        super().__init__()
        self.head, self.inner = head, inner
        self.log_gain = nn.Parameter(torch.zeros(head.in_features), requires_grad=gains)
        shape = {"shared": (1,), "step": (inner.steps,), "row": (inner.steps, head.out_features)}[inner.rates]
        self.step_sizes = nn.Parameter(torch.full(shape, inner.rate), requires_grad=inner.learn_rates)
        centred = math.isfinite(inner.centre)
        prior = torch.tensor(inner.centre).log()
        self.log_centre = nn.Parameter(prior, requires_grad=inner.learn_centre) if centred else None
        self.margin_design = build_margin(margin, inner, head)

    @property
    def rates(self) -> Tensor:
        """Step sizes of the inner loop: [T], or [T,D] where each row of the head has its own."""
        return self.step_sizes.expand(self.inner.steps, *self.step_sizes.shape[1:])

    @property
    def centre(self) -> Tensor | None:
        """p [] of the centring; None where sketches are not centred."""
        return None if self.log_centre is None else self.log_centre.exp()

    def _centred(self, support: Support) -> Support:
        """The support sets with the shift that their sketches start with."""
        if self.centre is None:
            return support
        return replace(support, shift=centring(self.head.weight, self.head.bias, support, self.centre))

    def features(self, projected: Tensor) -> Tensor:
        """Unit features [..,C] of projected ones, under the gains."""
        return F.normalize(projected * self.log_gain.exp(), dim=-1)

    def margin(self, support: Support) -> Tensor:
        """Margins [E] of the support sets, under the head before the first step."""
        margins: Tensor = self.margin_design(self._centred(support), self.head.weight, self.head.bias)
        return margins

    def adapt(self, support: Support, second_order: bool = True, *, margin: Tensor | None = None) -> Tensor:
        """Coefficients [E,m,D] that the inner loop finds; `margin` [E] where it is known already."""
        return adapt(
            self.head.weight,
            self.head.bias,
            self._centred(support),
            self.rates,
            self.margin(support) if margin is None else margin,
            sharpness=self.inner.sharpness,
            side=self.inner.side,
            second_order=second_order,
        )

    def embed(self, features: Tensor, support: Support, coefficients: Tensor | None, *, sketches: bool = True) -> Tensor:
        """Unit embeddings [n,D] of features [n,C], of `sketches` or else of photos, under the head adapted to one support set.

        `support` and `coefficients` are of one episode: [1,m,C] and [1,m,D]; None: the head as it is, nothing centred.
        """
        weight, bias = self.head.weight, self.head.bias
        if coefficients is None:
            outputs = features.unsqueeze(0) @ weight.T + bias
        else:
            start = self._centred(support)
            outputs = adapted_outputs(weight, bias, start, coefficients, features.unsqueeze(0), sketches=sketches)
        return F.normalize(outputs[0], dim=-1)

    def scores(self, sketches: Tensor, photos: Tensor, support: Support, coefficients: Tensor | None) -> Tensor:
        """Cosines [Q,N] of sketches [Q,C] and photos [N,C] (features), each side adapted where it moves."""
        moved = coefficients if self.inner.side == "both" else None
        return self.embed(sketches, support, coefficients) @ self.embed(photos, support, moved, sketches=False).T


class Trunk(nn.Module):
    """The encoder up to and with its projection, of which a part may train. It stays in evaluation mode.

    Args:
        encoder: from a supervised checkpoint.
        kind: what `forward` gets.
        train: see FeatureConfig.
        chunk: images at a time whose activations are forgotten and computed again in the backward pass; 0: all kept.

    Raises:
        ConfigError: nothing, or no such stage, to train.
    """

    def __init__(self, encoder: Encoder, kind: Kind, train: str = "none", chunk: int = 0) -> None:
        super().__init__()
        self.encoder, self.kind, self.chunk = encoder, kind, chunk
        select_trained(encoder, train)

    def train(self, mode: bool = True) -> Trunk:
        """Always evaluation mode: batch norms keep their statistics, dropout is off, and what is cached stays what it was."""
        return super().train(False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Projected features float32 [n,C], not of unit length, of what the source gives."""
        if self.kind == "projected":
            return inputs
        pooled = inputs if self.kind == "pooled" else self._pooled(inputs)
        with torch.autocast(inputs.device.type, enabled=False):  # cosines of bfloat16 rows lose what tells photos apart
            projected: Tensor = self.encoder.projection(pooled.float())
            return projected

    def _pooled(self, pixels: Tensor) -> Tensor:
        if not self.chunk or len(pixels) <= self.chunk or not torch.is_grad_enabled():
            return self.encoder.pool(pixels)
        parts = torch.split(pixels, self.chunk)
        return torch.cat([checkpoint(self.encoder.pool, part, use_reentrant=False) for part in parts])


def select_trained(encoder: Encoder, train: str) -> None:
    """Let "none", "projection", "all", or a stage of the backbone and what follows it, train; everything else is fixed.

    Raises ConfigError for another name, or where there is no projection to train.
    """
    encoder.requires_grad_(train == "all")
    if train in ("none", "all"):
        return
    encoder.projection.requires_grad_(True)
    if train == "projection":
        if not list(encoder.projection.parameters()):
            raise ConfigError('features.train is "projection" and this encoder has none; train "none" or a stage')
        return
    steps = encoder.backbone.steps
    named = [number for number, (_, stage) in enumerate(steps) if stage]
    names = [steps[number][1] for number in named]
    if train not in names:
        raise ConfigError(f'features.train is {train!r}, expected "none", "projection", "all" or one of {", ".join(names)}')
    before = names.index(train)
    first = named[before - 1] + 1 if before else 0
    for path, _ in steps[first:]:
        encoder.backbone.get_submodule(path).requires_grad_(True)
    for module in (encoder.attention, encoder.pooling):
        module.requires_grad_(True)


@torch.no_grad()
def fold_gain(encoder: Encoder, log_gain: Tensor) -> None:
    """Make the gains part of the projection, so that a device needs to know nothing of them."""
    encoder.projection.weight.mul_(log_gain.exp().unsqueeze(1))
    encoder.projection.bias.mul_(log_gain.exp())
