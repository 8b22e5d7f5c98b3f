"""Pooled features of a dataset, computed once by a trained backbone and kept in one npz: what the outer loop trains on.

Row 0 of an item is the clean image as a device sees it; further rows are augmented versions.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from training.data.folder import Pair
from training.data.pixels import PixelStore
from training.evaluation import encode_photos, encode_sketches, torch_encode
from training.models.encoder import Encoder

VERSIONS = 2  # of every image: clean, and one augmented


@dataclass(frozen=True)
class FeatureTable:
    """float16 pooled features: sketches [S,V,R] by key, photos [N,V,R] by name."""

    sketch_keys: list[str]
    sketches: np.ndarray
    photo_names: list[str]
    photos: np.ndarray

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial.npz")
        np.savez(
            temporary,
            sketch_keys=np.array(self.sketch_keys),
            sketches=self.sketches,
            photo_names=np.array(self.photo_names),
            photos=self.photos,
        )
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> FeatureTable:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["sketch_keys"].tolist(), arrays["sketches"], arrays["photo_names"].tolist(), arrays["photos"])


def compute(
    store: PixelStore, encoder: Encoder, pairs: tuple[Pair, ...], photos: list[str], *, versions: int, seed: int
) -> FeatureTable:
    """Features of the sketches of `pairs` and of `photos`, `versions` - 1 augmented ones beside the clean one."""
    encode = torch_encode(encoder, pooled=True)
    keys = [pair.sketch for pair in pairs]
    sketch_rows = [encode_sketches(store.folder, keys, encode, store.spec)]
    photo_rows = [encode_photos(store.folder, photos, encode, store.spec)]
    for version in range(1, versions):
        rng = np.random.default_rng([seed, version])
        sketch_rows.append(_augmented(store, encoder, list(pairs), rng, sketch=True))
        photo_rows.append(_augmented(store, encoder, [Pair("", name, "") for name in photos], rng, sketch=False))
    return FeatureTable(keys, np.stack(sketch_rows, 1).astype(np.float16), photos, np.stack(photo_rows, 1).astype(np.float16))


@torch.no_grad()
def _augmented(store: PixelStore, encoder: Encoder, pairs: list[Pair], rng: np.random.Generator, *, sketch: bool) -> np.ndarray:
    rows = []
    for start in range(0, len(pairs), 32):
        batch = pairs[start : start + 32]
        pixels = store.sketch_batch(batch, rng) if sketch else store.photo_batch(batch, rng)
        rows.append(encoder.pool(pixels).numpy())
    return np.concatenate(rows)


def pool_digest(encoder: Encoder) -> str:
    """Hash of all that pooled features depend on in the network: everything below the projection."""
    state = hashlib.sha256(repr(encoder.config).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        if not name.startswith("projection."):
            state.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return state.hexdigest()[:16]


def cached(store: PixelStore, encoder: Encoder, folder: Path) -> FeatureTable:
    """Features of a whole dataset from `folder`, computed there first where this network's are missing."""
    data = store.folder
    path = folder / f"{data.root.name}-{store.spec.size}-{pool_digest(encoder)}.npz"
    if not path.is_file():
        compute(store, encoder, data.pairs, sorted(data.photo_category), versions=VERSIONS, seed=0).save(path)
    return FeatureTable.load(path)
