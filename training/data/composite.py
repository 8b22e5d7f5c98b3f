"""Composites: new pairs made of parts of two, where sketch and photo are framed alike.

Both sides of a pair show the object in the same frame, so the same region of both can be exchanged for another pair's: the left
of one chair and the right of another, drawn and photographed. With a few hundred photos to learn from, composites are instances
that no one can learn by heart, and two that share a part are hard negatives of each other. After CutMix (Yun et al., ICCV 2019),
which mixes images and labels; here the pairing is the label and is kept whole.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_CUT = (0.3, 0.7)  # where a frame is cut in two, as a share of its side
_BOX = (0.4, 0.7)  # sides of a rectangle that is exchanged


def composed(sketches: Tensor, photos: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Every pair takes a region from another pair, each pair giving to one: [B,3,S,S] twice -> the same shapes.

    The region of a row is a part to one side of a straight cut, or a rectangle, and the same in sketch and photo. One pair alone
    is returned as it is.
    """
    count, side = len(sketches), sketches.shape[-1]
    if count < 2:
        return sketches, photos
    order = rng.permutation(count)
    partner = np.empty(count, dtype=np.int64)
    partner[order] = np.roll(order, 1)  # one cycle: nobody is their own partner
    mixed = sketches.clone(), photos.clone()
    for row in range(count):
        top, bottom, left, right = region(side, rng)
        for target, source in zip(mixed, (sketches, photos), strict=True):
            target[row, :, top:bottom, left:right] = source[int(partner[row]), :, top:bottom, left:right]
    return mixed[0].contiguous(memory_format=torch.channels_last), mixed[1].contiguous(memory_format=torch.channels_last)


def region(side: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) pixels: above, below, left or right of a cut, or a rectangle, a third each way of cutting."""
    kind = int(rng.integers(3))
    if kind == 2:
        height, width = (round(side * rng.uniform(*_BOX)) for _ in range(2))
        top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
        return top, top + height, left, left + width
    cut = round(side * rng.uniform(*_CUT))
    first, last = (0, cut) if rng.random() < 0.5 else (cut, side)
    return (first, last, 0, side) if kind == 0 else (0, side, first, last)
