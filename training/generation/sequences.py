"""Sketches as the generator reads and writes them: stroke-5 rows of thinned, centred, normalised sketches (METHODS B.1, B.4).

A sketch of n points becomes n - 1 rows (dx, dy, p1, p2, p3): the way from the point before, divided by one scale, and the pen
after it: down, lifted, or the end. The first point's position is left out. The last row has p3 = 1 and is a point like the
others; every row after it is END.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import EmptySketchError, NonFiniteError, ShapeError, SketchTooLargeError
from fgsbir_edge.formats.stroke3 import from_stroke5, to_stroke5
from fgsbir_edge.pairs import Pair
from fgsbir_edge.sketch import CANVAS, Sketch

EPSILON = 3.0  # canvas units: the file that the paper's code reads (METHODS B.1)
START = (0.0, 0.0, 1.0, 0.0, 0.0)  # what the decoder reads before the first row
END = (0.0, 0.0, 0.0, 0.0, 1.0)  # padding, and what the target holds after a sketch's last row


@dataclass(frozen=True)
class SequenceOptions:
    """How sketches become rows, and which are kept.

    Args:
        epsilon: Ramer-Douglas-Peucker for each stroke, units of the 256 canvas; 3 in the released code.
        max_points: sketches of more points after that are left out; the released code keeps fewer than 81.
        max_length: T, the most rows that a generator draws; 100 in the paper.
        trace_epsilon: that epsilon for raster drawings, whose strokes are traced (data/trace.py); None: as `epsilon`. A
            deviation: traced lines may need more points than drawn ones.
        edge_points: of an edge drawing (edge_strokes.py) the longest strokes are taken, as many as have together so many points.

    Raises:
        ValueError: a field out of range, or `max_points` that do not fit into `max_length` rows.
    """

    epsilon: float = EPSILON
    max_points: int = 80
    max_length: int = 100
    trace_epsilon: float | None = None
    edge_points: int = 60

    def __post_init__(self) -> None:
        for name in ("epsilon", "trace_epsilon"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < np.inf:
                raise ValueError(f"sequences: {name} is {value}, expected a finite distance of at least 0 canvas units")
        if self.edge_points < 2:
            raise ValueError(f"sequences: edge_points is {self.edge_points}, expected 2 or more")
        if not 2 <= self.max_points <= self.max_length + 1:
            raise ValueError(
                f"sequences: max_points is {self.max_points}, expected 2 to {self.max_length + 1}, for max_length is "
                f"{self.max_length}: n points make n - 1 rows"
            )


def prepared(sketch: Sketch, epsilon: float = EPSILON) -> Sketch:
    """The sketch as it becomes rows: longer side 190 of 256 and centred, whole units, each stroke thinned (METHODS B.1, B.4).

    Raises EmptySketchError where all points coincide, and ValueError for an `epsilon` that is negative or not finite.
    """
    centred = sketch.centred()
    return Sketch(np.rint(centred.points), centred.offsets, max_points=None).simplified(epsilon)


def offset_scale(sketches: Iterable[Sketch], epsilon: float = EPSILON) -> float:
    """Standard deviation of all dx and dy of the `sketches` after `prepared`, pooled; canvas units (METHODS B.1).

    Give it the training sketches alone: the released code pools training and test.
    Raises EmptySketchError without a sketch, or where no point differs from another.
    """
    return pooled_scale([prepared(sketch, epsilon) for sketch in sketches])


def pooled_scale(sketches: Sequence[Sketch]) -> float:
    """`offset_scale` of sketches that are `prepared` already."""
    offsets = np.concatenate([np.empty((0, 2)), *(np.diff(sketch.points, axis=0) for sketch in sketches)])
    scale = float(offsets.std()) if len(offsets) else 0.0
    if scale == 0:
        raise EmptySketchError(f"{len(sketches)} sketches have no offsets to take a scale from: give sketches with lines")
    return scale


def to_rows(sketch: Sketch, scale: float, epsilon: float = EPSILON) -> Float32:
    """Stroke-5 rows float32 [n - 1, 5] of the n points that `prepared` leaves; offsets divided by `scale`.

    A lift after the very first point cannot be said: a first stroke of a single point joins the second.
    Raises what `prepared` raises, and ValueError for a `scale` that is not positive.
    """
    return rows_of(prepared(sketch, epsilon), scale)


def rows_of(sketch: Sketch, scale: float) -> Float32:
    """`to_rows` of a sketch that is `prepared` already."""
    rows = to_stroke5(sketch)
    rows[:, :2] /= _checked(scale)
    return rows.astype(np.float32)


def to_sketch(rows: ArrayLike, scale: float) -> Sketch:
    """The sketch that rows [n, 5] draw, from one uniform centre scaling: longer side 190, middle at 128 (METHODS B.4).

    The largest of p1, p2, p3 counts. The first p3 row ends the sketch and is its last point, unless it leads nowhere right after
    a lift or the start. What has no extent, an empty drawing included, is a dot in the middle of the canvas.

    Raises:
        ShapeError: rows of another shape.
        NonFiniteError: NaN or infinity before the end.
        ValueError: a `scale` that is not positive.
    """
    table = np.array(rows, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 5:
        raise ShapeError(f"rows have shape {table.shape}, expected [n, 5]: dx, dy, p1, p2, p3; give one drawing at a time")
    ends = np.flatnonzero(table[:, 2:].argmax(axis=1) == 2)
    table = table[: int(ends[0]) + 1] if ends.size else table
    table[:, :2] *= _checked(scale)
    if not np.isfinite(table).all():
        raise NonFiniteError("rows hold NaN or infinity before their end: the generator's output is damaged; train it anew")
    try:
        return from_stroke5(table).centred()
    except EmptySketchError:
        return Sketch(np.full((2, 2), CANVAS / 2), np.array([0, 2]))


@dataclass(frozen=True, eq=False)
class SequenceSet:
    """Sequences of one length, each with its photo.

    Args:
        rows: float32 [N, T+1, 5], END after each sequence's last row: the decoder's target. Its input is START and rows[:, :T].
        lengths: int64 [N], rows of each sequence; the last of them has p3 = 1.
        scale: canvas units of an offset of 1.
        pairs: the sketch and the photo of each sequence.
        too_long: names of the sketches that had too many points and were left out.

    Raises:
        ShapeError: arrays of other shapes or dtypes.
    """

    rows: Float32
    lengths: NDArray[np.int64]
    scale: float
    pairs: tuple[Pair, ...]
    too_long: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.pairs)
        if self.rows.dtype != np.float32 or self.rows.ndim != 3 or self.rows.shape[::2] != (count, 5):
            raise ShapeError(f"rows are {self.rows.dtype} {list(self.rows.shape)}, expected float32 [{count}, T+1, 5]")
        if self.lengths.dtype != np.int64 or self.lengths.shape != (count,):
            raise ShapeError(f"lengths are {self.lengths.dtype} {list(self.lengths.shape)}, expected int64 [{count}]")

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def max_length(self) -> int:
        """T."""
        return int(self.rows.shape[1]) - 1

    def sketch(self, number: int) -> Sketch:
        """Sequence `number` drawn again."""
        return to_sketch(self.rows[number, : self.lengths[number]], self.scale)


def padded(sequences: Sequence[Float32], max_length: int) -> tuple[Float32, NDArray[np.int64]]:
    """Sequences [n, 5] as one array float32 [N, max_length+1, 5], END after each, and their lengths int64 [N].

    Raises SketchTooLargeError for a sequence of more than `max_length` rows.
    """
    lengths = np.array([len(rows) for rows in sequences], dtype=np.int64)
    if lengths.max(initial=0) > max_length:
        raise SketchTooLargeError(
            f"a sketch has {lengths.max()} rows, at most {max_length} fit: use a larger epsilon or max_length"
        )
    table = np.tile(np.array(END, dtype=np.float32), (len(sequences), max_length + 1, 1))
    for number, rows in enumerate(sequences):
        table[number, : len(rows)] = rows
    return table, lengths


def _checked(scale: float) -> float:
    if not 0 < scale < np.inf:
        raise ValueError(f"scale is {scale}, expected a positive number of canvas units: take it with offset_scale")
    return scale
