"""Other rasterisers, each in the fastest form that its documented interface allows: how it takes points, and how it draws.

A peer draws one sketch into one image [256, 256] uint8 that is reused. ``prepare`` makes what ``draw`` takes from a list of
float64 arrays [n, 2], ``convert`` makes the same from lists of (x, y) tuples; where sketches come prepared neither is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.sketches import SIDE, Strokes, Tuples
from fgsbir_edge._reference import raster as twin

Image = NDArray[np.uint8]
Kind = Literal["lines", "dilated", "antialias 1", "antialias 2"]  # which reference an answer is held against

PAPERS = "papers' Python + SciPy dilation"
SAME = ("Pillow + OpenCV dilation", "Pillow + OpenCV dilation, memory shared")  # the papers' pixels
DILATED = (*SAME, "OpenCV polylines + dilation")
THIN = ("Pillow, width 1", "OpenCV polylines, width 1")
OPENCV, SKIA = "OpenCV anti-aliased, width 2", "skia-python, width 2"
SMOOTH = (OPENCV, "aggdraw, width 2", "pycairo, width 2", "pycairo FAST, width 2", SKIA)

LINE_WIDTH = 2.0
_FRACTION_BITS = 4  # of OpenCV's fixed-point coordinates


@dataclass(frozen=True)
class Peer:
    """One way of drawing a sketch. ``same``: the answer must equal the reference in every pixel."""

    name: str
    kind: Kind
    same: bool
    prepare: Callable[[Strokes], Any]
    convert: Callable[[Tuples], Any]
    draw: Callable[[Any, Image], object]


def peers() -> tuple[list[Peer], list[dict[str, str]]]:
    """All peers whose libraries are installed, and the names and reasons of those that are not."""
    makers: list[tuple[str, Callable[..., list[Peer]], Sequence[str]]] = [
        ("papers' Python", _papers, ("scipy.ndimage",)),
        ("Pillow", _pillow, ("PIL.Image", "PIL.ImageDraw")),
        ("Pillow + OpenCV", _pillow_opencv, ("PIL.Image", "PIL.ImageDraw", "cv2")),
        ("OpenCV", _opencv, ("cv2",)),
        ("aggdraw", _aggdraw, ("aggdraw",)),
        ("pycairo", _cairo, ("cairo",)),
        ("skia-python", _skia, ("skia",)),
    ]
    found: list[Peer] = []
    skipped = []
    for name, maker, modules in makers:
        missing = [module for module in modules if not installed(module)]
        if missing:
            skipped.append({"name": name, "reason": f"{', '.join(missing)} cannot be imported: pip install '.[bench]'"})
        else:
            found += maker(*map(import_module, modules))
    return found, skipped


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def whole(strokes: Strokes, dtype: type[np.generic], scale: float = 1.0) -> list[NDArray[Any]]:
    """Strokes in whole numbers, rounded half to even as the papers round: one conversion for all of a sketch's strokes."""
    return _cut(np.rint(np.concatenate(strokes) * scale).astype(dtype), strokes)


def whole_from_tuples(strokes: Tuples, dtype: type[np.generic], scale: float = 1.0) -> list[NDArray[Any]]:
    """The same from tuples; faster than an array for each stroke, and than Python's round."""
    count = 2 * sum(map(len, strokes))
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(strokes)), np.float64, count)
    return _cut(np.rint(flat * scale).astype(dtype).reshape(-1, 2), strokes)


def _cut(points: NDArray[Any], strokes: Sequence[Any]) -> list[NDArray[Any]]:
    pieces, start = [], 0
    for stroke in strokes:
        pieces.append(points[start : start + len(stroke)])
        start += len(stroke)
    return pieces


def _papers(ndimage: Any) -> list[Peer]:
    """The papers' algorithm: every pixel walked in Python, then SciPy's dilation."""

    def draw(strokes: Strokes, image: Image) -> None:
        np.multiply(ndimage.binary_dilation(twin.lines(strokes, SIDE, SIDE)), 255, out=image, casting="unsafe")

    return [Peer(PAPERS, "dilated", True, lambda s: s, lambda s: [np.array(x) for x in s], draw)]


def papers_prefixes(strokes: Strokes, counts: Sequence[int], images: Image) -> None:
    """The papers' on-the-fly variant: one walk over the sketch, dilated and kept whenever a prefix is complete."""
    ndimage = import_module("scipy.ndimage")
    mask, drawn, done = np.zeros((SIDE, SIDE), np.bool_), 0, 0
    for stroke in strokes:
        points = [(int(x), int(y)) for x, y in np.rint(stroke)]
        for (x0, y0), (x1, y1) in zip(points[:1] + points[:-1], points, strict=True):
            for x, y in twin.segment_pixels(x0, y0, x1, y1):
                if 0 < x < SIDE and 0 < y < SIDE:
                    mask[y, x] = True
            drawn += 1
            while done < len(counts) and counts[done] == drawn:
                np.multiply(ndimage.binary_dilation(mask), 255, out=images[done], casting="unsafe")
                done += 1


def _pillow(image_module: Any, draw_module: Any) -> list[Peer]:
    canvas = image_module.new("L", (SIDE, SIDE))
    line = draw_module.Draw(canvas).line

    def draw(strokes: list[NDArray[np.float32]], image: Image) -> None:
        canvas.paste(0, (0, 0, SIDE, SIDE))
        for stroke in strokes:
            line(stroke, fill=255)
        np.copyto(image, np.asarray(canvas))

    return [Peer("Pillow, width 1", "lines", True, _floats, _floats_from_tuples, draw)]


def _pillow_opencv(image_module: Any, draw_module: Any, cv2: Any) -> list[Peer]:
    cv2.setNumThreads(1)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    canvas = image_module.new("L", (SIDE, SIDE))
    line = draw_module.Draw(canvas).line

    def draw(strokes: list[NDArray[np.float32]], image: Image) -> None:
        canvas.paste(0, (0, 0, SIDE, SIDE))
        for stroke in strokes:
            line(stroke, fill=255)
        cv2.dilate(np.asarray(canvas), cross, dst=image)

    # Not documented: Pillow keeps images over foreign memory read-only and copies them before it draws. Told otherwise it draws
    # into the array itself, which saves the copy out of Pillow.
    memory = np.zeros((SIDE, SIDE), np.uint8)
    shared = image_module.frombuffer("L", (SIDE, SIDE), memory, "raw", "L", 0, 1)
    shared.readonly = 0
    line_in_place = draw_module.Draw(shared).line

    def draw_in_place(strokes: list[NDArray[np.float32]], image: Image) -> None:
        memory.fill(0)
        for stroke in strokes:
            line_in_place(stroke, fill=255)
        cv2.dilate(memory, cross, dst=image)

    return [
        Peer(SAME[0], "dilated", True, _floats, _floats_from_tuples, draw),
        Peer(SAME[1], "dilated", True, _floats, _floats_from_tuples, draw_in_place),
    ]


def _floats(strokes: Strokes) -> list[NDArray[np.float32]]:
    return whole(strokes, np.float32)  # Pillow reads a buffer as float32 pairs


def _floats_from_tuples(strokes: Tuples) -> list[NDArray[np.float32]]:
    return whole_from_tuples(strokes, np.float32)


def _opencv(cv2: Any) -> list[Peer]:
    cv2.setNumThreads(1)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    memory = np.zeros((SIDE, SIDE), np.uint8)
    unit = float(1 << _FRACTION_BITS)

    def draw(strokes: list[NDArray[np.int32]], image: Image) -> None:
        image.fill(0)
        cv2.polylines(image, strokes, False, 255, 1, cv2.LINE_8)

    def draw_dilated(strokes: list[NDArray[np.int32]], image: Image) -> None:
        memory.fill(0)
        cv2.polylines(memory, strokes, False, 255, 1, cv2.LINE_8)
        cv2.dilate(memory, cross, dst=image)

    def antialias(width: int) -> Callable[[Any, Image], object]:
        def draw_smooth(strokes: list[NDArray[np.int32]], image: Image) -> None:
            image.fill(0)
            cv2.polylines(image, strokes, False, 255, width, cv2.LINE_AA, _FRACTION_BITS)

        return draw_smooth

    integers = lambda s: whole(s, np.int32), lambda s: whole_from_tuples(s, np.int32)
    fixed = lambda s: whole(s, np.int32, unit), lambda s: whole_from_tuples(s, np.int32, unit)
    return [
        Peer("OpenCV polylines, width 1", "lines", False, *integers, draw),
        Peer("OpenCV polylines + dilation", "dilated", False, *integers, draw_dilated),
        Peer("OpenCV anti-aliased, width 1", "antialias 1", False, *fixed, antialias(1)),
        Peer("OpenCV anti-aliased, width 2", "antialias 2", False, *fixed, antialias(2)),
    ]


def _aggdraw(aggdraw: Any) -> list[Peer]:
    canvas, pen = aggdraw.Draw("L", (SIDE, SIDE), "black"), aggdraw.Pen("white", LINE_WIDTH)
    canvas.settransform((1, 0, 0.5, 0, 1, 0.5))  # its pixel centres lie at halves

    def draw(strokes: list[list[float]], image: Image) -> None:
        canvas.clear("black")
        for stroke in strokes:
            canvas.line(stroke, pen)
        np.copyto(image, np.frombuffer(canvas.tobytes(), np.uint8).reshape(SIDE, SIDE))

    def flat(strokes: Strokes) -> list[list[float]]:
        return [stroke.ravel().tolist() for stroke in strokes]

    def flat_from_tuples(strokes: Tuples) -> list[list[float]]:
        return [list(chain.from_iterable(stroke)) for stroke in strokes]

    return [Peer("aggdraw, width 2", "antialias 2", False, flat, flat_from_tuples, draw)]


def _cairo(cairo: Any) -> list[Peer]:
    def drawing(quality: Any) -> Callable[[Any, Image], object]:
        def draw(strokes: Tuples, image: Image) -> None:
            image.fill(0)
            surface = cairo.ImageSurface.create_for_data(image, cairo.FORMAT_A8, SIDE, SIDE, SIDE)
            pen = cairo.Context(surface)
            pen.translate(0.5, 0.5)
            pen.set_line_width(LINE_WIDTH)
            pen.set_line_cap(cairo.LINE_CAP_ROUND)
            pen.set_line_join(cairo.LINE_JOIN_ROUND)
            pen.set_antialias(quality)
            pen.set_source_rgba(1, 1, 1, 1)
            for stroke in strokes:
                pen.move_to(*stroke[0])
                for x, y in stroke[1:]:
                    pen.line_to(x, y)
                pen.stroke()  # a stroke at a time: a fifth faster than one path of all
            surface.flush()

        return draw

    def tuples(strokes: Strokes) -> Tuples:
        return [stroke.tolist() for stroke in strokes]

    return [
        Peer("pycairo, width 2", "antialias 2", False, tuples, lambda s: s, drawing(cairo.ANTIALIAS_DEFAULT)),
        Peer("pycairo FAST, width 2", "antialias 2", False, tuples, lambda s: s, drawing(cairo.ANTIALIAS_FAST)),
    ]


def _skia(skia: Any) -> list[Peer]:
    info = skia.ImageInfo.MakeA8(SIDE, SIDE)
    paint = skia.Paint(AntiAlias=True, Style=skia.Paint.kStroke_Style, StrokeWidth=LINE_WIDTH, Color=skia.ColorWHITE)
    paint.setStrokeCap(skia.Paint.kRound_Cap)
    paint.setStrokeJoin(skia.Paint.kRound_Join)

    def draw(paths: list[Any], image: Image) -> None:
        image.fill(0)
        surface = skia.Surface.MakeRasterDirect(info, image, SIDE)
        canvas = surface.getCanvas()
        canvas.translate(0.5, 0.5)
        for path in paths:
            canvas.drawPath(path, paint)

    def paths(strokes: Tuples) -> list[Any]:
        made = []
        for stroke in strokes:
            path = skia.Path()
            path.moveTo(*stroke[0])
            for x, y in stroke[1:]:
                path.lineTo(x, y)
            made.append(path)
        return made

    return [Peer("skia-python, width 2", "antialias 2", False, lambda s: paths([x.tolist() for x in s]), paths, draw)]
