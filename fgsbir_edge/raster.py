"""Vector sketches to pixels: the two styles of the native rasteriser, into bytes or straight into an encoder's normalised input.

``bresenham`` is bit-exact with the rasteriser the FG-SBIR papers trained on (METHODS D.1): rounded points, integer segments, row
0 and column 0 left out, one dilation by the 3x3 cross. ``antialias`` is the coverage of round-capped segments,
``clamp(1/2 + line_width/2 - distance(pixel centre, segment), 0, 1)``, the largest over the segments, times 255 rounded half up.
In both, pixel (i, j) has its centre at x = i, y = j. ``fgsbir_edge._reference.raster`` is the readable twin of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import NativeMissingError, NonFiniteError, ShapeError, SketchTooLargeError
from fgsbir_edge.sketch import CANVAS, Sketch, SketchBatch, pack

MAX_PIXEL = 1e9  # largest |coordinate| in pixels that the native core takes
MAX_SIDE = 32768  # pixels
MAX_LINE_WIDTH = 10_000.0  # pixels

_STYLES = ("bresenham", "antialias")  # positions are the native codes

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class RasterSpec:
    """What to draw on, and how.

    Args:
        height, width: pixels, 1 to 32768.
        style: "bresenham" or "antialias".
        line_width: pixels, antialias only; more than 0. Bresenham lines are three pixels wide.
        ink: "light" = white strokes on black, as in the papers; "dark" = black strokes on white.
        mean, std: of each channel on the 0..1 scale; both given = normalised float output, both None = bytes.

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

    def output(self, count: int) -> tuple[tuple[int, ...], type[np.uint8] | type[np.float32]]:
        """Shape and dtype of ``count`` rasterised sketches."""
        if self.mean is None:
            return (count, self.height, self.width), np.uint8
        return (count, 3, self.height, self.width), np.float32


def rasterize(
    sketches: SketchBatch | Sequence[Sketch] | Sketch,
    spec: RasterSpec,
    *,
    scale: bool = True,
    threads: int = 1,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Draw each sketch on its own canvas.

    Args:
        sketches: B sketches, packed or not; a single one counts as B = 1.
        spec: size, style, polarity, output.
        scale: points are in canvas units (256 a side) and are multiplied by (width/256, height/256) in float64, before the
            rounding of bresenham style. False takes them as pixels.
        threads: how many threads share the sketches, 1 or more; the result is the same for any number.
        out: a C-contiguous array of the output's shape and dtype to write into.

    Returns:
        ``out``, or a new array: uint8 [B, H, W], or with mean and std float32 [B, 3, H, W] = (v/255 - mean) / std, where v is
        what the bytes would be.

    Raises:
        NonFiniteError: NaN or infinity among the points of a batch.
        SketchTooLargeError: a coordinate beyond ±1e9 pixels, or too many points to pack.
        ShapeError: offsets that do not fit the points, or an unsuitable ``out``.
        ValueError: ``threads`` below 1.
        NativeMissingError: the compiled core is not installed.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected 1 or more")
    batch = _in_pixels([sketches] if isinstance(sketches, Sketch) else sketches, spec, scale)
    shape, dtype = spec.output(batch.num_sketches)
    if out is None:
        out = np.empty(shape, dtype)
    elif out.shape != shape or out.dtype != dtype or not (out.flags.c_contiguous and out.flags.writeable):
        wanted = f"writeable C-contiguous {np.dtype(dtype)} {list(shape)}"
        raise ShapeError(f"out is {out.dtype} {list(out.shape)}, expected {wanted}: leave it out to get a new array")
    try:
        from fgsbir_edge import _native
    except ImportError as error:
        raise NativeMissingError(f"the compiled core cannot be imported ({error}): run pip install fgsbir-edge") from error
    try:
        _native.rasterize(
            batch.points,
            batch.stroke_offsets,
            batch.sketch_offsets,
            out,
            _STYLES.index(spec.style),
            spec.line_width,
            spec.ink == "dark",
            spec.mean or (0.0, 0.0, 0.0),
            spec.std or (1.0, 1.0, 1.0),
            threads,
        )
    except ValueError as error:  # settings and coordinates were checked above, so this is about the batch's arrays
        raise ShapeError(str(error)) from error
    return out


def _in_pixels(sketches: SketchBatch | Sequence[Sketch], spec: RasterSpec, scale: bool) -> SketchBatch:
    """Scale, round where the style rounds, check, and only then cast to float32."""
    if isinstance(sketches, SketchBatch):
        batch, points = sketches, np.asarray(sketches.points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ShapeError(f"points have shape {list(points.shape)}, expected [P, 2]: one row of x and y for each point")
    else:
        batch = pack(sketches)
        points = np.concatenate([np.empty((0, 2)), *(sketch.points for sketch in sketches)])
    if scale:
        points = points * (spec.width / CANVAS, spec.height / CANVAS)
    if spec.style == "bresenham":
        points = np.rint(points)
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise NonFiniteError(f"point {bad} of the batch is not finite: remove or repair it")
    reach = np.abs(points).max(initial=0.0)
    if reach > MAX_PIXEL:
        raise SketchTooLargeError(f"a coordinate lies at {reach:g} pixels, the limit is {MAX_PIXEL:g}: centre the sketch first")
    return replace(batch, points=points.astype(np.float32))
