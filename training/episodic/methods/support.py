"""How the rows of a support set stand in the triplet loss of training.inner_loop."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.episodes import negative_mask


def layout(places: np.ndarray, photos: int) -> tuple[Tensor, Tensor]:
    """Order [m-k] of the photos' rows and mask [1,k,m-k] of negatives, for k pairs and `photos` different photos.

    `places` [k] say which photo each sketch means; photos beyond the largest of them are further negatives. The loss wants every
    pair's photo in a row of its own; one that several sketches mean has several rows and is a negative in the first of them
    alone, so that it counts once, as on a device.
    """
    order = np.concatenate([places, np.arange(int(places.max()) + 1, photos)])
    return torch.from_numpy(order), torch.from_numpy(negative_mask(places, order))[None]
