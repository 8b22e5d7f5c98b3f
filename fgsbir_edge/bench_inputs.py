"""What ``fgsbir-edge bench`` and ``doctor --selftest`` run on: made-up strokes, the shipped drawings, and a person's pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fgsbir_edge.sketch import Sketch

if TYPE_CHECKING:
    from fgsbir_edge.arrays import Float32
    from fgsbir_edge.bundle import Bundle

STROKES, POINTS = 14, 19  # of a made-up sketch; drawings of people in QMUL-ChairV2 have about as many
PAIRS = 5  # that adaptation is timed with
_CANVAS = 256.0


def scribbles(count: int, seed: int = 0) -> list[Sketch]:
    """Sketches of random smooth strokes; the same on every machine."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        starts = random.uniform(0.2 * _CANVAS, 0.8 * _CANVAS, (STROKES, 1, 2))
        turns = np.cumsum(random.normal(0, 0.35, (STROKES, POINTS, 1)), axis=1) + random.uniform(0, 6.28, (STROKES, 1, 1))
        steps = 4.0 * np.concatenate([np.cos(turns), np.sin(turns)], axis=2)
        found.append(Sketch.from_strokes(list(starts + np.cumsum(steps, axis=1))))
    return found


@dataclass(frozen=True, eq=False)
class Demo:
    """Encoder input of the drawings and photos that are shipped: float32 [n, 3, S, S] each, row i of both being pair i."""

    sketches: Float32
    photos: Float32

    @classmethod
    def load(cls, bundle: Bundle, count: int = 32) -> Demo:
        """The first person's first ``count`` pairs. Raises what reading them raises."""
        from fgsbir_edge.pairs import DEMO_FOLDER, DataFolder
        from fgsbir_edge.photo import photo_pixels
        from fgsbir_edge.preprocess import open_photo, photo_batch, sketch_pixels

        folder = DataFolder.open(DEMO_FOLDER)
        pairs = folder.select(folder.users[0])[:count]
        spec = bundle.input
        sketches = sketch_pixels([folder.sketch(pair.sketch) for pair in pairs], spec)
        photos = [open_photo(folder.photos / pair.photo, spec) for pair in pairs]
        return cls(sketches, photo_batch([photo_pixels(photo, spec.size, spec.photo_fit) for photo in photos], spec))


def cosine(rows: Float32, others: Float32) -> float:
    """The smallest cosine between rows [n, C] and those of the same number."""
    products = (rows * others).sum(axis=1, dtype=np.float64)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1) * np.linalg.norm(others.astype(np.float64), axis=1)
    return float((products / np.maximum(lengths, np.finfo(np.float64).tiny)).min(initial=1.0))
