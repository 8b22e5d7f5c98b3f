"""Soft spatial attention with a residual (METHODS A.1), for the maps of any stage."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """A = softmax over positions of conv1x1(F); returns F + F*A, or with `scaled` F + h*w*F*A.

    After average pooling the papers' term is 1/(h*w) of an ordinary attention pooling, so it is weak by construction. `scaled`
    undoes that and is no paper's. Both start with equal attention everywhere.
    """

    def __init__(self, channels: int, *, scaled: bool = False) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)
        self.scaled = scaled
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]

    def weights(self, x: Tensor) -> Tensor:
        """The attention map: [B,C,h,w] -> [B,1,h,w], every image's sum 1."""
        return F.softmax(self.score(x).flatten(1), dim=1).view(-1, 1, *x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:  # [B,C,h,w] -> [B,C,h,w]
        attended = x * self.weights(x)
        return x + attended * (x.shape[2] * x.shape[3]) if self.scaled else x + attended
