"""Relative triplet loss: what a negative photo counts for depends on how unlike the right photo it is.

Seddati et al. 2023 (arXiv 2305.18988) weigh the triplet loss by how alike the anchors are, because in sketch data some negatives
are as good an answer to the drawing as the positive. Of that paper only the abstract was at hand, so the weight below is our
reading of it and not its equation. The form with a margin follows the idea of the ladder loss (Zhou et al. 2020): how far a
negative is pushed away depends on how relevant it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from training.losses.common import different, distances, full_precision, mean_of, prefer_category

RELATIVES = ("weight", "margin")
FLOOR = 1e-3  # added to photo distances: negatives that have all collapsed into one point weigh 1 each, not 0/0


@dataclass(frozen=True)
class RelativeOptions:
    """margin: mu; relative: what is relative, the "weight" of a triplet or its "margin"; within_category: as for triplets."""

    margin: float = 0.3
    relative: str = "weight"
    within_category: bool = False


@full_precision
def relative_triplet_loss(
    sketches: Tensor, photos: Tensor, photo_index: Tensor, category_index: Tensor, options: RelativeOptions
) -> Tensor:
    """All triplets of the batch, relative to the distance of their two photos.

    ``r_ij = d(p_i, p_j) / mean_k d(p_i, p_k)`` over the negatives of row i, without gradient, so that a photo's negatives weigh 1
    on average. Then, averaged over the triplets that violate their margin (Hermans et al. 2017 average over those only, because
    most triplets of a trained network do not),

    - weight: ``r_ij * max(0, mu + d(s_i, p_i) - d(s_i, p_j))``
    - margin: ``max(0, mu * r_ij + d(s_i, p_i) - d(s_i, p_j))``

    Args as for triplet.triplet_loss. A batch of one photo gives 0 with gradient 0. Raises ValueError for an unknown `relative`.
    """
    if options.relative not in RELATIVES:
        raise ValueError(f"relative is {options.relative!r}, expected one of {', '.join(RELATIVES)}")
    allowed = different(photo_index)
    if options.within_category:
        allowed = prefer_category(allowed, category_index)
    table = distances(sketches, photos)
    ratio = relative_distances(photos.detach(), allowed)
    gap = table.diagonal()[:, None] - table
    if options.relative == "weight":
        values = ratio * (options.margin + gap).clamp(min=0.0)
    else:
        values = (options.margin * ratio + gap).clamp(min=0.0)
    return mean_of(values, allowed & (values > 0.0))


def relative_distances(photos: Tensor, allowed: Tensor) -> Tensor:
    """r [B,B]: distances between photos [B,D], divided by each row's mean over `allowed` [B,B]; 0 where not allowed."""
    table = (distances(photos, photos) + FLOOR) * allowed
    return table / (table.sum(dim=1, keepdim=True) / allowed.sum(dim=1, keepdim=True).clamp(min=1)).clamp(min=FLOOR)
