"""Stroke-3 and stroke-5: sketches as offsets from point to point, the way sequence models read and write them.

Stroke-3 has a row (dx, dy, lift) for every point: the way from the point before (for the first point, from the origin), and
whether the pen lifts after this point. Position is kept.

Stroke-5 is laid out as in METHODS B.1: a row (dx, dy, p1, p2, p3) for every point but the first, whose position is left out;
exactly one of p1 (pen stays down), p2 (pen lifts after this point) and p3 (this is the last point) is 1. All rows after the last
are padding (0, 0, 0, 0, 1). What the format cannot say is a lift after the very first point: a first stroke of one point joins
the second.
"""

from __future__ import annotations

import io
import os

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgsbir_edge.errors import ShapeError, SketchFormatError, SketchTooLargeError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.formats._arrays import Array, read_npy, read_npz
from fgsbir_edge.formats._files import located, read_bytes
from fgsbir_edge.reading import AnyPath
from fgsbir_edge.sketch import MAX_POINTS, Sketch

FloatArray = NDArray[np.float64]


def to_stroke3(sketch: Sketch) -> FloatArray:
    """Return rows [P, 3] float64 of dx, dy, lift; the first row is the first point itself."""
    rows = np.zeros((sketch.num_points, 3))
    rows[:, :2] = np.diff(sketch.points, axis=0, prepend=np.zeros((1, 2)))
    rows[sketch.offsets[1:] - 1, 2] = 1
    return rows


def from_stroke3(rows: ArrayLike, max_points: int | None = MAX_POINTS) -> Sketch:
    """Build a sketch from rows [P, 3] of dx, dy, lift: points are the running sums, and a lift above 0.5 ends a stroke.

    Coordinates agree with those that were written to within float64 rounding of the sums. Raises what Sketch raises.
    """
    table = _table(rows, 3)
    return _cut(np.cumsum(table[:, :2], axis=0, dtype=np.float64), table[:, 2] > 0.5, max_points)


def to_stroke5(sketch: Sketch, max_len: int | None = None) -> FloatArray:
    """Return rows [max_len, 5] float64 as METHODS B.1 lays them out; without ``max_len``, P - 1 rows and no padding.

    Start tokens, the extra end row of a target and the division by the offsets' standard deviation are the model's business.

    Raises:
        SketchTooLargeError: the sketch has more than ``max_len + 1`` points.
    """
    count = sketch.num_points - 1
    length = count if max_len is None else max_len
    if count > length:
        raise SketchTooLargeError(f"sketch has {count} offsets, at most {length} fit: simplify it first (sketch.simplified(3.0))")
    rows = np.zeros((length, 5))
    rows[:count, :2] = np.diff(sketch.points, axis=0)
    rows[:count, 2] = 1
    lifts = sketch.offsets[1:-1] - 2  # a row stands for the point that it leads to
    rows[lifts[lifts >= 0], 2:4] = 0, 1
    rows[count - 1 :, 2:] = 0, 0, 1
    return rows


def from_stroke5(rows: ArrayLike, start: tuple[float, float] = (0.0, 0.0), max_points: int | None = MAX_POINTS) -> Sketch:
    """Build a sketch from rows [n, 5], of which everything after the first p3 is padding; the first point is ``start``.

    The largest of p1, p2, p3 counts, so that a model's probabilities may be passed. A p3 row that leads nowhere, right
    after a lift or the start, is taken for the separate end row of Sketch-RNN files, not for a point. Raises what Sketch raises.
    """
    table = _table(rows, 5)
    pen = table[:, 2:].argmax(axis=1)
    ends = np.flatnonzero(pen == 2)
    if ends.size:
        last = int(ends[0])
        is_point = table[last, :2].any() or (last > 0 and pen[last - 1] == 0)
        table, pen = table[: last + is_point], pen[: last + is_point]
    points = np.cumsum(np.concatenate([[start], table[:, :2]]), axis=0, dtype=np.float64)
    return _cut(points, np.concatenate([[False], pen == 1]), max_points)


def read_strokes(path: AnyPath, max_points: int | None = MAX_POINTS) -> Sketch:
    """Read stroke-3 or stroke-5 rows, told apart by their 3 or 5 columns, from a .npy, or a .npz of a single array.

    Raises:
        SketchFormatError: damaged, several arrays, or an array of another shape or of objects.
        UnreadableImageError: the file is missing or cannot be opened.
        What Sketch raises.
    """
    if os.fspath(path).lower().endswith(".npz"):
        arrays = read_npz(path)
        if len(arrays) != 1:
            raise SketchFormatError(f"{path}: holds {len(arrays)} arrays, expected one of rows [n, 3] or [n, 5]")
        return strokes_from_array(next(iter(arrays.values())), os.fspath(path), max_points)
    return strokes_from_array(read_npy(read_bytes(path), os.fspath(path)), os.fspath(path), max_points)


def strokes_from_array(rows: Array, name: str, max_points: int | None = MAX_POINTS) -> Sketch:
    """Build a sketch from stroke-3 or stroke-5 rows, told apart by their columns; ``name`` is for messages."""
    if rows.ndim != 2 or rows.shape[1] not in {3, 5} or rows.dtype.kind not in "fiu":
        raise SketchFormatError(
            f"{name}: array of shape {rows.shape} and dtype {rows.dtype}, expected stroke-3 [n, 3] or stroke-5 [n, 5]"
        )
    with located(name), np.errstate(invalid="ignore"):  # a signalling NaN warns when it is cast, and is refused later like any
        return from_stroke3(rows, max_points) if rows.shape[1] == 3 else from_stroke5(rows, max_points=max_points)


def write_stroke3(path: AnyPath, sketch: Sketch) -> None:
    """Write stroke-3 rows as .npy, float64. Raises OutputError."""
    _write(path, to_stroke3(sketch))


def write_stroke5(path: AnyPath, sketch: Sketch, max_len: int | None = None) -> None:
    """Write stroke-5 rows as .npy, float64; the position of the sketch is lost. Raises SketchTooLargeError, OutputError."""
    _write(path, to_stroke5(sketch, max_len))


def _write(path: AnyPath, rows: FloatArray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, rows)
    write_atomic(path, buffer.getvalue())


def _table(rows: ArrayLike, columns: int) -> Array:
    table = np.asarray(rows)
    if table.ndim != 2 or table.shape[1] != columns or table.dtype.kind not in "fiu":
        raise ShapeError(f"rows have shape {table.shape} and dtype {table.dtype}, expected numbers [n, {columns}]")
    return table


def _cut(points: FloatArray, ends: NDArray[np.bool_], max_points: int | None) -> Sketch:
    return Sketch.from_strokes(np.split(points, np.flatnonzero(ends) + 1), max_points=max_points)
