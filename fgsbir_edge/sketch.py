"""Vector sketches: strokes of points, their geometry, and the packed batches that the rasteriser takes.

Points are x right, y down, in canvas units: 256 units a side unless a sketch says otherwise. Everything here is float64, so that
rounding (the papers round to pixels, METHODS D.1) happens before any cast to float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgsbir_edge.errors import EmptySketchError, NonFiniteError, ShapeError, SketchTooLargeError

CANVAS = 256.0  # side of the canvas, units
LONG_SIDE = 190.0  # longer side of a centred sketch, units: the frame of the QMUL sketches (METHODS B.4)
MAX_POINTS = 100_000  # the longest human sketch of ChairV2 has 519 points; beyond this something is wrong with the input
MAX_COORDINATE = 1e7  # units; keeps every product below finite and float32 able to tell neighbouring units apart
MIN_EXTENT = 1e-9  # units; a sketch smaller than this is a dot and has no scale

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sketch:
    """Vector strokes. Arrays are copied in and read-only.

    Args:
        points: [P, 2] float64, x right and y down, canvas units; P >= 2.
        offsets: [S+1] int64; stroke s is ``points[offsets[s]:offsets[s+1]]``; every stroke has at least one point.
        max_points: refuse more points than this; None takes any number, in order to call :meth:`simplified`.

    Raises:
        EmptySketchError: fewer than two points.
        NonFiniteError: NaN or infinity among the points.
        SketchTooLargeError: more than ``max_points`` points, or coordinates beyond ±1e7.
        ShapeError: arrays of another shape, or offsets that do not cut the points into non-empty strokes.
    """

    points: FloatArray
    offsets: IntArray
    max_points: InitVar[int | None] = MAX_POINTS

    def __post_init__(self, max_points: int | None) -> None:
        points = np.array(_numbers(self.points, "points"), dtype=np.float64, order="C")
        offsets = np.array(_numbers(self.offsets, "offsets", kinds="iu"), dtype=np.int64)
        _check_points(points, max_points)
        if offsets.ndim != 1 or offsets.size < 2 or offsets[0] != 0 or offsets[-1] != len(points) or (np.diff(offsets) < 1).any():
            raise ShapeError(
                f"offsets of shape {offsets.shape} do not cut {len(points)} points into non-empty strokes: "
                "expected [S+1] strictly increasing from 0 to the number of points; use Sketch.from_strokes"
            )
        points.setflags(write=False)
        offsets.setflags(write=False)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def from_strokes(cls, strokes: Iterable[ArrayLike], max_points: int | None = MAX_POINTS) -> Sketch:
        """Build a sketch from strokes, each [n, 2 or more] numbers (further columns are ignored); empty strokes are dropped.

        Raises what :class:`Sketch` raises.
        """
        kept: list[FloatArray] = []
        for number, stroke in enumerate(strokes):
            array = _numbers(stroke, f"stroke {number}")
            if array.shape[:1] == (0,):
                continue
            if array.ndim != 2 or array.shape[1] < 2:
                raise ShapeError(f"stroke {number} has shape {array.shape}, expected [n, 2]: one row of x and y for each point")
            kept.append(array[:, :2].astype(np.float64))
        points = np.concatenate(kept) if kept else np.empty((0, 2))
        return cls(points, np.cumsum([0, *map(len, kept)]), max_points=max_points)

    @property
    def num_points(self) -> int:
        """P, the number of points."""
        return len(self.points)

    @property
    def num_strokes(self) -> int:
        """S, the number of strokes."""
        return len(self.offsets) - 1

    @property
    def strokes(self) -> list[FloatArray]:
        """One read-only view [n, 2] for each stroke."""
        return np.split(self.points, self.offsets[1:-1])

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1): smallest and largest coordinates, canvas units."""
        x0, y0 = self.points.min(axis=0)
        x1, y1 = self.points.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    def centred(self, canvas: float = CANVAS, long_side: float = LONG_SIDE) -> Sketch:
        """Scale uniformly so that the longer side is ``long_side``, and centre on the canvas (METHODS B.4).

        A vertical or horizontal line scales by its length. QMUL sketches are in this frame already and come back unchanged
        but for float rounding (less than 1e-5 units).

        Raises:
            EmptySketchError: all points coincide, so that there is nothing to scale.
        """
        x0, y0, x1, y1 = self.bounds
        extent = max(x1 - x0, y1 - y0)
        if extent < MIN_EXTENT:
            raise EmptySketchError(f"all {self.num_points} points of the sketch lie at ({x0:g}, {y0:g}): draw at least one line")
        middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        return self._with_points((self.points - middle) * (long_side / extent) + canvas / 2)

    def scaled(self, sx: float, sy: float) -> Sketch:
        """Multiply x by ``sx`` and y by ``sy``."""
        return self._with_points(self.points * np.array([sx, sy], dtype=np.float64))

    def transformed(self, matrix: ArrayLike) -> Sketch:
        """Apply an affine ``matrix`` [2, 3]: (x, y) becomes ``matrix @ (x, y, 1)``. Raises ShapeError for another shape."""
        affine = np.asarray(matrix, dtype=np.float64)
        if affine.shape != (2, 3):
            raise ShapeError(f"affine matrix has shape {affine.shape}, expected [2, 3]: linear part in the left two columns")
        return self._with_points(self.points @ affine[:, :2].T + affine[:, 2])

    def simplified(self, epsilon: float) -> Sketch:
        """Thin every stroke by Ramer-Douglas-Peucker; stroke ends stay.

        A point stays if it is the farthest from the line through the ends of its piece and farther than ``epsilon`` (canvas
        units; perpendicular distance to the infinite line, distance to the point where both ends coincide, the first of equals:
        the rules of the PyPI ``rdp`` package, METHODS B.1). Raises ValueError unless ``epsilon`` is finite and not negative.
        """
        if not 0 <= epsilon < np.inf:
            raise ValueError(f"epsilon is {epsilon}, expected a finite distance of at least 0 canvas units")
        keep = np.concatenate([_rdp_mask(stroke, epsilon) for stroke in self.strokes])
        kept_before = np.concatenate([[0], np.cumsum(keep)])
        return Sketch(self.points[keep], kept_before[self.offsets], max_points=None)

    def prefix(self, points: int) -> Sketch:
        """Return the first ``points`` points across strokes, or the whole sketch if it has no more; the last stroke may be cut.

        Raises EmptySketchError if ``points`` is below 2.
        """
        stop = min(points, self.num_points)
        strokes = int(np.searchsorted(self.offsets, max(stop, 0)))  # strokes that begin before the cut
        offsets = np.append(self.offsets[:strokes], stop)
        return Sketch(self.points[: max(stop, 0)], offsets, max_points=None)

    def prefixes(self, count: int = 17) -> list[Sketch]:
        """Return ``count`` growing prefixes at evenly spaced point counts; the last is the whole sketch (METHODS D.1, variant c).

        Prefix i of 1..count holds ``floor(i * P / count)`` points, never fewer than two, so a sketch of few points repeats some.
        Raises ValueError if ``count`` is below 1.
        """
        if count < 1:
            raise ValueError(f"count is {count}, expected at least one prefix")
        return [self.prefix(max(2, step * self.num_points // count)) for step in range(1, count + 1)]

    def _with_points(self, points: FloatArray) -> Sketch:
        return Sketch(points, self.offsets, max_points=None)


@dataclass(frozen=True, eq=False)
class SketchBatch:
    """Sketches packed end to end, as the native rasteriser takes them.

    Args:
        points: [P, 2] float32, all points of all sketches.
        stroke_offsets: [S+1] int64 into ``points``.
        sketch_offsets: [B+1] int64 into the strokes.
    """

    points: NDArray[np.float32]
    stroke_offsets: IntArray
    sketch_offsets: IntArray

    @property
    def num_sketches(self) -> int:
        """B, the number of sketches."""
        return len(self.sketch_offsets) - 1


def pack(sketches: Sequence[Sketch], *, round_points: bool = False) -> SketchBatch:
    """Pack sketches into one batch.

    Args:
        sketches: B sketches; B may be 0.
        round_points: round coordinates to whole units, half to even, in float64 before the cast to float32 (METHODS D.1).

    Raises:
        SketchTooLargeError: a sketch that was loaded without a limit still has more than MAX_POINTS points.
    """
    for sketch in sketches:
        check_size(sketch.num_points)
    points = np.concatenate([np.empty((0, 2)), *(sketch.points for sketch in sketches)])
    if round_points:
        points = np.rint(points)
    stroke_lengths = np.concatenate([np.empty(0, np.int64), *(np.diff(sketch.offsets) for sketch in sketches)])
    return SketchBatch(
        points=points.astype(np.float32),
        stroke_offsets=_running_sum(stroke_lengths),
        sketch_offsets=_running_sum(np.array([sketch.num_strokes for sketch in sketches], dtype=np.int64)),
    )


def _running_sum(lengths: IntArray) -> IntArray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _numbers(values: ArrayLike, name: str, kinds: str = "fiu") -> NDArray[np.generic]:
    """Return ``values`` as an array of numbers, or raise ShapeError: no strings, objects, complex numbers or ragged lists."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise ShapeError(f"{name} is ragged: every row must have the same number of columns") from None
    if array.dtype.kind not in kinds:
        raise ShapeError(f"{name} has dtype {array.dtype}, expected {'real numbers' if 'f' in kinds else 'integers'}")
    return array


def check_size(count: int, max_points: int | None = MAX_POINTS) -> None:
    """Raise SketchTooLargeError for a sketch of more than ``max_points`` points; None takes any number."""
    if max_points is not None and count > max_points:
        raise SketchTooLargeError(
            f"sketch has {count} points, at most {max_points} are taken: "
            "simplify it first (load it with max_points=None, then call .simplified(1.0))"
        )


def _check_points(points: FloatArray, max_points: int | None) -> None:
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError(f"points have shape {points.shape}, expected [P, 2]: one row of x and y for each point")
    if len(points) < 2:
        raise EmptySketchError(f"sketch has {len(points)} point{'s' * (len(points) != 1)}, expected at least 2: draw a line")
    check_size(len(points), max_points)
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise NonFiniteError(f"point {bad} of the sketch is ({points[bad, 0]}, {points[bad, 1]}): remove or repair it")
    reach = float(np.abs(points).max())
    if reach > MAX_COORDINATE:
        raise SketchTooLargeError(
            f"sketch has a coordinate of {reach:g}, at most {MAX_COORDINATE:g} is taken: scale it down first"
        )


def _rdp_mask(points: FloatArray, epsilon: float) -> NDArray[np.bool_]:
    """Mark the points of one stroke [n, 2] that Ramer-Douglas-Peucker keeps.

    Pieces wait on an explicit stack, since a recursion would fail on the stroke of a stuck pen; each split is one vector pass.
    """
    keep = np.zeros(len(points), dtype=np.bool_)
    keep[[0, -1]] = True
    pieces = [(0, len(points) - 1)]
    while pieces:
        first, last = pieces.pop()
        if last - first < 2:
            continue
        chord = points[last] - points[first]
        inner = points[first + 1 : last] - points[first]
        length = np.hypot(chord[0], chord[1])
        if length == 0:
            distance = np.hypot(inner[:, 0], inner[:, 1])
        else:
            distance = np.abs(chord[0] * inner[:, 1] - chord[1] * inner[:, 0]) / length
        farthest = int(distance.argmax())
        if distance[farthest] > epsilon:
            split = first + 1 + farthest
            keep[split] = True
            pieces += [(first, split), (split, last)]
    return keep
