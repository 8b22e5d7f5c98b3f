"""From pixels to features, and from features to the embedding.

Encoder: backbone -> spatial attention with residual on each level (METHODS A.1 of the 2021 paper: one 1x1 convolution, softmax
over all positions, F + F*A) -> average pooling on a coarse grid that keeps where things are -> one linear projection -> unit
length. Head: the final embedding layer of the 2022 paper, FC + L2; the only part that ever learns on a device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.mobilenetv2 import MobileNetV2


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder. `size` is the square input in pixels, `features` the width C, `embedding` the width D."""

    size: int = 160
    features: int = 512
    embedding: int = 128
    grids: tuple[int, int] = (5, 3)  # pooled cells a side at stride 16 and stride 32
    dropout: float = 0.0  # of pooled features in training: the projection has more weights than there are pairs to learn from

    def __post_init__(self) -> None:
        smallest = max(16 * self.grids[0], 32 * self.grids[1])
        if self.size < smallest:
            raise ValueError(f"size is {self.size} pixels, grids {self.grids} need at least {smallest}")


class SpatialAttention(nn.Module):
    """A = softmax over positions of conv1x1(F); returns F + F*A.

    After average pooling the term is 1/(h*w) of an ordinary attention pooling, so it is weak by construction. `gain` h*w would
    undo that; the papers have none, and neither has this.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:  # [B,C,h,w] -> [B,C,h,w]
        attention = F.softmax(self.score(x).flatten(1), dim=1).view(-1, 1, *x.shape[2:])
        return x + x * attention


def grid_pool(x: Tensor, cells: int) -> Tensor:
    """Average over `cells` x `cells` equal, possibly overlapping windows: [B,C,h,w] -> [B,C*cells*cells].

    Plain average pooling with a stride that divides exactly, so that every runtime computes the same thing.
    """
    side = x.shape[-1]
    stride = max(side // cells, 1)
    kernel = side - (cells - 1) * stride
    return F.avg_pool2d(x, kernel, stride).flatten(1)


class Encoder(nn.Module):
    """Pixels [B,3,S,S] (normalised RGB) -> unit features [B,C]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = MobileNetV2()
        self.attention = nn.ModuleList(SpatialAttention(channels) for channels in self.backbone.channels)
        self.pooled = sum(channels * grid * grid for channels, grid in zip(self.backbone.channels, config.grids, strict=True))
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(self.pooled, config.features)

    def pool(self, x: Tensor) -> Tensor:
        """The pooled maps before the projection, levels side by side: [B,3,S,S] -> [B,R]."""
        maps = self.backbone(x)
        parts = [
            grid_pool(attend(level), grid) for attend, level, grid in zip(self.attention, maps, self.config.grids, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.projection(self.dropout(self.pool(x))), dim=1)


class EmbeddingHead(nn.Module):
    """Final embedding layer W [D,C], b [D]: features [B,C] -> unit embeddings [B,D]."""

    def __init__(self, features: int, embedding: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, embedding)

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.linear(features), dim=1)


WHITENING = 0.25  # between principal components as they are (0) and fully whitened ones (1)


@torch.no_grad()
def initialise_by_pca(encoder: Encoder, head: EmbeddingHead, pooled: Tensor) -> None:
    """Set the projection to principal components of pooled training features [N,R], the head to its leading rows.

    Components are divided by their singular value to the power WHITENING. Before training this starts the model at the frozen
    backbone's retrieval figures; after training it undoes what the projection has learned by heart and the backbone has not.
    """
    features, embedding = encoder.config.features, encoder.config.embedding
    mean = pooled.mean(0)
    _, singular, components = torch.linalg.svd(pooled - mean, full_matrices=False)
    rank = min(features, components.shape[0])
    scale = (singular[:rank] / singular[0]).clamp_min(1e-4) ** -WHITENING
    projection = torch.zeros_like(encoder.projection.weight)
    projection[:rank] = components[:rank] * scale.unsqueeze(1)
    norm = ((pooled - mean) @ projection.T).norm(dim=1).mean()
    encoder.projection.weight.copy_(projection / norm)
    encoder.projection.bias.copy_(-(projection / norm) @ mean)
    head.linear.weight.copy_(torch.eye(embedding, features))
    head.linear.bias.zero_()
