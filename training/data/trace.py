"""Raster drawings to strokes: thin lines, their way from junction to junction, and strokes along it in a plausible order.

A generator learns from sequences (METHODS B.1), and some datasets have only pictures of sketches. What a picture does not say,
who drew which line first and in which direction, is chosen by rules that a hand would follow, the same for every drawing:

1. Ink is thinned to lines of one pixel (thinning.py), each pixel moved to the middle of the ink around it.
2. Pixels of three or more neighbours are junctions, with lines between them. Stubs that thinning leaves at the sides and ends of
   thick lines go, and the two forks into which it splits a crossing at a small angle become one junction (joining.py).
3. At a junction the two lines that turn least become one, then the next two, as long as they turn less than `turn`; so do ends
   that face each other over a small gap.
4. The longest stroke comes first; then always the one for which the way of the lifted pen, less a share of the stroke's own
   length, is shortest. Each begins at the end that is nearer to the pen, a closed one at its nearest point. So outlines come
   before details, and details are drawn where the pen is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import EmptySketchError, ShapeError
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.sketch import LONG_SIDE, Sketch
from training.data.joining import Limits, length, strokes_of
from training.data.thinning import pixel_graph, thinned

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class TraceOptions:
    """How ink becomes strokes. Lengths are in widths of the drawing's lines, as thinning's traces are, or shares of its size.

    Args:
        ink: of 255; fainter pixels are paper.
        speck: connected ink of fewer pixels than this times the line width squared is dirt.
        bridge: widths; forks joined by a shorter line may be a crossing at a right angle, by up to four times that at smaller
            ones. Of two lines around a hole, shorter than twice that, one is kept.
        spur: share of the drawing's longer side, and the width besides; shorter dead ends at a junction are dropped.
        gap: the same; nearer ends that go on in one direction are one line, as where a pen skipped.
        reach: the same; how far along a line its direction is taken.
        turn: degrees; lines that turn more than this where they meet are two.
        smooth: passes of a 1-2-1 filter along a stroke, against the stairs of the pixels.
        order: share of a stroke's length that is taken off its distance from the pen when the next stroke is chosen.

    Raises:
        ValueError: a field out of range.
    """

    ink: int = 96
    speck: float = 0.75
    bridge: float = 1.5
    spur: float = 0.01
    gap: float = 0.035
    reach: float = 0.05
    turn: float = 75.0
    smooth: int = 3
    order: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.ink <= 255 or not 0 <= self.turn <= 180:
            raise ValueError(f"trace: ink is {self.ink} and turn {self.turn}, expected 1 to 255 and 0 to 180 degrees")
        for name in ("speck", "bridge", "spur", "gap", "reach", "smooth", "order"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"trace: {name} is {getattr(self, name)}, expected a finite number of at least 0")


def trace_drawing(drawing: Drawing, options: TraceOptions | None = None, long_side: int = int(2 * LONG_SIDE)) -> Sketch:
    """Strokes of a drawing, its longer side brought to `long_side` pixels first, in the frame of ``Sketch.centred``.

    Raises EmptySketchError where no line is left.
    """
    from PIL import Image

    rows, columns = (np.flatnonzero((drawing.ink > 0.2).any(axis=axis)) for axis in (1, 0))
    crop = drawing.ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = long_side / max(crop.shape)
    height, width = (max(1, round(side * scale)) for side in crop.shape)
    resized = np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BICUBIC))
    return trace((np.clip(resized, 0, 1) * 255 + 0.5).astype(np.uint8), options).centred()


def trace(image: Pixels, options: TraceOptions | None = None) -> Sketch:
    """Strokes of a picture uint8 [H, W], 255 = ink; points lie at pixel centres, x = column and y = row.

    Raises:
        ShapeError: another shape or dtype.
        EmptySketchError: no line.
    """
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ShapeError(f"picture is {image.dtype} {list(image.shape)}, expected ink as uint8 [H, W], 255 = full ink")
    options = options or TraceOptions()
    ink = image >= options.ink
    lines = thinned(ink)
    if not lines.any():
        raise EmptySketchError(f"picture of {image.shape[1]} x {image.shape[0]} pixels has no ink: draw at least one line")
    width = float(ink.sum() / lines.sum())
    lines &= _sizable(ink, options.speck * width**2)
    rows, columns = np.nonzero(lines)
    extent = float(max(np.ptp(rows), np.ptp(columns)))
    spur, gap, reach = (width + share * extent for share in (options.spur, options.gap, options.reach))
    # A pixel is added to the width for bridges, since lines a pixel apart are one to thinning.
    strokes = strokes_of(pixel_graph(lines, image), Limits(width, options.bridge * (width + 1), spur, gap, reach, options.turn))
    return Sketch.from_strokes(_ordered([_smoothed(stroke, options.smooth) for stroke in strokes], options.order))


def _sizable(ink: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """Ink [H, W] in connected pieces of at least so many pixels, or the largest piece."""
    from scipy import ndimage

    labels, count = ndimage.label(ink, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept: NDArray[np.bool_] = (sizes >= min(pixels, sizes.max()))[labels]
    return kept


def _is_closed(stroke: FloatArray) -> bool:
    return len(stroke) > 3 and bool((stroke[0] == stroke[-1]).all())


def _smoothed(stroke: FloatArray, passes: int) -> FloatArray:
    """A stroke [n, 2] after passes of a 1-2-1 filter; free ends stay."""
    for _ in range(passes):
        if _is_closed(stroke):
            ring = stroke[:-1]
            ring = (np.roll(ring, 1, axis=0) + 2 * ring + np.roll(ring, -1, axis=0)) / 4
            stroke = np.concatenate([ring, ring[:1]])
        else:
            inner = (stroke[:-2] + 2 * stroke[1:-1] + stroke[2:]) / 4
            stroke = np.concatenate([stroke[:1], inner, stroke[1:][-1:]])
    return stroke


def _ordered(strokes: list[FloatArray], share: float) -> list[FloatArray]:
    """Strokes in the order and the direction in which a hand may draw them."""
    lengths = np.array([length(stroke) for stroke in strokes])
    first = int(lengths.argmax())
    pen = strokes[first][int(strokes[first].sum(axis=1).argmin())]  # the top left, where people begin
    waiting = list(range(len(strokes)))
    drawn: list[FloatArray] = []
    while waiting:
        gaps = np.array([_gap(strokes[number], pen) for number in waiting])
        chosen = first if not drawn else waiting[int((gaps - share * lengths[waiting]).argmin())]
        waiting.remove(chosen)
        drawn.append(_begun(strokes[chosen], pen))
        pen = drawn[-1][-1]
    return drawn


def _gap(stroke: FloatArray, pen: FloatArray) -> float:
    """From the pen to where a stroke may begin."""
    begins = stroke if _is_closed(stroke) else stroke[[0, -1]]
    return float(np.hypot(*(begins - pen).T).min())


def _begun(stroke: FloatArray, pen: FloatArray) -> FloatArray:
    """The stroke, drawn from where it is nearest to the pen; a closed one clockwise, so that all are alike."""
    gaps = np.hypot(*(stroke - pen).T)
    if not _is_closed(stroke):
        return stroke if gaps[0] <= gaps[-1] else stroke[::-1]
    ring = np.roll(stroke[:-1], -int(gaps[:-1].argmin()), axis=0)
    x, y = ring.T
    if float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) < 0:  # y points down
        ring = np.roll(ring[::-1], 1, axis=0)
    return np.concatenate([ring, ring[:1]])
