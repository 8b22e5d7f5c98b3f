"""Drawings with the pictures they are of, and batches of them, each a pure function of the seed and the step (METHODS B.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgsbir_edge.arrays import Float32
from fgsbir_edge.preprocess import InputSpec, photo_batch
from training.data.pixels import PixelStore
from training.generation.dataset import pictures
from training.generation.network import real_rows
from training.generation.sequences import SequenceSet

_STREAM = 2  # keeps these draws apart from others of the same seed

Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]


class Pictures(Protocol):
    """What the drawings of a corpus are of."""

    def __len__(self) -> int: ...

    def pixels(self, numbers: Sequence[int]) -> Float32:
        """float32 [K,3,S,S], normalised as the backbone expects."""

    def digest(self) -> str:
        """A hash of all that the pixels depend on."""


@dataclass(frozen=True)
class Photos:
    """Photos of a dataset folder by name."""

    store: PixelStore
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, numbers: Sequence[int]) -> Float32:
        """Raises what reading a photo raises."""
        spec = self.store.spec
        return photo_batch([self.store.photo(self.names[number], spec.size) for number in numbers], spec)

    def digest(self) -> str:
        """Of the files' bytes: neither names nor places count."""
        state = hashlib.sha256(repr(self.store.spec).encode())
        for name in self.names:
            state.update(hashlib.sha256(self.store.folder.photo_path(name).read_bytes()).digest())
        return state.hexdigest()


@dataclass(frozen=True)
class OwnDrawings:
    """The drawings themselves, rasterised black on white: pre-training without photos (METHODS B.2)."""

    sequences: SequenceSet
    spec: InputSpec

    def __len__(self) -> int:
        return len(self.sequences)

    def pixels(self, numbers: Sequence[int]) -> Float32:
        return pictures(self.sequences, numbers, self.spec)

    def digest(self) -> str:
        return hashlib.sha256(repr(self.spec).encode() + self.sequences.rows.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Corpus:
    """Drawings and their pictures.

    Args:
        share: of the training steps, relative to the other corpora.
        sequences: N drawings.
        pictures: what they are of; `picture` int64 [N] says which of these each is of.
    """

    name: str
    share: float
    sequences: SequenceSet
    pictures: Pictures
    picture: Numbers


def of_photos(name: str, share: float, sequences: SequenceSet, store: PixelStore) -> Corpus:
    """A corpus of drawings of photos; several drawings of a photo are as many samples (METHODS B.1)."""
    names = tuple(sorted({pair.photo for pair in sequences.pairs}))
    number = {photo: index for index, photo in enumerate(names)}
    which = np.array([number[pair.photo] for pair in sequences.pairs], dtype=np.int64)
    return Corpus(name, share, sequences, Photos(store, names), which)


def of_themselves(name: str, share: float, sequences: SequenceSet, spec: InputSpec) -> Corpus:
    """A corpus whose pictures are the drawings themselves."""
    return Corpus(name, share, sequences, OwnDrawings(sequences, spec), np.arange(len(sequences)))


def common_scale(sets: Sequence[SequenceSet]) -> float:
    """Standard deviation of all offsets of several sets, pooled; canvas units."""
    offsets = []
    for item in sets:
        real = real_rows(torch.from_numpy(item.lengths), item.rows.shape[1]).numpy()
        offsets.append(item.rows[real][:, :2].astype(np.float64) * item.scale)
    return float(np.concatenate(offsets).std())


def rescaled(sequences: SequenceSet, scale: float) -> SequenceSet:
    """The same drawings in offsets of another scale."""
    rows = sequences.rows.copy()
    rows[..., :2] *= np.float32(sequences.scale / scale)
    return replace(sequences, rows=rows, scale=scale)


@dataclass(frozen=True)
class StreamOptions:
    """`batch` drawings a step. Both ways to vary them are deviations, for data sets of a thousand drawings: the papers have none.

    flip    mirror every second drawing with its picture; a mirrored map is computed and kept like any other
    stretch multiply x and y of a drawing by numbers from 1 - stretch to 1 + stretch, as Sketch-RNN does

    Raises:
        ValueError: a number out of range.
    """

    batch: int = 64
    flip: bool = False
    stretch: float = 0.0

    def __post_init__(self) -> None:
        if self.batch < 1 or not 0.0 <= self.stretch < 1.0:
            raise ValueError(f"batch is {self.batch} and stretch {self.stretch}, expected at least 1 and a number in [0,1)")


@dataclass(frozen=True)
class Draws:
    """Which drawings of which corpus a step takes: `numbers` [B] of them, `mirrored` [B], and their rows.

    Args:
        rows: float32 [B,T+1,5], varied; lengths: int64 [B].
    """

    corpus: int
    numbers: Numbers
    mirrored: Flags
    rows: Tensor
    lengths: Tensor


class DrawingStream:
    """An endless sequence of batches. Corpora take turns at random, in proportion to their shares."""

    def __init__(self, corpora: Sequence[Corpus], options: StreamOptions, seed: int) -> None:
        self.corpora, self.options, self.seed = tuple(corpora), options, seed
        shares = np.array([corpus.share for corpus in corpora])
        self.shares = shares / shares.sum()

    def batch(self, step: int) -> Draws:
        """The batch of a step, 0 or more: distinct drawings, fewer than asked for where the corpus has no more."""
        options, rng = self.options, np.random.default_rng([self.seed, _STREAM, step])
        which = int(rng.choice(len(self.corpora), p=self.shares))
        sequences = self.corpora[which].sequences
        count = min(options.batch, len(sequences))
        numbers = rng.choice(len(sequences), count, replace=False).astype(np.int64)
        mirrored = rng.random(count) < 0.5 * options.flip
        factors = 1.0 + options.stretch * rng.uniform(-1.0, 1.0, (count, 2))
        factors[mirrored, 0] *= -1.0
        rows = sequences.rows[numbers]
        rows[..., :2] *= factors[:, None].astype(np.float32)
        return Draws(which, numbers, mirrored, torch.from_numpy(rows), torch.from_numpy(sequences.lengths[numbers]))
