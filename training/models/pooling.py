"""From maps to vectors: average (in two cuts of the grid), maximum or generalised mean over cells; one cell is global pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GEM_FLOOR = 1e-6


def windows(side: int, cells: int) -> tuple[int, int]:
    """(kernel, stride) of `cells` equal, possibly overlapping windows over `side` pixels, nothing left over.

    Plain pooling with a stride that divides exactly, so that every runtime computes the same thing. Raises ValueError when there
    are fewer pixels than cells.
    """
    if side < cells:
        raise ValueError(f"a map of {side}x{side} has no {cells}x{cells} cells; use a larger input or a coarser grid")
    stride = side // cells
    return side - (cells - 1) * stride, stride


def grid_pool(x: Tensor, cells: int) -> Tensor:
    """Average over `cells` x `cells` windows: [B,C,h,h] -> [B,C*cells*cells], channel by channel."""
    return F.avg_pool2d(x, *windows(x.shape[-1], cells)).flatten(1)


class AveragePool(nn.Module):
    """[B,C,h,h] -> [B,C*cells*cells]."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        return grid_pool(x, self.cells)


class MaxPool(AveragePool):
    """[B,C,h,h] -> [B,C*cells*cells]; global maximum is what the papers' released code uses."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, *windows(x.shape[-1], self.cells)).flatten(1)


class TightPool(AveragePool):
    """Averages over the smallest windows that cover the map: [B,C,h,h] -> [B,C*cells*cells].

    Where `cells` divides h they are those of `AveragePool`. Elsewhere its equal windows overlap widely (7 cells over 10 pixels:
    windows of 4), while these, floor(i h / cells) to ceil((i+1) h / cells), are of 2 and 3 pixels. As two products with one
    constant matrix, so that every runtime computes the same thing.
    """

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        windows(side, self.cells)
        spans = [(i * side // self.cells, -(-(i + 1) * side // self.cells)) for i in range(self.cells)]
        rows = [[float(low <= place < high) / (high - low) for place in range(side)] for low, high in spans]
        mean = torch.tensor(rows, dtype=x.dtype, device=x.device)
        return (mean @ x @ mean.T).flatten(1)


class GeneralisedMean(AveragePool):
    """mean(x^p)^(1/p) with one learned p, from 3 (Radenovic et al., TPAMI 2019): [B,C,h,h] -> [B,C*cells*cells].

    Negative values count as 0: of a stage with linear outputs (a bottleneck of MobileNet) half is lost.
    """

    def __init__(self, cells: int) -> None:
        super().__init__(cells)
        self.p = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return grid_pool(x.clamp_min(GEM_FLOOR).pow(self.p), self.cells).pow(1.0 / self.p)


POOLINGS: dict[str, type[AveragePool]] = {"avg": AveragePool, "tight": TightPool, "max": MaxPool, "gem": GeneralisedMean}
