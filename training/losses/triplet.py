"""Triplet loss with negatives from the batch: the loss of the papers (METHODS A.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.losses.common import different, distances, full_precision, mean_of, mine, prefer_category


@dataclass(frozen=True)
class TripletOptions:
    """How triplets are made.

    margin           mu, in units of distance between unit vectors (0 to 2)
    mining           "random", "semi-hard" or "batch-hard" (common.mine)
    both_directions  photos are anchors too, with sketches as positives and negatives; the two means are averaged
    within_category  negatives from the anchor's own category, as in the Sketchy baseline (METHODS A.2); an anchor without such
                     negatives in the batch takes them from all categories
    """

    margin: float = 0.3
    mining: str = "random"
    both_directions: bool = False
    within_category: bool = False


@full_precision
def triplet_loss(
    sketches: Tensor, photos: Tensor, photo_index: Tensor, category_index: Tensor, options: TripletOptions
) -> Tensor:
    """``mean_i max(0, mu + d(s_i, p_i) - d(s_i, n_i))`` with plain Euclidean d (METHODS A.2; Schroff et al. 2015 for the form).

    The positive is the row's own photo; the negative a row of another photo. The mean runs over all anchors that have a negative;
    without any (a batch of one photo) the loss is 0 and so are the gradients.

    Args:
        sketches: unit embeddings [B,D].
        photos: unit embeddings [B,D]; row i is what sketch i means.
        photo_index: int64 [B]; equal numbers are the same photo.
        category_index: int64 [B].
        options: see there.

    Raises:
        ValueError: unknown mining.
    """
    allowed = different(photo_index)
    if options.within_category:
        allowed = prefer_category(allowed, category_index)
    table = distances(sketches, photos)
    positive = table.diagonal()
    tables = (table, table.T) if options.both_directions else (table,)
    return torch.stack([hinge(each, positive, allowed, options) for each in tables]).mean()


def hinge(table: Tensor, positive: Tensor, allowed: Tensor, options: TripletOptions) -> Tensor:
    """The loss of N anchors, given their distances [N,M] to candidates and [N] to their positives, and who is `allowed` [N,M]."""
    column = mine(table.detach(), positive.detach(), allowed, options.mining)
    negative = table.gather(1, column[:, None])[:, 0]
    return mean_of((options.margin + positive - negative).clamp(min=0.0), allowed.any(dim=1))
