"""Terms that go with a main loss: cells of the maps, pairs within one side, categories."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.losses.common import different, distances, full_precision
from training.losses.info_nce import cross_entropy
from training.losses.triplet import TripletOptions, hinge

EMPTY_CELL = 1e-3  # length below which a cell of a map counts as empty rather than as a direction


@full_precision
def patch_loss(sketch_map: Tensor, photo_map: Tensor, photo_index: Tensor, *, grid: int, temperature: float) -> Tensor:
    """InfoNCE cell by cell: a cell of a sketch is to be nearer to the same cell of its photo than to that of other photos.

    Maps are averaged over a grid, cells brought to unit length, and each cell is a batch of its own, both ways; rows of the same
    photo are left out. The term assumes that drawings and photos have the same parts in the same places: roughly so for the
    centred objects of QMUL, less so elsewhere, and less so the finer the grid. (Local matching as such: Lin et al., CVPR 2023.)

    Args:
        sketch_map: [B,c,h,h] of one stage.
        photo_map: [B,c,h,h] likewise.
        photo_index: int64 [B].
        grid: cells a side, at most h.
        temperature: divides cosines.

    Raises:
        ValueError: `grid` is finer than the maps.
    """
    if grid > min(sketch_map.shape[-2:]):
        raise ValueError(f"patch_grid is {grid}, expected at most the map's side, {min(sketch_map.shape[-2:])}")
    sketch_cells, photo_cells = _cells(sketch_map, grid), _cells(photo_map, grid)
    cosines = sketch_cells @ photo_cells.transpose(1, 2)
    positive = torch.eye(len(photo_index), dtype=torch.bool, device=photo_index.device)
    negative = different(photo_index)
    both = [cross_entropy(each, positive, negative, temperature) for each in (cosines, cosines.transpose(1, 2))]
    return 0.5 * (both[0] + both[1])


def _cells(maps: Tensor, grid: int) -> Tensor:
    """[B,c,h,h] -> [grid*grid,B,c], about unit length; an empty cell's gradient grows by 1/EMPTY_CELL, not without end."""
    cells = F.adaptive_avg_pool2d(maps, grid).flatten(2).permute(2, 0, 1)
    return cells * (cells.square().sum(dim=-1, keepdim=True) + EMPTY_CELL**2).rsqrt()


@full_precision
def intra_modal_loss(embeddings: Tensor, photo_index: Tensor, options: TripletOptions) -> Tensor:
    """Triplet loss within one side: rows of the same photo together, rows of others apart (Sain et al., CVPR 2023).

    For sketches: drawings of one photo by several hands. For photos: differently augmented copies of one photo. Every ordered
    pair of rows of one photo is an anchor and its positive, and gets one negative by `options.mining`. 0 with gradient 0 for a
    batch in which no photo occurs twice. (That paper takes a structurally altered photo as the positive; here it is whatever
    augmentation the batch comes with.)

    Args:
        embeddings: unit vectors [B,D] of one side.
        photo_index: int64 [B].
        options: margin and mining; the rest is not used.
    """
    apart = different(photo_index)
    twin = ~apart
    twin.fill_diagonal_(False)
    anchor, partner = twin.nonzero(as_tuple=True)
    table = distances(embeddings, embeddings)
    if len(anchor) == 0:
        return table.sum() * 0.0
    return hinge(table[anchor], table[anchor, partner], apart[anchor], options)


class CategoryLoss(nn.Module):
    """Cross entropy of one linear layer on pooled features, the same for both sides (the baseline of METHODS A.2).

    Args:
        width: R of the pooled features.
        categories: how many there are.
    """

    def __init__(self, width: int, categories: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, categories)

    @full_precision
    def forward(self, sketches: Tensor, photos: Tensor, category_index: Tensor) -> Tensor:
        """Pooled features [B,R], [B,R] and categories int64 [B] -> the mean over rows and sides.

        Rows whose category is negative (not known) are left out; with none left the loss is 0.

        Raises:
            ValueError: a category beyond the classifier's.
        """
        known = category_index >= 0
        if int(category_index.max()) >= self.classifier.out_features:
            raise ValueError(
                f"categories is {self.classifier.out_features}, expected more than the batch's largest category number, "
                f"{int(category_index.max())}"
            )
        target = torch.cat([category_index, category_index])
        logits = self.classifier(torch.cat([sketches, photos]))
        total = F.cross_entropy(logits, target.clamp(min=-1), ignore_index=-1, reduction="sum")
        return total / (2 * known.sum()).clamp(min=1)
