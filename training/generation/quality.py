"""The figures of METHODS B.10 for drawings of a dataset's photos: recognition, retrieval by the drawing, FID.

People's sketches of the same photos are measured beside them, through the same classifier and the same search: what a drawing
could reach at most, and what the classifier and the model are worth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgsbir_edge.head import Head
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.sketch import Sketch
from training.data.folder import Pair
from training.data.recipes import ValidationSet
from training.evaluate_retrieval import Bootstrap, figures_of
from training.evaluation import Encode, encode_photos, encode_sketches, pair_ranks
from training.generation.classifier import TrainedClassifier
from training.generation.dataset import vector_sketch
from training.generation.metrics import distance_figures, recognition_figures
from training.generation.pictures import is_dot, sketch_input

BATCH = 32


@dataclass(frozen=True, eq=False)
class DrawnSet:
    """Drawings of a set's photos: `pairs` [n] with names of their own, `sketches` [n] beside them."""

    pairs: tuple[Pair, ...]
    sketches: tuple[Sketch, ...]

    @classmethod
    def of(cls, chosen: ValidationSet, drawings: Mapping[str, Sequence[Sketch]]) -> DrawnSet:
        """The drawings (photo -> sketches) of those photos that a person drew in `chosen`."""
        category = {pair.photo: pair.category for pair in chosen.pairs}
        pairs, sketches = [], []
        for photo in sorted(set(category) & set(drawings)):
            for number, sketch in enumerate(drawings[photo]):
                pairs.append(Pair(f"{photo}#{number}", photo, category[photo]))
                sketches.append(sketch)
        return cls(tuple(pairs), tuple(sketches))

    @property
    def photos(self) -> list[str]:
        """[n] what each drawing shows."""
        return [pair.photo for pair in self.pairs]


@dataclass(frozen=True, eq=False)
class Finder:
    """A retrieval model, as evaluate_model.open_model gives it."""

    encode: Encode
    head: Head
    input: InputSpec


def real_pairs(chosen: ValidationSet, drawn: DrawnSet) -> tuple[Pair, ...]:
    """People's sketches of the photos that were drawn."""
    photos = set(drawn.photos)
    return tuple(pair for pair in chosen.pairs if pair.photo in photos)


def class_quality(classifier: TrainedClassifier, chosen: ValidationSet, drawn: DrawnSet, bootstrap: Bootstrap) -> dict[str, Any]:
    """Recognition of drawings and of people's sketches, and FID between them.

    Raises BundleFormatError for a category that the classifier does not know, and what reading sketches raises.
    """
    real = real_pairs(chosen, drawn)
    theirs = classifier.classify([vector_sketch(chosen.folder, pair.sketch)[0] for pair in real])
    ours = classifier.classify(drawn.sketches)
    result: dict[str, Any] = {"classifier": classifier.validation}
    for name, pairs, found in (("drawn", drawn.pairs, ours), ("real", real, theirs)):
        truth = [classifier.category(pair.category) for pair in pairs]
        photos = [pair.photo for pair in pairs]
        result[name] = recognition_figures(found.logits, truth, classifier.categories, photos, bootstrap)
    return {"recognition": result, "fid": distance_figures(theirs.features, ours.features, bootstrap.seed)}


def search_quality(finder: Finder, chosen: ValidationSet, drawn: DrawnSet, bootstrap: Bootstrap) -> dict[str, Any]:
    """How well drawings, and people's sketches, find the photo they were made from among the set's photos.

    The gallery is `chosen.photos`, or all photos of the folder; of these the query's own category where the set says so.
    """
    folder = chosen.folder
    touched = {pair.category for pair in chosen.pairs}
    every = [name for name, category in folder.photo_category.items() if category in touched]
    names = sorted(every if chosen.photos is None else chosen.photos)
    rows = finder.head.embed(encode_photos(folder, names, finder.encode, finder.input))
    photos = dict(zip(names, rows, strict=True))
    real = real_pairs(chosen, drawn)
    theirs = finder.head.embed(encode_sketches(folder, [pair.sketch for pair in real], finder.encode, finder.input))
    parts = [drawn.sketches[start : start + BATCH] for start in range(0, len(drawn.sketches), BATCH)]
    ours = finder.head.embed(np.concatenate([finder.encode(sketch_input(part, finder.input)) for part in parts]))
    sizes = Counter(folder.photo_category[name] if chosen.per_category else "" for name in names)
    result: dict[str, Any] = {"gallery": len(names), "per_category": chosen.per_category}
    for name, pairs, queries in (("drawn", drawn.pairs, ours), ("real", real, theirs)):
        ranks = pair_ranks(folder, pairs, queries, photos, per_category=chosen.per_category)
        galleries = np.array([sizes[pair.category if chosen.per_category else ""] for pair in pairs])
        result[name] = figures_of(ranks, galleries, [pair.photo for pair in pairs], bootstrap)
    return result


def drawing_figures(sketches: Sequence[Sketch], ended: Sequence[bool]) -> dict[str, Any]:
    """What the drawings are like: points, strokes, how many are empty, and how many stopped by themselves (percent)."""
    return {
        "sketches": len(sketches),
        "points": round(float(np.mean([sketch.num_points for sketch in sketches])), 2),
        "strokes": round(float(np.mean([sketch.num_strokes for sketch in sketches])), 2),
        "empty": sum(map(is_dot, sketches)),
        "ended": round(100.0 * float(np.mean(ended)), 2) if ended else None,
    }
