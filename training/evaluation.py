"""Ranks of a model on a dataset folder, through the same preprocessing as on the device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import InputSpec, photo_batch, sketch_pixels
from training.data.folder import Pair, PairsFolder
from training.metrics import accuracy, gallery_ranks
from training.models.encoder import EmbeddingHead, Encoder

Encode = Callable[[np.ndarray], np.ndarray]  # pixels float32 [B,3,S,S] -> rows float32 [B,*]
BATCH = 32


def torch_encode(encoder: Encoder, head: EmbeddingHead | None = None, *, pooled: bool = False) -> Encode:
    """A function from pixels to embeddings (with `head`), features (without) or pooled maps (`pooled`)."""

    @torch.no_grad()
    def encode(pixels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
        rows = encoder.pool(x) if pooled else encoder(x)
        result: np.ndarray = (rows if head is None else head(rows)).numpy()
        return result

    return encode


def encode_sketches(folder: PairsFolder, keys: Sequence[str], encode: Encode, spec: InputSpec) -> np.ndarray:
    """Rows [len(keys), *] of the sketches with these keys."""
    return np.concatenate(
        [encode(sketch_pixels([folder.sketch(key) for key in keys[i : i + BATCH]], spec)) for i in range(0, len(keys), BATCH)]
    )


def encode_photos(folder: PairsFolder, names: Sequence[str], encode: Encode, spec: InputSpec) -> np.ndarray:
    """Rows [len(names), *] of the photos with these names."""
    batches = (names[i : i + BATCH] for i in range(0, len(names), BATCH))
    return np.concatenate(
        [
            encode(photo_batch([load_photo(folder.photo_path(name), spec.size, spec.photo_fit) for name in batch], spec))
            for batch in batches
        ]
    )


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
    galleries: dict[str, list[str]] = defaultdict(list)
    for name in sorted(photos):
        galleries[folder.photo_category[name] if per_category else ""].append(name)
    rows: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        rows[pair.category if per_category else ""].append(index)
    ranks = np.zeros(len(pairs), dtype=np.int64)
    for group, indices in rows.items():
        names = galleries[group]
        place = {name: position for position, name in enumerate(names)}
        truth = np.array([place[pairs[index].photo] for index in indices])
        ranks[indices] = gallery_ranks(sketches[indices], np.stack([photos[name] for name in names]), truth)
    return ranks


def folder_ranks(
    folder: PairsFolder,
    pairs: Sequence[Pair],
    encode: Encode,
    spec: InputSpec,
    *,
    photos: Iterable[str] | None = None,
    per_category: bool = False,
) -> np.ndarray:
    """Encode and rank: the gallery is `photos` (None: every photo of the categories that `pairs` touch)."""
    touched = {pair.category for pair in pairs}
    names = (
        sorted(photos) if photos is not None else sorted(n for n, c in folder.photo_category.items() if c in touched or c == "")
    )
    rows = encode_photos(folder, names, encode, spec)
    sketches = encode_sketches(folder, [pair.sketch for pair in pairs], encode, spec)
    return pair_ranks(folder, pairs, sketches, dict(zip(names, rows, strict=True)), per_category=per_category)


def folder_accuracy(
    folder: PairsFolder,
    pairs: Sequence[Pair],
    encoder: Encoder,
    head: EmbeddingHead,
    spec: InputSpec,
    *,
    photos: Iterable[str] | None = None,
    per_category: bool = False,
) -> tuple[float, float, float]:
    """Acc@1, Acc@5 and Acc@10 in percent."""
    ranks = folder_ranks(folder, pairs, torch_encode(encoder, head), spec, photos=photos, per_category=per_category)
    return accuracy(ranks, 1), accuracy(ranks, 5), accuracy(ranks, 10)
