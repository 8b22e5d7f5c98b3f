"""A drawing as it comes: one segment is added, the image is read, and so on to the end of the sketch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks import limits
from benchmarks.raster_field import BYTES, OURS, Style
from benchmarks.raster_gate import Gate
from benchmarks.raster_peers import LINE_WIDTH, SAME, installed
from benchmarks.rounds import Competitor, Report, Verdict, race
from benchmarks.sketches import SIDE, SketchSet
from fgsbir_edge.raster import Canvas, RasterSpec, rasterize
from fgsbir_edge.sketch import SketchBatch, pack

GROUP = "a growing drawing: add a segment, read the image"
SKETCHES = 16  # that are drawn segment by segment

Image = NDArray[np.uint8]
Points = NDArray[np.float64]


class Paper(Protocol):
    """What can be drawn on segment by segment."""

    def clear(self) -> None:
        """Begin anew."""

    def add(self, segment: Segment, image: Image) -> None:
        """Draw a segment, and leave the whole drawing in ``image`` [256, 256]."""


@dataclass(frozen=True)
class Segment:
    """One line of a sketch, with what each competitor would have at hand when it comes."""

    sketch: int
    points: Points  # [2, 2] whole pixels, or one row where a stroke is a dot
    begins_stroke: bool
    begins_sketch: bool
    last: bool
    so_far: SketchBatch  # everything up to and with this segment, packed: for drawing all of it again


def canvas(report: Report, sketches: SketchSet, gate: Gate, rounds: int) -> None:
    """Time one more segment and the image after it. Figures are per segment."""
    count = min(SKETCHES, len(sketches))
    chosen = [index * len(sketches) // count for index in range(count)]
    segments = [segment for index in chosen for segment in _segments(sketches, index)]
    out = limits.aligned((1, SIDE, SIDE), np.uint8)
    competitors = [
        Competitor(f"writing alone: {name}", way, 1, None, BYTES, 1, True) for name, way in limits.writers(out).items()
    ]
    for name, paper in _papers().items():
        competitors.append(_competitor(name, paper, segments, out[0], gate))
    race(report, GROUP, competitors, rounds=rounds, calls=len(segments))


def _papers() -> dict[str, Paper]:
    papers: dict[str, Paper] = {f"{OURS['bresenham']}, Canvas": _Ours("bresenham"), "ours, bresenham, all drawn again": _Again()}
    if installed("cv2"):
        papers[f"{SAME[0]} of all"] = _PillowOpenCV(near=False)
        papers[f"{SAME[0]} near the segment"] = _PillowOpenCV(near=True)
    return papers


def _competitor(name: str, paper: Paper, segments: list[Segment], image: Image, gate: Gate) -> Competitor:
    def run(call: int) -> None:
        segment = segments[call % len(segments)]
        if segment.begins_sketch:
            paper.clear()
        paper.add(segment, image)

    def answers() -> Iterator[tuple[int, Image]]:
        for call, segment in enumerate(segments):
            image.fill(7)
            run(call)
            if segment.last:
                yield segment.sketch, image

    def check() -> Verdict:
        return gate.verdict("dilated", same=True, answers=answers())

    return Competitor(name, run, 1, check, BYTES)


def _segments(sketches: SketchSet, index: int) -> Iterator[Segment]:
    sketch, strokes = sketches.sketches[index], [np.rint(stroke) for stroke in sketches.arrays[index]]
    drawn, total = 0, sketch.num_points
    for number, stroke in enumerate(strokes):
        pieces = [stroke[start : start + 2] for start in range(len(stroke) - 1)] or [stroke]
        for place, piece in enumerate(pieces):
            drawn += len(piece) if place == 0 else 1
            so_far = pack([sketch.prefix(drawn)], round_points=True) if drawn > 1 else pack([sketch.prefix(2)], round_points=True)
            yield Segment(index, piece, place == 0, place == 0 and number == 0, drawn == total, so_far)


class _Ours:
    """This project's Canvas."""

    def __init__(self, style: Style) -> None:
        self._canvas = Canvas(RasterSpec(SIDE, SIDE, style, LINE_WIDTH), scale=False)

    def clear(self) -> None:
        self._canvas.clear()

    def add(self, segment: Segment, image: Image) -> None:
        if segment.begins_stroke:
            self._canvas.add(segment.points)
        else:
            self._canvas.add(segment.points[1:], continues=True)
        self._canvas.image(image[None])


class _Again:
    """This project's rasteriser, the whole drawing every time."""

    def __init__(self) -> None:
        self._spec = RasterSpec(SIDE, SIDE)

    def clear(self) -> None:
        """Nothing is kept."""

    def add(self, segment: Segment, image: Image) -> None:
        rasterize(segment.so_far, self._spec, scale=False, out=image[None])


class _PillowOpenCV:
    """A line of one pixel that Pillow adds to, dilated by OpenCV: all of it, or what lies near the segment, then copied."""

    def __init__(self, near: bool) -> None:
        image_module, draw_module, cv2 = (import_module(name) for name in ("PIL.Image", "PIL.ImageDraw", "cv2"))
        cv2.setNumThreads(1)
        self._near, self._cross = near, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        self._dilate: Callable[..., Any] = cv2.dilate
        self._kept = np.zeros((SIDE, SIDE), np.uint8)
        self._canvas = image_module.new("L", (SIDE, SIDE))
        self._line = draw_module.Draw(self._canvas).line

    def clear(self) -> None:
        self._canvas.paste(0, (0, 0, SIDE, SIDE))
        self._kept.fill(0)

    def add(self, segment: Segment, image: Image) -> None:
        points = segment.points.astype(np.float32)
        self._line(points, fill=255)
        if not self._near:
            self._dilate(np.asarray(self._canvas), self._cross, dst=image)
            return
        (x0, y0), (x1, y1) = points.min(axis=0).astype(int), points.max(axis=0).astype(int)
        left, top, right, bottom = max(0, x0 - 2), max(0, y0 - 2), min(SIDE, x1 + 3), min(SIDE, y1 + 3)
        part = np.asarray(self._canvas.crop((left, top, right, bottom)))
        kept = self._kept[top:bottom, left:right]
        np.maximum(kept, self._dilate(part, self._cross), out=kept)
        np.copyto(image, self._kept)
