"""Cross-batch memory: embeddings of past batches as further negatives (Wang et al., CVPR 2020, "XBM")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMPTY = -1  # photo number of a row that nothing has been written to


class Memory(nn.Module):
    """A ring of the last `rows` pairs of embeddings, without gradients; all of it is in the state dict, so resuming is exact.

    Photos are told apart by their numbers over all of training, so these have to stay the same from batch to batch, and must not
    be negative. `warmup` counts batches that are only stored: at the start embeddings move too fast for old ones to be of use.
    With several processes DistributedDataParallel gives every process the first one's memory.
    """

    def __init__(self, rows: int, width: int, warmup: int = 0) -> None:
        super().__init__()
        self.rows, self.warmup = rows, warmup
        self.sketches: Tensor
        self.photos: Tensor
        self.photo_index: Tensor
        self.pushes: Tensor
        self.cursor: Tensor
        self.register_buffer("sketches", torch.zeros(rows, width))
        self.register_buffer("photos", torch.zeros(rows, width))
        self.register_buffer("photo_index", torch.full((rows,), EMPTY))
        self.register_buffer("pushes", torch.zeros((), dtype=torch.int64))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))

    def usable(self, photo_index: Tensor) -> Tensor:
        """Which stored rows are negatives of which of the batch's: photo numbers [B] -> bool [B,rows]."""
        stored = (self.photo_index != EMPTY) & (self.pushes >= self.warmup)
        return stored[None, :] & (photo_index[:, None] != self.photo_index[None, :])

    @torch.no_grad()
    def push(self, sketches: Tensor, photos: Tensor, photo_index: Tensor) -> None:
        """Writes a batch ([B,D], [B,D], [B]) over the oldest rows; of a batch larger than the memory only the last rows."""
        kept = min(len(photo_index), self.rows)
        where = (self.cursor + torch.arange(kept, device=photo_index.device)) % self.rows
        self.sketches[where] = sketches[-kept:].to(self.sketches.dtype)
        self.photos[where] = photos[-kept:].to(self.photos.dtype)
        self.photo_index[where] = photo_index[-kept:]
        self.cursor.add_(kept).remainder_(self.rows)
        self.pushes.add_(1)
