"""Vector sketches to pixels: the two styles of the native rasteriser, into bytes or straight into an encoder's normalised input.

:func:`rasterize` draws a batch, :func:`rasterize_prefixes` the growing beginnings of sketches, :class:`Canvas` one that is being
drawn. All take packed batches, ``Sketch`` objects, or plain lists of strokes as an application holds them.

``bresenham`` is bit-exact with the rasteriser the FG-SBIR papers trained on (METHODS D.1): rounded points, integer segments, row
0 and column 0 left out, one dilation by the 3x3 cross. ``antialias`` is the coverage of round-capped segments,
``clamp(1/2 + line_width/2 - distance(pixel centre, segment), 0, 1)``, the largest over the segments, times 255 rounded half up.
In both, pixel (i, j) has its centre at x = i, y = j. ``fgsbir_edge._reference.raster`` is the readable twin of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import aligned_empty
from fgsbir_edge.errors import NativeMissingError, NonFiniteError, ShapeError, SketchTooLargeError
from fgsbir_edge.sketch import CANVAS, MAX_POINTS, Sketch, SketchBatch, check_size

MAX_PIXEL = 1e9  # largest |coordinate| in pixels that the native core takes
MAX_SIDE = 32768  # pixels
MAX_LINE_WIDTH = 10_000.0  # pixels

_STYLES = ("bresenham", "antialias")  # positions are the native codes
_FLOATS: dict[str, type[np.generic]] = {"float32": np.float32, "float16": np.float16}

Triple = tuple[float, float, float]
Stroke: TypeAlias = "NDArray[Any] | Sequence[Sequence[float]]"  # [n, 2]
Sketches: TypeAlias = "SketchBatch | Sketch | Sequence[Sketch] | Sequence[Sequence[Stroke]]"


@dataclass(frozen=True)
class RasterSpec:
    """What to draw on, and how.

    Args:
        height, width: pixels, 1 to 32768.
        style: "bresenham" or "antialias".
        line_width: pixels, antialias only; more than 0. Bresenham lines are three pixels wide.
        ink: "light" = white strokes on black, as in the papers; "dark" = black strokes on white.
        mean, std: of each channel on the 0..1 scale; both given = normalised float output, both None = bytes.
        dtype: of normalised output, "float32" or "float16".

    Raises:
        ValueError: a setting outside these ranges.
    """

    height: int = 256
    width: int = 256
    style: Literal["bresenham", "antialias"] = "bresenham"
    line_width: float = 2.0
    ink: Literal["light", "dark"] = "light"
    mean: Triple | None = None
    std: Triple | None = None
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise ValueError(f"raster is {self.height}x{self.width}, expected sides of 1 to {MAX_SIDE} pixels")
        if self.style not in _STYLES:
            raise ValueError(f"style is {self.style!r}, expected 'bresenham' or 'antialias'")
        if not 0 < self.line_width <= MAX_LINE_WIDTH:
            raise ValueError(f"line_width is {self.line_width}, expected more than 0 and at most {MAX_LINE_WIDTH:g} pixels")
        if self.ink not in ("light", "dark"):
            raise ValueError(f"ink is {self.ink!r}, expected 'light' (white on black) or 'dark' (black on white)")
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both mean and std for normalised float output, or neither for bytes")
        if self.mean is not None and self.std is not None:
            numbers = np.array([self.mean, self.std], dtype=np.float64) if len(self.mean) == len(self.std) == 3 else np.empty(0)
            if numbers.size == 0 or not np.isfinite(numbers).all() or (numbers[1] <= 0).any():
                raise ValueError(f"mean {self.mean} and std {self.std}: expected three finite numbers each, std above 0")
        if self.dtype not in _FLOATS:
            raise ValueError(f"dtype is {self.dtype!r}, expected 'float32' or 'float16'")
        zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        native = (_STYLES.index(self.style), self.line_width, self.ink == "dark", self.mean or zeros, self.std or ones)
        object.__setattr__(self, "_native", native)

    def output(self, count: int) -> tuple[tuple[int, ...], type[np.generic]]:
        """Shape and dtype of ``count`` rasterised sketches."""
        if self.mean is None:
            return (count, self.height, self.width), np.uint8
        return (count, 3, self.height, self.width), _FLOATS[self.dtype]

    def scale(self, wanted: bool) -> tuple[float, float]:
        """What points (x, y) are multiplied by: canvas units to pixels, or nothing."""
        return (self.width / CANVAS, self.height / CANVAS) if wanted else (1.0, 1.0)

    @property
    def native(self) -> tuple[Any, ...]:
        """The settings as the native core takes them: style, line width, dark, mean, std."""
        settings: tuple[Any, ...] = getattr(self, "_native")  # noqa: B009 - set once, past the frozen dataclass
        return settings


def rasterize(
    sketches: Sketches,
    spec: RasterSpec,
    *,
    scale: bool = True,
    threads: int = 1,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Draw each sketch on its own canvas.

    Args:
        sketches: B sketches: a packed batch, or a sequence in which each is a ``Sketch`` or a list of strokes, a stroke being an
            array [n, 2] or a list of (x, y) pairs. A single ``Sketch`` counts as B = 1. Sketches without a point stay blank.
        spec: size, style, polarity, output.
        scale: points are in canvas units (256 a side) and are multiplied by (width/256, height/256) in float64, before the
            rounding of bresenham style. False takes them as pixels.
        threads: how many threads share the sketches, 1 or more; the result is the same for any number.
        out: a C-contiguous array of the output's shape and dtype to write into. Fresh memory costs more than the drawing, so a
            caller that draws again and again should keep one.

    Returns:
        ``out``, or a new array: uint8 [B, H, W], or with mean and std float [B, 3, H, W] = (v/255 - mean) / std, where v is what
        the bytes would be; computed as v * (1 / 255 std) - mean / std in float32, and rounded from there for float16.

    Raises:
        NonFiniteError: NaN or infinity among the points of a batch.
        SketchTooLargeError: a coordinate beyond ±1e9 pixels, or a sketch of too many points.
        ShapeError: offsets that do not fit the points, strokes that are not [n, 2] numbers, or an unsuitable ``out``.
        ValueError: ``threads`` below 1.
        NativeMissingError: the compiled core is not installed.
    """
    held = _held(sketches)
    out = _output(spec, len(held[2]) - 1 if isinstance(held, tuple) else len(held), out)
    _draw("rasterize", (held, out, spec.native, spec.scale(scale), _threads(threads)))
    return out


def rasterize_prefixes(
    sketches: Sketches,
    spec: RasterSpec,
    prefixes: int | Sequence[Sequence[int]] = 17,
    *,
    scale: bool = True,
    threads: int = 1,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Draw growing beginnings of sketches, as they looked while they were drawn. Each segment is drawn once (METHODS D.1).

    Args:
        sketches: B sketches, as in :func:`rasterize`.
        prefixes: a number n gives n images of each sketch, of ``floor(i P / n)`` of its P points for i = 1..n (two at least, if
            there are two): the papers' 17. Or B sequences of point counts from 0 to P that never fall. A stroke that is cut ends
            there.
        spec, scale, threads, out: as in :func:`rasterize`.

    Returns:
        Q images in order, Q = B·n or the number of counts: uint8 [Q, H, W] or float [Q, 3, H, W]. Each is what
        :func:`rasterize` gives for that beginning alone.

    Raises:
        ShapeError: counts that fall or exceed the sketch's points, or not one sequence for each sketch.
        ValueError: fewer than one prefix.
        As :func:`rasterize` besides.
    """
    held = _held(sketches)
    count = len(held[2]) - 1 if isinstance(held, tuple) else len(held)
    if isinstance(prefixes, int) and prefixes < 1:
        raise ValueError(f"prefixes is {prefixes}, expected at least one")
    out = _output(spec, count * prefixes if isinstance(prefixes, int) else sum(map(len, prefixes)), out)
    _draw("rasterize_prefixes", (held, prefixes, out, spec.native, spec.scale(scale), _threads(threads)))
    return out


class Canvas:
    """A sketch while it is being drawn: strokes are added as they come, and the image is there at any time.

    Adding costs what the new segments cost, whatever is on the canvas already. The image is what :func:`rasterize` gives for all
    strokes so far. Not for use from several threads at once.
    """

    def __init__(self, spec: RasterSpec, *, scale: bool = True) -> None:
        """A blank canvas; ``scale`` as in :func:`rasterize`. Raises NativeMissingError without the compiled core."""
        self.spec = spec
        self._scale = spec.scale(scale)
        self._canvas = _core().Canvas(spec.height, spec.width, spec.native, self._scale)

    def add(self, points: Stroke, *, continues: bool = False) -> None:
        """Draw ``points``, an array [n, 2] or a list of (x, y) pairs; with ``continues`` they go on from the last point drawn.

        Raises NonFiniteError, SketchTooLargeError or ShapeError, and then draws nothing.
        """
        try:
            self._canvas.add(points, continues)
        except ValueError as error:
            if "not finite or beyond" in str(error):
                _check_coordinates(np.asarray(points, dtype=np.float64)[:, :2] * self._scale)
            raise ShapeError(str(error)) from error

    def image(self, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The image so far, [1, H, W] or [1, 3, H, W], in ``out`` or a new array. Raises ShapeError for an unsuitable ``out``."""
        out = _output(self.spec, 1, out)
        self._canvas.write(out)
        return out

    def clear(self) -> None:
        """Make the canvas blank."""
        self._canvas.clear()


def _core() -> Any:
    try:
        from fgsbir_edge import _native
    except ImportError as error:
        raise NativeMissingError(f"the compiled core cannot be imported ({error}): run pip install fgsbir-edge") from error
    return _native


def _held(sketches: Sketches) -> tuple[NDArray[Any], ...] | list[Any]:
    """What the native core takes: the arrays of a packed batch, or a list of sketches."""
    if isinstance(sketches, SketchBatch):
        points = sketches.points
        if points.dtype != np.float32 or not points.flags.c_contiguous:
            points = np.ascontiguousarray(points, dtype=np.float32)
        return points, sketches.stroke_offsets, sketches.sketch_offsets
    if isinstance(sketches, Sketch):
        return [sketches]
    held = list(sketches)
    for sketch in held:
        if isinstance(sketch, Sketch) and sketch.num_points > MAX_POINTS:
            check_size(sketch.num_points)
    return held


def _threads(threads: int) -> int:
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected 1 or more")
    return threads


def _output(spec: RasterSpec, count: int, out: NDArray[Any] | None) -> NDArray[Any]:
    shape, dtype = spec.output(count)
    if out is None:
        return aligned_empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not (out.flags.c_contiguous and out.flags.writeable):
        wanted = f"writeable C-contiguous {np.dtype(dtype)} {list(shape)}"
        raise ShapeError(f"out is {out.dtype} {list(out.shape)}, expected {wanted}: leave it out to get a new array")
    return out


def _draw(name: str, arguments: tuple[Any, ...]) -> None:
    """Call the native core, and say in our own terms what it refuses."""
    call = getattr(_core(), name)
    try:
        call(*arguments)
    except ValueError as error:
        held, scale = arguments[0], arguments[-2]
        if isinstance(held, tuple) and held[0].ndim == 2 and held[0].shape[1] == 2:
            _check_coordinates(held[0].astype(np.float64) * scale)
        elif isinstance(held, list) and "not finite or beyond" in str(error):
            _check_coordinates(_all_points(held) * scale)
        raise ShapeError(str(error)) from error


def _all_points(sketches: list[Any]) -> NDArray[np.float64]:
    """Every point of a list of sketches, [P, 2], in the order in which they are packed."""
    strokes = [stroke for sketch in sketches for stroke in ([sketch.points] if hasattr(sketch, "offsets") else sketch)]
    arrays = [np.asarray(stroke, dtype=np.float64) for stroke in strokes if len(stroke)]
    return np.concatenate([np.empty((0, 2)), *(array[:, :2] for array in arrays)])


def _check_coordinates(points: NDArray[np.float64]) -> None:
    """Raise NonFiniteError or SketchTooLargeError for points [P, 2] in pixels that the core would refuse."""
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise NonFiniteError(f"point {bad} of the batch is not finite: remove or repair it")
    reach = np.abs(points).max(initial=0.0)
    if reach > MAX_PIXEL:
        raise SketchTooLargeError(f"a coordinate lies at {reach:g} pixels, the limit is {MAX_PIXEL:g}: centre the sketch first")
