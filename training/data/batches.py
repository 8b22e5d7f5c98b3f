"""Batches of a training run: each a pure function of the seed and the step, made here or by worker processes ahead of time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.preprocess import InputSpec
from training.data.augment import Augmentation
from training.data.composite import composed
from training.data.folder import Pair
from training.data.sources import Source

PREFETCH = 2  # batches that each worker keeps ready
_STREAM = 1  # keeps these draws apart from others of the same seed


@dataclass(frozen=True)
class PairBatch:
    """B pairs of one source.

    Args:
        sketches, photos: float32 [B,3,S,S], normalised, channels last; row i of `photos` is what sketch i means.
        photo_index: int64 [B]; equal numbers: the same photo. Numbers are those of the whole stream.
        category_index: int64 [B], positions in `BatchStream.categories`.
        pairs: what the rows are.
        source: name of the source.
    """

    sketches: Tensor
    photos: Tensor
    photo_index: Tensor
    category_index: Tensor
    pairs: tuple[Pair, ...]
    source: str


class BatchStream:
    """An endless sequence of augmented batches. Sources take turns at random, in proportion to their shares."""

    def __init__(
        self, sources: Sequence[Source], spec: InputSpec, augmentation: Augmentation, pairs_per_step: int, seed: int
    ) -> None:
        """Raises ValueError for no source, a source of another InputSpec, or fewer than two pairs a step."""
        if not sources:
            raise ValueError("no sources to draw batches from; name at least one")
        for source in sources:
            if source.store.spec != spec:
                raise ValueError(f"source {source.name} was opened for {source.store.spec}, expected {spec}; open it again")
        if pairs_per_step < 2 or seed < 0:
            raise ValueError(f"pairs_per_step is {pairs_per_step} and seed {seed}, expected at least 2 and 0")
        self.sources = tuple(sources)
        self.spec, self.augmentation, self.pairs_per_step, self.seed = spec, augmentation, pairs_per_step, seed
        shares = np.array([source.share for source in self.sources])
        self.shares = shares / shares.sum()
        photos: list[tuple[int, str]] = []
        categories: set[str] = set()
        for number, source in enumerate(self.sources):
            photos += [(number, photo) for photo in sorted({name for group in source.groups.values() for name in group})]
            categories |= {pair.category for group in source.groups.values() for some in group.values() for pair in some}
        self.photos = photos
        self.categories = sorted(categories)
        self._photo_number = {photo: number for number, photo in enumerate(photos)}
        self._category_number = {category: number for number, category in enumerate(self.categories)}

    def batch(self, step: int) -> PairBatch:
        """The batch of a step, 0 or more; fewer pairs than asked for only where the source has no more photos.

        Raises what reading a photo or a sketch raises (UnreadableImageError, TruncatedImageError and others).
        """
        rng = np.random.default_rng([self.seed, _STREAM, step])
        number = int(rng.choice(len(self.sources), p=self.shares))
        source = self.sources[number]
        pairs = source.sample(rng, self.pairs_per_step)
        sketches, photos = source.store.batch(pairs, rng, self.augmentation)
        if self.augmentation.composite and rng.random() < self.augmentation.composite:
            sketches, photos = composed(sketches, photos, rng)
        return PairBatch(
            sketches=sketches,
            photos=photos,
            photo_index=torch.tensor([self._photo_number[number, pair.photo] for pair in pairs]),
            category_index=torch.tensor([self._category_number[pair.category] for pair in pairs]),
            pairs=tuple(pairs),
            source=source.name,
        )

    def stream(self, first: int, last: int, workers: int = 0) -> Generator[PairBatch, None, None]:
        """The batches of steps `first` to `last` - 1 in order; equal for any number of workers.

        With `workers`, so many processes make batches ahead. They are started afresh rather than forked, which is safe beside
        threads and a GPU; a script that asks for workers needs the usual ``if __name__ == "__main__"``. An error in a worker is
        raised here, and leaving the loop in any way ends them.
        """
        if workers == 0:
            for step in range(first, last):
                yield self.batch(step)
            return
        loader = DataLoader(
            _Steps(self, first, last),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=PREFETCH,
            multiprocessing_context="spawn",
        )
        made = iter(loader)
        try:
            for item in made:
                if isinstance(item, FgsbirError):
                    raise item
                yield item
        finally:
            del made, loader  # ends the processes: nothing else refers to them


class _Steps(Dataset["PairBatch | FgsbirError"]):
    """Steps by number, as the workers see them."""

    def __init__(self, batches: BatchStream, first: int, last: int) -> None:
        self.batches, self.first, self.last = batches, first, last

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __getitem__(self, index: int) -> PairBatch | FgsbirError:
        try:
            return self.batches.batch(self.first + index)
        except FgsbirError as error:  # handed over as it is: DataLoader would wrap its line into a traceback
            return error
