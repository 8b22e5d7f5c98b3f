"""Retrieval with the light encoder's sketches among the teacher's photos, beside the teacher's own sketches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.preprocess import InputSpec
from training.data.recipes import ValidationSet
from training.evaluation import BATCH, Encode, encode_photos, encode_sketches, pair_ranks, sketch_input
from training.metrics import accuracy

COSINE = "mean/cosine"


@dataclass(frozen=True, eq=False)
class _Kept:
    """A set with its photos' embeddings by name and its sketches' pixels [Q,3,S,S], half precision to save memory."""

    chosen: ValidationSet
    photos: dict[str, np.ndarray]
    sketches: np.ndarray
    teacher: np.ndarray  # the teacher's embeddings of the same sketches [Q,D]


class LightValidator:
    """Figures on several sets. Photos, and the teacher's sketches, are encoded once."""

    def __init__(self, sets: Sequence[ValidationSet], bundle: Bundle, encode: Encode, spec: InputSpec) -> None:
        self._head, self._kept = bundle.head, [_keep(item, bundle, encode, spec) for item in sets]
        self.teacher = self._figures([item.teacher for item in self._kept])
        self.names = [*self.teacher, COSINE]

    def __call__(self, encode: Encode) -> dict[str, float]:
        """Percentages by name: "SET/acc@1", "SET/acc@5", "SET/acc@10", "SET/mrr", and the means "mean/acc@1", "mean/mrr".

        "mean/cosine" is that of the embeddings to the teacher's.
        """
        found = [self._head.embed(_rows(encode, item.sketches)) for item in self._kept]
        apart = [np.mean(np.sum(rows * item.teacher, axis=1)) for rows, item in zip(found, self._kept, strict=True)]
        return {**self._figures(found), COSINE: 100.0 * float(np.mean(apart))}

    def _figures(self, embedded: Sequence[np.ndarray]) -> dict[str, float]:
        figures: dict[str, float] = {}
        names = [item.chosen.name for item in self._kept]
        for item, rows in zip(self._kept, embedded, strict=True):
            chosen = item.chosen
            ranks = pair_ranks(chosen.folder, chosen.pairs, rows, item.photos, per_category=chosen.per_category)
            figures |= {f"{chosen.name}/acc@{at}": accuracy(ranks, at) for at in (1, 5, 10)}
            figures[f"{chosen.name}/mrr"] = 100.0 * float(np.mean(1.0 / ranks))
        for what in ("acc@1", "mrr"):
            figures[f"mean/{what}"] = float(np.mean([figures[f"{name}/{what}"] for name in names]))
        return figures


def _keep(chosen: ValidationSet, bundle: Bundle, encode: Encode, spec: InputSpec) -> _Kept:
    folder, keys = chosen.folder, [pair.sketch for pair in chosen.pairs]
    touched = {pair.category for pair in chosen.pairs}
    every = [name for name, category in folder.photo_category.items() if category in touched]
    names = sorted(every if chosen.photos is None else chosen.photos)
    photos = bundle.head.embed(encode_photos(folder, names, encode, bundle.input))
    teacher = bundle.head.embed(encode_sketches(folder, keys, encode, bundle.input))
    pixels = np.concatenate([sketch_input(folder, key, spec).astype(np.float16) for key in keys])
    return _Kept(chosen, dict(zip(names, photos, strict=True)), pixels, teacher)


def _rows(encode: Encode, pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([encode(pixels[i : i + BATCH].astype(np.float32)) for i in range(0, len(pixels), BATCH)])
