"""Light encoder and what it is to learn, as one module: one call is one training step's forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.losses.distillation import relational_distillation
from training.models.encoder import EmbeddingHead
from training.models.light import LightEncoder


@dataclass(frozen=True)
class LightLoss:
    """Weights of the terms.

    features     1 - cosine of the features to the teacher's
    embeddings   1 - cosine of what the head makes of them: what search compares
    relation     divergence of the likeness to photos from the teacher's (losses/distillation.py)
    temperature  of that likeness
    photos       of how many photos at most

    Raises:
        ValueError: a number out of range.
    """

    features: float = 1.0
    embeddings: float = 1.0
    relation: float = 1.0
    temperature: float = 0.05
    photos: int = 2000

    def __post_init__(self) -> None:
        if min(self.features, self.embeddings, self.relation) < 0 or self.temperature <= 0 or self.photos < 2:
            raise ValueError("weights of the loss must not be negative, its temperature positive, its photos at least 2")


class LightNetwork(nn.Module):
    """`photos` [N,D]: unit embeddings that drawings are to be as near to as the teacher has them."""

    def __init__(self, encoder: LightEncoder, head: EmbeddingHead, photos: Tensor, loss: LightLoss) -> None:
        super().__init__()
        self.encoder, self.head, self.loss = encoder, head, loss
        self.photos: Tensor
        self.register_buffer("photos", photos, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Drawings [B,3,S,S] -> unit features [B,C]; everything behind the pooling is float32 whatever the precision."""
        pooled = self.encoder.pool(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            return self.encoder.project(pooled.float())

    def compare(self, features: Tensor, wanted: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss and its terms' values, from features [B,C] and the teacher's of the same drawings.

        Not a part of ``forward``, where Fabric would round the teacher's to the precision of the pixels.
        """
        mine, theirs, own = self.head(features), self.head(wanted), self.loss
        relation = relational_distillation(mine, self.photos, theirs, self.photos, own.temperature)
        terms = {
            "features": own.features * (1 - (features * wanted).sum(1)).mean(),
            "embeddings": own.embeddings * (1 - (mine * theirs).sum(1)).mean(),
            "relation": own.relation * relation,
        }
        return torch.stack(list(terms.values())).sum(), {name: float(term.detach()) for name, term in terms.items()}

    def model_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of the encoder alone: all that trains."""
        for name, tensor in self.encoder.state_dict().items():
            yield f"encoder.{name}", tensor
