"""Collections of sketches keyed by name: the QMUL coordinate pickles, and the same rows in a strokes.npz.

Both hold rows (x, y, pen): absolute coordinates, and pen = 1 on the last point of a stroke (METHODS A.3). QMUL keys are
``/train/<photo id>_<k>`` and ``/test/<photo id>_<k>``.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgsbir_edge.errors import ShapeError, SketchFormatError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.formats._arrays import read_npz
from fgsbir_edge.formats._files import located, read_bytes
from fgsbir_edge.formats._unpickle import PlainArray, loads
from fgsbir_edge.reading import AnyPath
from fgsbir_edge.sketch import MAX_POINTS, Sketch


def from_pen_rows(rows: ArrayLike, max_points: int | None = MAX_POINTS) -> Sketch:
    """Build a sketch from rows [P, 3] of x, y, pen; pen above 0.5 ends a stroke, and so does the last row.

    Raises what Sketch raises.
    """
    table = np.asarray(rows)
    if table.ndim != 2 or table.shape[1] != 3 or table.dtype.kind not in "fiu":
        raise ShapeError(f"rows have shape {table.shape} and dtype {table.dtype}, expected numbers [P, 3]: x, y, pen")
    return Sketch.from_strokes(np.split(table[:, :2], np.flatnonzero(table[:, 2] > 0.5) + 1), max_points=max_points)


def to_pen_rows(sketch: Sketch) -> NDArray[np.float64]:
    """Return the rows [P, 3] float64 of x, y, pen; pen is 1 on the last point of each stroke and 0 elsewhere."""
    rows = np.column_stack([sketch.points, np.zeros(sketch.num_points)])
    rows[sketch.offsets[1:] - 1, 2] = 1
    return rows


def read_qmul(path: AnyPath, max_points: int | None = MAX_POINTS) -> dict[str, Sketch]:
    """Read a QMUL coordinate pickle: a dict of key to rows [P, 3]. Only arrays of numbers and plain containers are unpickled.

    Raises:
        SketchFormatError: the pickle names any other class or function, is truncated, or is not such a dict.
        What Sketch raises, with the file and key in front.
        UnreadableImageError, SketchTooLargeError: the file is missing, cannot be opened, or is longer than 256 MiB.
    """
    with located(os.fspath(path)):
        table: Any = loads(read_bytes(path))
        if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
            raise SketchFormatError(f"pickle holds a {type(table).__name__}, expected a dict of key to rows of x, y, pen")
        sketches = {}
        for key, entry in table.items():
            with located(key):
                if not isinstance(entry, PlainArray) or entry.value is None:
                    raise SketchFormatError(f"a {type(entry).__name__} where rows of x, y, pen were expected: save plain arrays")
                sketches[key] = from_pen_rows(entry.value, max_points)
    return sketches


def write_qmul(path: AnyPath, sketches: Mapping[str, Sketch]) -> None:
    """Write a QMUL coordinate pickle: protocol 2, a dict of key to float64 rows [P, 3]. Raises OutputError.

    Written under NumPy 2 it is readable under NumPy 1.26 and later (and by read_qmul anywhere).
    """
    write_atomic(path, pickle.dumps({key: to_pen_rows(sketch) for key, sketch in sketches.items()}, protocol=2))


def read_strokes_npz(path: AnyPath, max_points: int | None = MAX_POINTS) -> dict[str, Sketch]:
    """Read a strokes.npz: keys [S] text, offsets [S+1] integers, points [P, 3] rows of x, y, pen of all sketches.

    Raises:
        SketchFormatError: not such a file: damaged, an array missing, or arrays that do not fit each other.
        What Sketch raises, with the file and key in front.
        UnreadableImageError, SketchTooLargeError: the file is missing, cannot be opened, or is longer than 256 MiB.
    """
    arrays = read_npz(path)
    with located(os.fspath(path)):
        return sketches_from_arrays(arrays, max_points)


def sketches_from_arrays(arrays: Mapping[str, NDArray[Any]], max_points: int | None = MAX_POINTS) -> dict[str, Sketch]:
    """Cut the arrays of a strokes.npz into sketches. Raises as read_strokes_npz does."""
    if missing := {"keys", "offsets", "points"} - set(arrays):
        raise SketchFormatError(f"no array {min(missing)!r}, expected keys [S], offsets [S+1] and points [P, 3]")
    keys, offsets, points = arrays["keys"], arrays["offsets"], arrays["points"]
    if keys.dtype.kind != "U" or keys.ndim != 1 or len(set(keys.tolist())) != len(keys):
        raise SketchFormatError(f"keys have shape {keys.shape} and dtype {keys.dtype}, expected [S] different names")
    if offsets.shape != (len(keys) + 1,) or offsets.dtype.kind not in "iu" or points.ndim != 2:
        raise SketchFormatError(
            f"offsets of shape {offsets.shape} and dtype {offsets.dtype} do not fit {len(keys)} keys, expected integers [S+1]"
        )
    bounds = offsets.tolist()
    if bounds[0] != 0 or bounds[-1] != len(points) or any(a > b for a, b in pairwise(bounds)):
        raise SketchFormatError(f"offsets do not cut {len(points)} points, expected to rise from 0 to the number of points")
    sketches = {}
    for key, first, last in zip(keys.tolist(), bounds[:-1], bounds[1:], strict=True):
        with located(key):
            sketches[key] = from_pen_rows(points[first:last], max_points)
    return sketches


def write_strokes_npz(path: AnyPath, sketches: Mapping[str, Sketch]) -> None:
    """Write a strokes.npz with float32 points, as the data folders hold it. Equal input gives equal bytes. Raises OutputError."""
    rows = [to_pen_rows(sketch).astype(np.float32) for sketch in sketches.values()]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        keys=np.array(list(sketches), dtype=np.str_),
        offsets=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        points=np.concatenate([np.empty((0, 3), np.float32), *rows]),
    )
    write_atomic(path, buffer.getvalue())
