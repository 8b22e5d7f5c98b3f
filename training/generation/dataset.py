"""Sequences with their photos: of a dataset folder, vector or raster, of photos' edges, and of QuickDraw drawings, whose photos
are themselves.

Raster sketches are traced (training/data/trace.py), and edges (edge_strokes.py). With a cache folder the traces are kept beside
the cached pixels, under a key of the same kind: the settings and the bytes of the source file (training/data/cache.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import EmptySketchError, PairsFormatError
from fgsbir_edge.formats._files import located
from fgsbir_edge.formats.qmul import from_pen_rows, to_pen_rows
from fgsbir_edge.photo import Fit
from fgsbir_edge.preprocess import InputSpec, sketch_pixels
from fgsbir_edge.sketch import Sketch
from training.data.cache import PixelCache, Pixels
from training.data.edges import edge_name
from training.data.folder import IMAGE_SUFFIXES, Pair, PairsFolder
from training.data.quickdraw import QuickDrawSet
from training.data.trace import TraceOptions, trace_drawing
from training.generation.edge_strokes import edge_strokes, longest_strokes
from training.generation.sequences import SequenceOptions, SequenceSet, padded, pooled_scale, prepared, rows_of

log = logging.getLogger("training.generation")

TRACE_FORMAT = 1  # raise when trace.py gives other strokes for the same options


def sequence_set(
    folder: PairsFolder,
    pairs: Sequence[Pair],
    options: SequenceOptions | None = None,
    scale: float | None = None,
    cache: Path | None = None,
) -> SequenceSet:
    """The sequences of `pairs`, in their order; sketches of too many points are left out and named.

    Of edge drawings (pairs named by training.data.edges.edge_key) the longest strokes are taken, and photos without edges are
    left out.

    Args:
        folder: where the pairs' sketches are; raster ones are traced.
        pairs: those of training, or with `scale` any others.
        options: how sketches become rows.
        scale: of the training set, for pairs that are not of it; None: taken from all sketches of these pairs.
        cache: folder for traces; None: traced anew.

    Raises:
        PairsFormatError: no sketch is short enough.
        EmptySketchError: a sketch without a line, named.
        What the folder's readers raise.
    """
    options = options or SequenceOptions()
    sketches, found = [], []
    for pair in pairs:
        edges = edge_name(pair.sketch)
        with located(f"{folder.root}: sketch {pair.sketch!r}"):
            try:
                sketch, traced = vector_sketch(folder, pair.sketch, cache)
            except EmptySketchError:
                if edges is None:
                    raise
                continue
            epsilon = options.epsilon if options.trace_epsilon is None or not traced else options.trace_epsilon
            thinned = prepared(sketch, epsilon)
            sketches.append(thinned if edges is None else prepared(longest_strokes(thinned, options.edge_points), 0.0))
            found.append(pair)
    return _set(sketches, found, options, scale, str(folder.root))


def quickdraw_set(drawings: QuickDrawSet, options: SequenceOptions | None = None, scale: float | None = None) -> SequenceSet:
    """The sequences of QuickDraw drawings; a pair's sketch and photo are both the drawing's key (METHODS B.2). See `pictures`.

    Drawings that an import made a folder of are read by `sequence_set` like any other's.
    Raises PairsFormatError where no drawing is short enough, and EmptySketchError as `sequence_set` does.
    """
    options = options or SequenceOptions()
    pairs = tuple(Pair(key, key, drawings.words[key]) for key in drawings.sketches)
    sketches = []
    for key, sketch in drawings.sketches.items():
        with located(f"drawing {key!r}"):
            sketches.append(prepared(sketch, options.epsilon))
    return _set(sketches, pairs, options, scale, "QuickDraw")


def pictures(sequences: SequenceSet, numbers: Sequence[int], spec: InputSpec) -> Float32:
    """What a generator sees for photos in pre-training: the sequences' own drawings, black on white, float32 [B, 3, S, S]."""
    return sketch_pixels([sequences.sketch(number) for number in numbers], replace(spec, ink="dark"))


def vector_sketch(
    folder: PairsFolder, name: str, cache: Path | None = None, options: TraceOptions | None = None
) -> tuple[Sketch, bool]:
    """A sketch of a folder as strokes, and whether they were traced from a picture. An edge drawing is that of the photo in
    InputSpec's own fit.

    Raises what the folder's readers raise, and EmptySketchError for a picture without a line.
    """
    options = options or TraceOptions()
    if (edges := edge_name(name)) is not None:
        scale, photo = edges
        path, fit = folder.photo_path(photo), InputSpec.photo_fit
        if cache is None:
            return edge_strokes(path, fit, scale, options), True
        key = (TRACE_FORMAT, scale, fit, *astuple(options))
        packed = PixelCache(cache).get(path, "edge trace", key, lambda: _packed(_edges_or_none(path, fit, scale, options)))
        if not len(packed):
            raise EmptySketchError(f"{path}: the photo has no edges")
        return _unpacked(packed), True
    plain = type(folder).sketch is PairsFolder.sketch  # else the sketch may not be a file of its own
    for part in ("sketches", "sketches_extra") if cache is not None and plain else ():
        path = folder.root / part / name
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            assert cache is not None
            settings = (TRACE_FORMAT, *astuple(options))
            packed = PixelCache(cache).get(path, "trace", settings, lambda: _traced(folder, name, options))
            return _unpacked(packed), True
    item = folder.sketch(name)
    if isinstance(item, Sketch):
        return item, False
    return _unpacked(_traced(folder, name, options)), True


def _traced(folder: PairsFolder, name: str, options: TraceOptions) -> Pixels:
    """The points of a traced sketch as the bytes of float32 rows of x, y, pen."""
    item = folder.sketch(name)
    assert not isinstance(item, Sketch)
    return _packed(trace_drawing(item, options))


def _edges_or_none(path: Path, fit: Fit, scale: int, options: TraceOptions) -> Sketch | None:
    try:
        return edge_strokes(path, fit, scale, options)
    except EmptySketchError:
        return None


def _packed(sketch: Sketch | None) -> Pixels:
    """uint8 [P, 12]; no rows for no sketch, so that it is not looked for again."""
    if sketch is None:
        return np.zeros((0, 12), np.uint8)
    rows: Pixels = to_pen_rows(sketch).astype("<f4").view(np.uint8)
    return rows


def _unpacked(rows: Pixels) -> Sketch:
    return from_pen_rows(np.ascontiguousarray(rows).view("<f4"))


def _set(sketches: list[Sketch], pairs: Sequence[Pair], options: SequenceOptions, scale: float | None, where: str) -> SequenceSet:
    """Rows of sketches that are `prepared`."""
    kept = [number for number, sketch in enumerate(sketches) if sketch.num_points <= options.max_points]
    too_long = tuple(pair.sketch for pair, sketch in zip(pairs, sketches, strict=True) if sketch.num_points > options.max_points)
    if not kept:
        raise PairsFormatError(
            f"{where}: none of {len(sketches)} sketches has at most {options.max_points} points after thinning by "
            f"{options.epsilon:g}: use a larger epsilon or max_points"
        )
    if too_long:
        log.info("%s: %d of %d sketches have more than %d points", where, len(too_long), len(sketches), options.max_points)
    unit = pooled_scale(sketches) if scale is None else scale
    rows, lengths = padded([rows_of(sketches[number], unit) for number in kept], options.max_length)
    return SequenceSet(rows, lengths, unit, tuple(pairs[number] for number in kept), too_long)
