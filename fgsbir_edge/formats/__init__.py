"""Readers and writers of sketch files; :func:`read_sketch` picks the reader."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fgsbir_edge.errors import SketchFormatError
from fgsbir_edge.formats._files import located
from fgsbir_edge.sketch import MAX_POINTS, Sketch

if TYPE_CHECKING:
    from fgsbir_edge.formats.drawing import Drawing

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_sketch(path: str | os.PathLike[str], max_points: int | None = MAX_POINTS) -> Sketch | Drawing:
    """Read one sketch from a file; the extension (upper or lower case) says what it is.

    ======================================  ==========================================================================
    .svg                                    strokes of an SVG drawing
    .ndjson                                 QuickDraw drawings, simplified or raw
    .pkl, .pickle                           QMUL coordinate pickle
    .npz                                    strokes.npz collection, or a single stroke-3 or stroke-5 array
    .npy                                    stroke-3 or stroke-5 array
    .png, .jpg, .jpeg, .webp, .bmp          raster drawing: the result is a Drawing
    ======================================  ==========================================================================

    A file of several sketches is followed by ``#`` and which one: ``birds.ndjson#3`` is the fourth drawing (the first, if nothing
    is said), ``strokes.npz#KEY`` the one of that key. A file whose own name ends so is read whole.

    Args:
        max_points: refuse vector sketches of more points; None takes any number, in order to simplify them.

    Raises:
        SketchFormatError: another extension, or a file that is not what its extension says.
        EmptySketchError, NonFiniteError, SketchTooLargeError, ShapeError: as Sketch raises them.
        UnreadableImageError: the file is missing or cannot be opened.
        TruncatedImageError, ImageTooLargeError: for raster drawings.
    """
    name, _, item = (os.fspath(path), "", "") if os.path.exists(path) else os.fspath(path).partition("#")
    extension = os.path.splitext(name)[1].lower()
    if extension in _IMAGES:
        from fgsbir_edge.formats.drawing import read_drawing

        return read_drawing(name)
    if extension in {".pkl", ".pickle"}:
        from fgsbir_edge.formats.qmul import read_qmul

        return _chosen(read_qmul(name, max_points), item, name)
    if extension == ".svg":
        from fgsbir_edge.formats.svg import read_svg

        return read_svg(name, max_points)
    if extension == ".ndjson":
        from fgsbir_edge.formats.quickdraw import read_quickdraw

        return read_quickdraw(name, _index(item, name), max_points).sketch
    if extension == ".npy":
        from fgsbir_edge.formats.stroke3 import read_strokes

        return read_strokes(name, max_points)
    if extension == ".npz":
        return _from_npz(name, item, max_points)
    raise SketchFormatError(
        f"{name}: no sketch format has the extension {extension!r}: expected .svg, .ndjson, .npz, .npy, .pkl, .pickle "
        f"or an image ({', '.join(_IMAGES)})"
    )


def _index(item: str, name: str) -> int:
    if item and not item.isdecimal():
        raise SketchFormatError(f"{name}: {item!r} is not the number of a drawing: name one as {name}#3, counted from 0")
    return int(item or 0)


def _from_npz(name: str, item: str, max_points: int | None) -> Sketch:
    from fgsbir_edge.formats._arrays import read_npz
    from fgsbir_edge.formats.qmul import sketches_from_arrays
    from fgsbir_edge.formats.stroke3 import strokes_from_array

    arrays = read_npz(name)
    if len(arrays) == 1:
        return strokes_from_array(next(iter(arrays.values())), name, max_points)
    with located(name):
        return _chosen(sketches_from_arrays(arrays, max_points), item, name)


def _chosen(sketches: Mapping[str, Sketch], key: str, name: str) -> Sketch:
    if key in sketches:
        return sketches[key]
    if not key and len(sketches) == 1:
        return next(iter(sketches.values()))
    some = ", ".join(list(sketches)[:3])
    got = f"no sketch of key {key!r}" if key else f"{len(sketches)} sketches"
    raise SketchFormatError(f"{name}: {got}: name one as {name}#KEY, where the keys are {some or 'none at all'} ...")
