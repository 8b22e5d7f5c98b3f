"""What the network makes of one side of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Views:
    """One side (the sketches or the photos) of a batch of B pairs, at every height of the network.

    maps        one [B,c,h,h] for each stage, before pooling
    pooled      [B,R], the pooled maps before the projection
    features    [B,C], unit length
    embeddings  [B,D], unit length
    """

    maps: tuple[Tensor, ...]
    pooled: Tensor
    features: Tensor
    embeddings: Tensor
