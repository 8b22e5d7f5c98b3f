"""From pixels to features, and from features to the embedding.

Encoder: backbone -> spatial attention with residual on each stage (METHODS A.1) -> pooling over a coarse grid that keeps where
things are -> one linear projection -> unit length. Head: the final embedding layer of the 2022 paper, FC + L2; the only part that
ever learns on a device. config.EncoderConfig says which of it there is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.attention import SpatialAttention
from training.models.backbone import BRANCH_CHANNELS
from training.models.config import EncoderConfig
from training.models.edge import EdgeMap
from training.models.pooling import POOLINGS, grid_pool, windows
from training.models.registry import build_backbone

__all__ = [
    "EmbeddingHead",
    "Encoder",
    "EncoderConfig",
    "SpatialAttention",
    "build_encoder",
    "build_head",
    "grid_pool",
    "initialise_by_pca",
]


class Encoder(nn.Module):
    """Pixels [B,3,S,S] (normalised RGB) -> unit features [B,C].

    Raises ValueError where the input is too small for the grids.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, config.options)
        for side, cells in zip(self.backbone.side(config.size), config.grids, strict=True):
            windows(side, cells)
        scaled = config.attention == "scaled"
        self.attention = nn.ModuleList(
            nn.Identity() if config.attention == "none" else SpatialAttention(channels, scaled=scaled)
            for channels in self.backbone.channels
        )
        self.pooling = nn.ModuleList(POOLINGS[config.pooling](cells) for cells in config.grids)
        edges = {"photo": 0, "edge": BRANCH_CHANNELS, "both": 1}[config.branch]
        self.edge = EdgeMap(edges) if edges else None
        self.pooled = config.pooled
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(self.pooled, config.features) if config.projection else Gain(self.pooled)

    def view(self, x: Tensor) -> Tensor:
        """What the backbone sees of the pixels: [B,3,S,S] -> [B,3 or 4,S,S]."""
        if self.edge is None:
            return x
        edges: Tensor = self.edge(x)
        return torch.cat([x, edges], dim=1) if self.config.branch == "both" else edges

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """The tapped maps, attention applied: [B,3,S,S] -> one [B,c,h,h] for each stage."""
        levels = self.backbone(self.view(x))
        return tuple(attend(level) for attend, level in zip(self.attention, levels, strict=True))

    def pool_maps(self, maps: tuple[Tensor, ...]) -> Tensor:
        """What ``maps`` gave, pooled over the grids, stages side by side: [B,R]."""
        return torch.cat([pool(level) for pool, level in zip(self.pooling, maps, strict=True)], dim=1)

    def pool(self, x: Tensor) -> Tensor:
        """The pooled maps before the projection: [B,3,S,S] -> [B,R]."""
        return self.pool_maps(self.maps(x))

    def project(self, pooled: Tensor) -> Tensor:
        """Pooled maps [B,R] -> unit features [B,C]."""
        return F.normalize(self.projection(self.dropout(pooled)), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.pool(x))


class Gain(nn.Module):
    """What stands for the projection where there is none: [B,C] -> [B,C] times 1 plus 0, not trained by gradient.

    The outer loop of meta-learning ends by scaling the projection's rows; here it finds a column `weight` [C,1] to scale.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.ones(features, 1))
        self.register_buffer("bias", torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.squeeze(1) + self.bias


class EmbeddingHead(nn.Module):
    """Final embedding layer W [D,C], b [D]: features [B,C] -> unit embeddings [B,D]. `identity`: W = 1 and does not train."""

    def __init__(self, features: int, embedding: int, *, identity: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(features, embedding)
        if identity:
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
            self.linear.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.linear(features), dim=1)


def build_encoder(config: EncoderConfig, *, seed: int | None = None) -> Encoder:
    """An encoder with random weights; with `seed` always the same ones, and PyTorch's own generator is left as it was."""
    if seed is None:
        return Encoder(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(config)


def build_head(config: EncoderConfig) -> EmbeddingHead:
    """The head that goes with an encoder."""
    return EmbeddingHead(config.features, config.embedding, identity=config.head == "identity")


RANK_FLOOR = 1e-6  # of the largest singular value; what is below is rounding
WHITENING = 0.25  # between principal components as they are (0) and fully whitened ones (1); meta-training's choice


@torch.no_grad()
def initialise_by_pca(encoder: Encoder, head: EmbeddingHead, pooled: Tensor, whitening: float = WHITENING) -> None:
    """Set the projection to principal components of pooled training features [N,R], the head to its leading rows.

    Components are divided by their singular value to the power `whitening`. Before training this starts the model at the frozen
    backbone's retrieval figures; after training it undoes what the projection has learned by heart and the backbone has not.
    Without a projection the components go into the head, of unit features then; without either there is nothing to set.
    """
    features, embedding = encoder.config.features, encoder.config.embedding
    if isinstance(encoder.projection, nn.Linear):
        _set_components(encoder.projection, pooled, features, whitening)
        head.linear.weight.copy_(torch.eye(embedding, features))
        head.linear.bias.zero_()
    elif encoder.config.head == "linear":
        _set_components(head.linear, F.normalize(pooled, dim=1), embedding, whitening)


def _set_components(layer: nn.Linear, rows: Tensor, count: int, whitening: float) -> None:
    mean = rows.mean(0)
    singular, components = _principal(rows - mean, count)
    rank = len(singular)
    scale = (singular / singular[0]).clamp_min(1e-4) ** -whitening
    weight = torch.zeros_like(layer.weight)
    weight[:rank] = components[:rank] * scale.unsqueeze(1)
    norm = ((rows - mean) @ weight.T).norm(dim=1).mean()
    layer.weight.copy_(weight / norm)
    layer.bias.copy_(-(weight / norm) @ mean)


def _principal(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest singular values of centred rows [N,R] and their right vectors [count,R]; fewer where the rank is less.

    By the eigenvectors of the smaller Gram matrix, which takes seconds where a decomposition of the rows takes minutes; in double
    precision, since squaring halves the digits.
    """
    rows = centred.double()
    wide = rows.shape[0] < rows.shape[1]
    values, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    singular = values.flip(0)[:count].clamp_min(0).sqrt()
    singular = singular[singular > RANK_FLOOR * singular[0]]
    leading = vectors.flip(1)[:, : len(singular)].T
    if wide:
        leading = F.normalize(leading @ rows, dim=1)
    return singular.to(centred.dtype), leading.to(centred.dtype)
