"""Retrieval on the validation sets while a model trains: pixels are made once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import InputSpec, photo_batch, sketch_pixels
from training.data.recipes import ValidationSet
from training.evaluation import BATCH, Encode, pair_ranks, photo_encode, torch_encode
from training.metrics import accuracy
from training.models.encoder import EmbeddingHead, Encoder


@dataclass(frozen=True)
class _Kept:
    """A set and its normalised pixels, half precision to save memory: sketches [Q,3,S,S], photos [N,3,S,S] by `names`."""

    chosen: ValidationSet
    names: list[str]
    sketches: np.ndarray
    photos: np.ndarray


class Validator:
    """Figures of a model on several sets, through the same preprocessing as on the device."""

    def __init__(self, sets: Sequence[ValidationSet], spec: InputSpec) -> None:
        self.spec, self.kept = spec, [_keep(item, spec) for item in sets]

    @property
    def names(self) -> list[str]:
        """What the figures are called."""
        sets = [item.chosen.name for item in self.kept]
        return [f"{name}/{what}" for name in sets for what in ("acc@1", "acc@5", "acc@10", "mrr")] + ["mean/acc@1", "mean/mrr"]

    def __call__(self, encoder: Encoder, head: EmbeddingHead) -> dict[str, float]:
        """Percentages by name: "SET/acc@1", "SET/acc@5", "SET/acc@10", "SET/mrr", and "mean/acc@1", "mean/mrr" over the sets."""
        of_sketches = torch_encode(encoder.eval())
        of_photos = photo_encode(of_sketches, self.spec)
        figures: dict[str, float] = {}
        for item in self.kept:
            photos = dict(zip(item.names, _embedded(head, _rows(of_photos, item.photos)), strict=True))
            sketches, chosen = _embedded(head, _rows(of_sketches, item.sketches)), item.chosen
            ranks = pair_ranks(chosen.folder, chosen.pairs, sketches, photos, per_category=chosen.per_category)
            figures |= {f"{chosen.name}/acc@{at}": accuracy(ranks, at) for at in (1, 5, 10)}
            figures[f"{chosen.name}/mrr"] = 100.0 * float(np.mean(1.0 / ranks))
        for what in ("acc@1", "mrr"):
            figures[f"mean/{what}"] = float(np.mean([figures[f"{item.chosen.name}/{what}"] for item in self.kept]))
        return figures


def _keep(chosen: ValidationSet, spec: InputSpec) -> _Kept:
    folder = chosen.folder
    touched = {pair.category for pair in chosen.pairs}
    every = [name for name, category in folder.photo_category.items() if category in touched]
    names = sorted(every if chosen.photos is None else chosen.photos)
    keys = [pair.sketch for pair in chosen.pairs]
    sketches = [sketch_pixels([folder.sketch(key)], spec).astype(np.float16) for key in keys]
    loaded = (load_photo(folder.photo_path(name), spec.size, spec.photo_fit) for name in names)
    photos = [photo_batch([photo], spec).astype(np.float16) for photo in loaded]
    return _Kept(chosen, names, np.concatenate(sketches), np.concatenate(photos))


@torch.no_grad()
def _embedded(head: EmbeddingHead, features: np.ndarray) -> np.ndarray:
    embeddings: np.ndarray = head.eval()(torch.from_numpy(features)).numpy()
    return embeddings


def _rows(encode: Encode, pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([encode(pixels[i : i + BATCH].astype(np.float32)) for i in range(0, len(pixels), BATCH)])
