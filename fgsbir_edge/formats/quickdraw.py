"""QuickDraw drawings: one JSON object a line (ndjson), as Google publishes them.

``drawing`` holds strokes as [x list, y list] in the simplified files (whole numbers 0 to 255, aligned to the top left) and as
[x list, y list, t list] in the raw ones (screen pixels, milliseconds from the first point).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import FgsbirError, ShapeError, SketchFormatError, SketchTooLargeError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.formats._files import located
from fgsbir_edge.reading import AnyPath, open_binary
from fgsbir_edge.sketch import MAX_POINTS, Sketch

MAX_LINE_BYTES = 64 * 2**20
_SIDE = 255.0  # units of the simplified files
_TICK_MS = 20.0  # between points that nobody timed


@dataclass(frozen=True, eq=False)
class QuickDrawing:
    """One drawing and what the file says about it.

    Args:
        sketch: its strokes, in the file's units.
        word: what the drawer was asked to draw.
        key_id: the drawing's number.
        recognized: whether the game guessed it.
        times: [P] float64 milliseconds for each point, or None where the file has none.
    """

    sketch: Sketch
    word: str = ""
    key_id: str = ""
    recognized: bool = True
    times: NDArray[np.float64] | None = None


def iter_quickdraw(
    path: AnyPath, max_points: int | None = MAX_POINTS, on_error: Callable[[FgsbirError], None] | None = None
) -> Iterator[QuickDrawing]:
    """Yield the drawings of an ndjson file, one line in memory at a time; blank lines are passed over.

    Args:
        on_error: called with the error of a bad line, which is then passed over; without it the error is raised.

    Raises:
        SketchFormatError: a line that is not such a JSON object; the message names file and line.
        What Sketch raises, named likewise.
        UnreadableImageError: the file is missing or cannot be opened.
    """
    with open_binary(path) as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if not line.strip():
                continue
            try:
                with located(f"{os.fspath(path)}:{number}"):
                    if len(line) > MAX_LINE_BYTES:
                        raise SketchTooLargeError(f"line of more than {MAX_LINE_BYTES} bytes: one drawing belongs on each line")
                    drawing = _parsed(line, max_points)
            except FgsbirError as error:
                if on_error is None or len(line) > MAX_LINE_BYTES:  # after an overlong line there is no telling where one starts
                    raise
                on_error(error)
                continue
            yield drawing


def read_quickdraw(path: AnyPath, index: int = 0, max_points: int | None = MAX_POINTS) -> QuickDrawing:
    """Read the drawing of that index, from 0, in an ndjson file.

    Raises what iter_quickdraw raises, and SketchFormatError if the file has no drawing of that index.
    """
    drawing = next(islice(iter_quickdraw(path, max_points), index, None), None)
    if drawing is None:
        raise SketchFormatError(f"{os.fspath(path)}: no drawing {index}, counted from 0: choose a smaller number")
    return drawing


def write_quickdraw(path: AnyPath, drawings: Iterable[QuickDrawing | Sketch], *, raw: bool = False) -> None:
    """Write drawings as ndjson.

    Simplified drawings are aligned to the top left, scaled to 0..255 and rounded; that leaves a drawing of such a file as it is.
    The published ones are thinned as well: call ``sketch.simplified(2.0)`` at that scale for the same. Raw drawings keep their
    coordinates; where there are no times, points get one every 20 ms, since the format cannot leave them out.

    Raises EmptySketchError for a simplified drawing whose points all coincide, and OutputError.
    """
    lines = [_line(item if isinstance(item, QuickDrawing) else QuickDrawing(item), raw) for item in drawings]
    write_atomic(path, "".join(lines).encode())


def _parsed(line: bytes, max_points: int | None) -> QuickDrawing:
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SketchFormatError(f"not a line of JSON ({error}): expected one QuickDraw object on each line") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("drawing"), list):
        raise SketchFormatError('no list "drawing": expected a QuickDraw object such as {"word": "cat", "drawing": [[[x], [y]]]}')
    strokes = [_stroke(stroke, number) for number, stroke in enumerate(entry["drawing"])]
    strokes = [stroke for stroke in strokes if len(stroke)]
    timed = bool(strokes) and all(stroke.shape[1] == 3 for stroke in strokes)
    return QuickDrawing(
        sketch=Sketch.from_strokes(strokes, max_points=max_points),
        word=str(entry.get("word", "")),
        key_id=str(entry.get("key_id", "")),
        recognized=bool(entry.get("recognized", True)),
        times=np.concatenate([stroke[:, 2] for stroke in strokes]) if timed else None,
    )


def _stroke(stroke: Any, number: int) -> NDArray[np.float64]:
    """Return the columns x, y and, if there, t of one stroke: [n, 2 or 3]."""
    problem = SketchFormatError(f"stroke {number} is not [x list, y list] or [x list, y list, t list] of one length")
    if not isinstance(stroke, list) or len(stroke) not in {2, 3}:
        raise problem
    try:
        columns = np.array(stroke)
    except ValueError:
        raise problem from None
    if columns.ndim != 2 or columns.dtype.kind not in "fiu":
        raise problem
    points: NDArray[np.float64] = columns.T.astype(np.float64)
    return points


def _line(drawing: QuickDrawing, raw: bool) -> str:
    sketch, times = drawing.sketch, drawing.times
    if raw:
        if times is None:
            times = _TICK_MS * np.arange(sketch.num_points, dtype=np.float64)
        if times.shape != (sketch.num_points,):
            raise ShapeError(f"times have shape {times.shape}, expected one for each of {sketch.num_points} points")
        table = np.column_stack([sketch.points, times])
    else:
        aligned = sketch.centred(_SIDE, _SIDE).points
        table = np.rint(aligned - aligned.min(axis=0)).astype(np.int64)
    strokes = [stroke.T.tolist() for stroke in np.split(table, sketch.offsets[1:-1])]
    entry = {"word": drawing.word, "recognized": drawing.recognized, "key_id": drawing.key_id, "drawing": strokes}
    return json.dumps(entry, separators=(",", ":")) + "\n"
