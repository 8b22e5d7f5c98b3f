"""The edges of a photo as strokes, so that a generator can learn to draw what it sees from photos that nobody drew.

An edge drawing (training/data/edges.py) is traced as a raster sketch is. It lies where the photo's lines are, which people's
drawings do only roughly, and costs nobody's time; what to leave out, and in what order to draw, is learned from people later.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from fgsbir_edge.errors import EmptySketchError
from fgsbir_edge.photo import Fit, load_photo
from fgsbir_edge.sketch import Sketch
from training.data.edges import SCALES, SIDE, edges
from training.data.trace import TraceOptions, trace

BLUR = 0.8  # pixels: thin lines have no slope to trace along without it


def edge_strokes(path: Path, fit: Fit, scale: int, options: TraceOptions | None = None) -> Sketch:
    """The edges of a photo at a scale of training.data.edges.SCALES, traced; coordinates are pixels of the photo at 256 a side.

    Raises EmptySketchError for a photo without edges, and what load_photo raises.
    """
    lines = edges(load_photo(path, SIDE, fit), SCALES[scale])
    if not lines.any():
        raise EmptySketchError(f"{path}: the photo has no edges")
    smooth = ndimage.gaussian_filter(lines.astype(np.float32), BLUR)
    return trace((255.0 * np.minimum(2.5 * smooth, 1.0)).astype(np.uint8), options)


def longest_strokes(sketch: Sketch, points: int) -> Sketch:
    """The longest strokes, in their order, that have together at most `points` points; the longest one in any case."""
    lengths = [float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in sketch.strokes]
    kept: list[int] = []
    room = points
    for number in np.argsort([-length for length in lengths], kind="stable").tolist():
        if not kept or len(sketch.strokes[number]) <= room:
            kept.append(number)
            room -= len(sketch.strokes[number])
    return Sketch.from_strokes([sketch.strokes[number] for number in sorted(kept)])
