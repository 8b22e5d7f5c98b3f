"""The sketches that the rasterisers draw: all of ChairV2 where the data is at hand, else traces of the bundled drawings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.pairs import DEMO_FOLDER
from fgsbir_edge.sketch import Sketch, SketchBatch, pack

SIDE = 256  # pixels, of every image here
_REACH = 3  # pixels; ink this near continues a traced line
_EVERY = 5  # pixels between two points of a traced line

Strokes = list[NDArray[np.float64]]
Tuples = list[list[tuple[float, float]]]


@dataclass(frozen=True, eq=False)
class SketchSet:
    """Sketches in the forms that an application may hold them in; coordinates in pixels of a 256x256 image."""

    name: str
    note: str  # where they come from
    sketches: list[Sketch]

    def __len__(self) -> int:
        return len(self.sketches)

    @cached_property
    def arrays(self) -> list[Strokes]:
        """A list of float64 arrays [n, 2] for each sketch."""
        return [[np.array(stroke) for stroke in sketch.strokes] for sketch in self.sketches]

    @cached_property
    def tuples(self) -> list[Tuples]:
        """A list of lists of (x, y) for each sketch."""
        return [[[(x, y) for x, y in stroke.tolist()] for stroke in sketch.strokes] for sketch in self.sketches]

    @cached_property
    def packed(self) -> SketchBatch:
        """All of them packed, float32."""
        return pack(self.sketches)

    @cached_property
    def rounded(self) -> SketchBatch:
        """All of them packed, rounded to whole pixels before the cast to float32."""
        return pack(self.sketches, round_points=True)

    @property
    def segments(self) -> float:
        """Segments of a sketch, on average."""
        return float(np.mean([sketch.num_points - sketch.num_strokes for sketch in self.sketches]))


def load(data: str | None, limit: int | None = None) -> SketchSet:
    """All ChairV2 sketches under the folder ``data`` (or FGSBIR_DATA), or traces of the bundled drawings; at most ``limit``."""
    folder = data or os.environ.get("FGSBIR_DATA")
    file = Path(folder) / "chairv2" / "strokes.npz" if folder else None
    if file and file.is_file():
        return SketchSet("ChairV2", "all vector sketches of the folder given", _chairs(file)[:limit])
    why = "no data folder given" if not folder else "no chairv2/strokes.npz in the data folder"
    return SketchSet("bundled drawings", f"traced lines of the bundled drawings, {why}", traces(limit))


def _chairs(file: Path) -> list[Sketch]:
    with np.load(file, allow_pickle=False) as stored:
        offsets, points = stored["offsets"], stored["points"].astype(np.float64)
    sketches = []
    for start, stop in pairwise(offsets):
        own = points[start:stop]
        sketches.append(Sketch.from_strokes(np.split(own, np.flatnonzero(own[:, 2]) + 1)))
    return sketches


def drawing_files() -> list[Path]:
    """The bundled drawings; each is named as the photo that it means."""
    return sorted((DEMO_FOLDER / "sketches").glob("*/*.png"))


def traces(limit: int | None) -> list[Sketch]:
    """The first of them as strokes."""
    opened = (Image.open(file).convert("RGB").resize((SIDE, SIDE)) for file in drawing_files()[:limit])
    return [_traced(Drawing.from_image(image).ink) for image in opened]


def _traced(ink: NDArray[np.float32]) -> Sketch:
    """Lines that cover the ink: from any pixel on to the nearest one not covered yet, as long as there is one within reach."""
    left = {(int(x), int(y)) for y, x in np.argwhere(ink > 0.5)}
    near = sorted(
        ((x, y) for x in range(-_REACH, _REACH + 1) for y in range(-_REACH, _REACH + 1)),
        key=lambda step: abs(step[0]) + abs(step[1]),
    )
    strokes = []
    while left:
        x, y = min(left)
        line = [(x, y)]
        while True:
            left -= {(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
            ahead = next(((x + dx, y + dy) for dx, dy in near if (x + dx, y + dy) in left), None)
            if ahead is None:
                break
            x, y = ahead
            line.append(ahead)
        if len(line) > _EVERY:
            strokes.append([*line[:-1:_EVERY], line[-1]])
    return Sketch.from_strokes(strokes).centred()
