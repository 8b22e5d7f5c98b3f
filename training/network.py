"""Encoder, head and loss as one module, so that one call is one training step's forward pass, on however many devices."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from training.losses import PairLoss
from training.losses.views import Views
from training.models.encoder import EmbeddingHead, Encoder


class PairNetwork(nn.Module):
    """Pixels of B sketch-photo pairs to a loss. Sketches and photos go through the same encoder (METHODS A.1), in one batch."""

    def __init__(self, encoder: Encoder, head: EmbeddingHead, loss: PairLoss) -> None:
        super().__init__()
        self.encoder, self.head, self.loss = encoder, head, loss

    def forward(
        self, sketches: Tensor, photos: Tensor, photo_index: Tensor, category_index: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """sketches, photos: float32 [B,3,S,S]; photo_index, category_index: int64 [B]. Returns the loss and its terms' values."""
        both = self.views(torch.cat([sketches, photos]).contiguous(memory_format=torch.channels_last))
        ours, theirs = split(both, slice(None, len(sketches))), split(both, slice(len(sketches), None))
        total: Tensor
        total, terms = self.loss(ours, theirs, photo_index, category_index)
        return total, terms

    def views(self, pixels: Tensor) -> Views:
        """All that a loss may look at of a batch of pixels [B,3,S,S].

        Everything behind the pooling is float32 whatever the precision: cosines of bfloat16 rows lose what tells photos apart.
        """
        maps = self.encoder.maps(pixels)
        pooled = self.encoder.pool_maps(maps)
        with torch.autocast(pixels.device.type, enabled=False):
            features = self.encoder.project(pooled.float())
            return Views(maps, pooled, features, self.head(features))

    def model_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of encoder and head: what a trained model is, without the loss."""
        for name, tensor in self.state_dict().items():
            if not name.startswith("loss."):
                yield name, tensor


def split(views: Views, rows: slice) -> Views:
    """The views of some rows."""
    return Views(tuple(level[rows] for level in views.maps), views.pooled[rows], views.features[rows], views.embeddings[rows])
