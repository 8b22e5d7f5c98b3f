"""Ranks of a model on a dataset folder, through the same preprocessing as on the device.

Images are read in batches and forgotten once they are encoded, so that memory holds rows, never a gallery of pixels. PyTorch is
loaded by `torch_encode` alone: a bundle is measured without it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from fgsbir_edge.encoder.shifts import encode_shifted
from fgsbir_edge.errors import FgsbirError, PairsFormatError, UnreadableImageError
from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import InputSpec, photo_batch, sketch_pixels
from training.data.folder import Pair, PairsFolder
from training.metrics import gallery_ranks

if TYPE_CHECKING:
    from training.models.encoder import EmbeddingHead, Encoder
    from training.models.light import LightEncoder

Encode = Callable[[np.ndarray], np.ndarray]  # pixels float32 [B,3,S,S] -> rows float32 [B,*]
BATCH = 32


@dataclass(frozen=True)
class Reading:
    """How images are read and encoded.

    Args:
        batch: images encoded at a time.
        threads: that read and decode.
        skip: leave out what cannot be read instead of raising.
        progress: what a progress bar on a terminal's stderr says; "" for none.
    """

    batch: int = BATCH
    threads: int = 1
    skip: bool = False
    progress: str = ""


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded images: `names` [n] with `rows` [n,*], and why each other name was skipped."""

    names: tuple[str, ...]
    rows: np.ndarray
    skipped: dict[str, str]


def torch_encode(encoder: Encoder | LightEncoder, head: EmbeddingHead | None = None, *, pooled: bool = False) -> Encode:
    """A function from pixels to embeddings (with `head`), features (without) or pooled maps (`pooled`)."""
    import torch

    @torch.no_grad()
    def encode(pixels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
        rows = encoder.pool(x) if pooled else encoder(x)
        result: np.ndarray = (rows if head is None else head(rows)).numpy()
        return result

    return encode


def sketch_input(folder: PairsFolder, key: str, spec: InputSpec) -> np.ndarray:
    """What the encoder sees of a sketch: float32 [1,3,S,S]. Errors of the readers and the rasteriser name the sketch."""
    places = [folder.root / "strokes.npz", *(folder.root / name / key for name in ("sketches", "sketches_extra"))]
    inside = str(places[1]).partition("#")[0]  # "birds.ndjson#3" is a drawing inside a file
    if not os.path.exists(inside) and not any(place.is_file() for place in places):
        raise UnreadableImageError(f"{places[1]}: no such sketch, nor a strokes.npz; check the sketch column of the pairs table")
    try:
        return sketch_pixels([folder.sketch(key)], spec)
    except FgsbirError as error:
        if key in str(error):
            raise
        raise type(error)(f"{folder.root}: sketch {key!r}: {error}") from error


def photo_input(folder: PairsFolder, name: str, spec: InputSpec) -> np.ndarray:
    """What the encoder sees of a photo: float32 [1,3,S,S]. Raises what `load_photo` raises, which names the file."""
    return photo_batch([load_photo(folder.photo_path(name), spec.size, spec.photo_fit)], spec)


def photo_encode(encode: Encode, spec: InputSpec) -> Encode:
    """`encode` as it is applied to photos: the mean over shifted copies where `spec` says so (fgsbir_edge.encoder.shifts)."""
    return partial(encode_shifted, encode, shift=spec.photo_shift)


def encode_rows(names: Sequence[str], load: Callable[[str], np.ndarray], encode: Encode, reading: Reading) -> Rows:
    """Read each of `names` by `load` (name -> pixels [1,3,S,S]) and encode them in batches.

    Raises what `load` raises unless `reading` says to skip.
    """

    def attempt(name: str) -> np.ndarray | str:
        try:
            return load(name)
        except FgsbirError as error:
            if not reading.skip:
                raise
            return str(error)

    kept: list[str] = []
    rows: list[np.ndarray] = []
    skipped: dict[str, str] = {}
    silent = None if reading.progress else True  # None: where there is no terminal
    with (
        ThreadPoolExecutor(reading.threads) as pool,
        tqdm(total=len(names), desc=reading.progress, unit=" images", disable=silent) as bar,
    ):
        for start in range(0, len(names), reading.batch):
            batch = names[start : start + reading.batch]
            pixels = []
            for name, result in zip(batch, pool.map(attempt, batch), strict=True):
                if isinstance(result, str):
                    skipped[name] = result
                else:
                    kept.append(name)
                    pixels.append(result)
            if pixels:
                rows.append(encode(np.concatenate(pixels)))
            bar.update(len(batch))
    return Rows(tuple(kept), np.concatenate(rows) if rows else np.empty((0, 0), np.float32), skipped)


def encode_sketches(folder: PairsFolder, keys: Sequence[str], encode: Encode, spec: InputSpec) -> np.ndarray:
    """Rows [len(keys), *] of the sketches with these keys."""
    return encode_rows(keys, partial(sketch_input, folder, spec=spec), encode, Reading()).rows


def encode_photos(folder: PairsFolder, names: Sequence[str], encode: Encode, spec: InputSpec) -> np.ndarray:
    """Rows [len(names), *] of the photos with these names, each encoded as a gallery does (`photo_encode`)."""
    return encode_rows(names, partial(photo_input, folder, spec=spec), photo_encode(encode, spec), Reading()).rows


@dataclass(frozen=True, eq=False)
class Group:
    """Queries that are searched in one gallery: `queries` [q] rows of the pairs, `photos` [N] rows of the names,
    `truth` [q] positions in `photos`."""

    queries: np.ndarray
    photos: np.ndarray
    truth: np.ndarray


def search_groups(folder: PairsFolder, pairs: Sequence[Pair], names: Sequence[str], *, per_category: bool) -> list[Group]:
    """Which of the photos `names` each pair is searched among: all, or those of its category (METHODS A.4).

    A photo that `pairs` lists under several categories is in the gallery of each. Raises PairsFormatError when a pair's photo
    is not among `names`.
    """
    row = {name: index for index, name in enumerate(names)}
    queries: dict[str, list[int]] = defaultdict(list)
    members: set[tuple[str, str]] = set()
    for index, pair in enumerate(pairs):
        if pair.photo not in row:
            raise PairsFormatError(f"{folder.root}: photo {pair.photo!r} of sketch {pair.sketch!r} is not in the gallery; add it")
        queries[pair.category if per_category else ""].append(index)
        members.add((pair.category if per_category else "", pair.photo))
    members |= {(folder.photo_category[name] if per_category else "", name) for name in names}
    photos: dict[str, list[str]] = defaultdict(list)
    for category, name in sorted(members):
        photos[category].append(name)
    groups = []
    for key, indices in queries.items():
        place = {name: position for position, name in enumerate(photos[key])}
        truth = np.array([place[pairs[index].photo] for index in indices])
        groups.append(Group(np.array(indices), np.array([row[name] for name in photos[key]]), truth))
    return groups


def pair_ranks(
    folder: PairsFolder,
    pairs: Sequence[Pair],
    sketches: np.ndarray,
    photos: dict[str, np.ndarray],
    *,
    per_category: bool,
) -> np.ndarray:
    """Rank [len(pairs)] of every pair's photo; `sketches` [len(pairs),D] in the order of `pairs`, `photos` name -> [D].

    The gallery of a query is all of `photos`, or those of its own category (METHODS A.4).
    """
    names = sorted(photos)
    rows = np.stack([photos[name] for name in names])
    ranks = np.zeros(len(pairs), dtype=np.int64)
    for group in search_groups(folder, pairs, names, per_category=per_category):
        ranks[group.queries] = gallery_ranks(sketches[group.queries], rows[group.photos], group.truth)
    return ranks
