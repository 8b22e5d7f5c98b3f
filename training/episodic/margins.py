"""Where the margin of the inner loss comes from (METHODS C.5).

All designs map the support sets of E episodes and the head before adaptation to margins [E]. A margin gets a gradient from the
outer loss only through a smooth inner loss and a second-order inner loop: with a hinge it decides which triplets are active and
nothing else. Where sketches are shifted before the first step (Support.shift), margins are of the shifted ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.episodic.config import InnerConfig, MarginConfig
from training.inner_loop import Support, support_outputs, triplet_distances, triplet_loss
from training.models.margin import MarginNet

TINY = 1e-12  # keeps the direction of a zero gradient finite


class MarginDesign(nn.Module):
    """Base of the designs."""

    def forward(self, support: Support, weight: Tensor, bias: Tensor) -> Tensor:
        """Margins [E] of support sets under the head `weight` [D,C], `bias` [D]."""
        raise NotImplementedError

    def arrays(self) -> dict[str, Tensor]:
        """Weights of the network that a device runs, by the runtime's field names; none where it runs none."""
        return {}


class FixedMargin(MarginDesign):
    """The same for every task."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, support: Support, weight: Tensor, bias: Tensor) -> Tensor:
        return support.features.new_full((len(support.features),), self.value)


class DistanceMargin(MarginDesign):
    """The recommended design: a permutation-invariant network over the support's triplet distances, as the device runs it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.net = MarginNet(hidden)

    def forward(self, support: Support, weight: Tensor, bias: Tensor) -> Tensor:
        positive, distances = triplet_distances(support_outputs(weight, bias, support), support.pairs)
        margins: Tensor = self.net(positive.unsqueeze(-1).expand_as(distances), distances, support.mask)
        return margins

    def arrays(self) -> dict[str, Tensor]:
        return self.net.arrays()


class GradientMargin(MarginDesign):
    """MetaHTR's way: three layers and a sigmoid, fed with the gradient of the support loss for the head's matrix [D,C].

    The gradient is taken at a fixed margin and handed over as numbers: its direction, and the logarithm of its length (a choice;
    raw gradients are small and would leave the network at its bias). The input is D*C+1 wide, so the design belongs to one size
    of head, and no device runs it.
    """

    def __init__(self, head: nn.Linear, hidden: int, reference: float, sharpness: float) -> None:
        super().__init__()
        self.reference, self.sharpness = reference, sharpness
        self.layers = nn.Sequential(
            nn.Linear(head.in_features * head.out_features + 1, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, support: Support, weight: Tensor, bias: Tensor) -> Tensor:
        features = support.features.detach()
        with torch.enable_grad():
            outputs = support_outputs(weight, bias, support).detach().requires_grad_()
            margin = features.new_full((len(features),), self.reference)
            loss = triplet_loss(outputs, Support(features, support.mask), margin, self.sharpness).sum()
            (gradient,) = torch.autograd.grad(loss, outputs)
        flat = (gradient.transpose(1, 2) @ features).flatten(1)
        length = flat.norm(dim=1, keepdim=True).clamp_min(TINY)
        margins: Tensor = torch.sigmoid(self.layers(torch.cat([flat / length, length.log()], dim=1))).squeeze(1)
        return margins


def build_margin(config: MarginConfig, inner: InnerConfig, head: nn.Linear) -> MarginDesign:
    """The design that `config` names, for this head."""
    if config.design == "fixed":
        return FixedMargin(config.value)
    if config.design == "distances":
        return DistanceMargin(config.hidden)
    return GradientMargin(head, config.hidden, config.value, inner.sharpness)
