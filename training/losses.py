"""Losses over a batch of sketch-photo pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def symmetric_info_nce(sketches: Tensor, photos: Tensor, temperature: float) -> Tensor:
    """Cross entropy over the batch in both directions (van den Oord et al. 2018, eq. 4, applied both ways).

    Args:
        sketches: unit embeddings [B,D]; row i belongs to photo row i.
        photos: unit embeddings [B,D] of B distinct photos.
        temperature: divides cosine similarities.
    """
    logits = sketches @ photos.T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
