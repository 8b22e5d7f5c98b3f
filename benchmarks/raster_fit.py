"""What the time of a sketch goes with: its segments, the pixels of its lines, the rows it spans, or neither."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from benchmarks import limits
from benchmarks.raster_field import OURS, cut
from benchmarks.raster_peers import LINE_WIDTH
from benchmarks.samples import significant
from benchmarks.sketches import SIDE, SketchSet
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.sketch import SketchBatch

REPEATS = 16  # of a sketch in a call, so that calling hardly counts
NAMES = (
    "whatever is drawn, µs",
    "a segment, ns",
    "a pixel of line, ns",
    "a row from top to bottom, ns",
    "share of the variance explained",
)


def fit(sketches: SketchSet, rounds: int) -> dict[str, dict[str, float]]:
    """Least squares over the sketches, each by its shortest of ``rounds`` calls: what NAMES say, for both styles."""
    lines = [np.rint(sketch.points) for sketch in sketches.sketches]
    segments = [sketch.num_points - sketch.num_strokes for sketch in sketches.sketches]
    pixels = [
        sum(np.abs(np.diff(np.rint(s), axis=0)).max(axis=1, initial=0).sum() for s in strokes) for strokes in sketches.arrays
    ]
    rows = [np.ptp(points[:, 1]) for points in lines]
    causes = np.column_stack([np.ones(len(sketches)), segments, pixels, rows]).astype(np.float64)
    out = limits.aligned((REPEATS, SIDE, SIDE), np.uint8)
    found = {}
    for style, whole in (("bresenham", sketches.rounded), ("antialias", sketches.packed)):
        spec = RasterSpec(SIDE, SIDE, "bresenham" if style == "bresenham" else "antialias", LINE_WIDTH)
        batches = [_repeated(cut(whole, range(index, index + 1))) for index in range(len(sketches))]
        times = np.full(len(batches), np.inf)
        for _ in range(rounds):
            for index, batch in enumerate(batches):
                times[index] = min(times[index], _microseconds(batch, spec, out))
        found[OURS[spec.style]] = _solved(causes, times)
    return found


def _repeated(sketch: SketchBatch) -> SketchBatch:
    strokes, points = len(sketch.stroke_offsets) - 1, len(sketch.points)
    starts = [sketch.stroke_offsets[:-1] + turn * points for turn in range(REPEATS)]
    return SketchBatch(
        np.tile(sketch.points, (REPEATS, 1)),
        np.concatenate([*starts, [REPEATS * points]]),
        np.arange(REPEATS + 1, dtype=np.int64) * strokes,
    )


def _microseconds(batch: SketchBatch, spec: RasterSpec, out: NDArray[np.uint8]) -> float:
    start = time.perf_counter_ns()
    rasterize(batch, spec, scale=False, out=out)
    return (time.perf_counter_ns() - start) / (1e3 * REPEATS)


def _solved(causes: NDArray[np.float64], times: NDArray[np.float64]) -> dict[str, float]:
    factors = np.linalg.lstsq(causes, times, rcond=None)[0]
    left = times - causes @ factors
    explained = 1 - float(left @ left) / max(float(((times - times.mean()) ** 2).sum()), 1e-30)
    values = [factors[0], *(1e3 * factors[1:]), explained]
    return {name: significant(value, 3) for name, value in zip(NAMES, values, strict=True)}
