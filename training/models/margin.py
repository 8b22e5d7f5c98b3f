"""The margin network as a trainable module; fgsbir_edge/margin.py is what a device runs, with the same weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgsbir_edge.margin import VARIANCE_FLOOR


class MarginNet(nn.Module):
    """Support triplet distances -> margin in (0,1), permutation invariant (METHODS C.5)."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.first = nn.Linear(3, hidden)
        self.second = nn.Linear(2 * hidden, hidden)
        self.third = nn.Linear(hidden, 1)

    def forward(self, positive: Tensor, negative: Tensor, mask: Tensor) -> Tensor:
        """positive, negative, mask [E,k,n] (mask 1 where the triplet counts) -> margins [E]."""
        x = torch.stack([positive, negative, negative - positive], dim=-1)
        hidden = torch.relu(self.first(x)) * mask.unsqueeze(-1)
        count = mask.sum((1, 2)).clamp_min(1.0).unsqueeze(-1)
        mean = hidden.sum((1, 2)) / count
        variance = (((hidden - mean[:, None, None]) ** 2) * mask.unsqueeze(-1)).sum((1, 2)) / count
        summary = torch.cat([mean, (variance + VARIANCE_FLOOR).sqrt()], dim=1)
        return torch.sigmoid(self.third(torch.relu(self.second(summary)))).squeeze(1)

    def arrays(self) -> dict[str, Tensor]:
        """Weights by the field names of the runtime's MarginNet."""
        layers = (self.first, self.second, self.third)
        return {
            f"{kind[0]}{i}": getattr(layer, kind).detach() for i, layer in enumerate(layers, 1) for kind in ("weight", "bias")
        }
