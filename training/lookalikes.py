"""Which photos look alike, for batches whose negatives are hard: by what the network sees in them before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from training.data.augment import Augmentation
from training.data.folder import Pair
from training.data.sources import Source
from training.models.encoder import Encoder

BATCH = 32


def with_looks(sources: Sequence[Source], encoder: Encoder) -> tuple[Source, ...]:
    """The sources, those that want local batches with a row for each photo: centred pooled maps of `encoder`, unit length.

    A function of the encoder's weights alone: for a run to go on as it began, these must be the ones that it starts from.
    """
    encoder = encoder.eval()
    return tuple(replace(source, looks=_looks(source, encoder)) if source.lookalikes > 0 else source for source in sources)


@torch.no_grad()
def _looks(source: Source, encoder: Encoder) -> np.ndarray:
    pairs = [Pair("", photo, "") for photo in source.photos]
    rng, plain = np.random.default_rng(0), Augmentation.none()
    rows = [
        encoder.pool(source.store.photo_batch(pairs[start : start + BATCH], rng, None, plain))
        for start in range(0, len(pairs), BATCH)
    ]
    pooled = torch.cat(rows)
    looks: np.ndarray = F.normalize(pooled - pooled.mean(0), dim=1).numpy()
    return looks
