"""Growing drawings: 17 prefixes of a sketch in one call, and a canvas to which segments are added one by one."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from benchmarks import limits
from benchmarks.raster_field import BYTES
from benchmarks.raster_peers import papers_prefixes
from benchmarks.rounds import Competitor, Report, Verdict, race
from benchmarks.sketches import SIDE, SketchSet
from fgsbir_edge._reference import raster as twin
from fgsbir_edge.raster import RasterSpec, rasterize, rasterize_prefixes
from fgsbir_edge.sketch import Sketch, pack

COUNT = 17  # prefixes of a sketch (METHODS D.1, variant c)
SLOW = 48  # sketches that the Python variant draws: it takes 15 ms each
GROUP = "17 prefixes"
ONE, ALL, APART = "ours, the whole sketch alone", "ours, 17 prefixes in one call", "ours, 17 prefixes as images of their own"
PAPERS = "papers' Python, 17 prefixes"

Images = NDArray[np.uint8]


def prefixes(report: Report, sketches: SketchSet, rounds: int) -> None:
    """Time 17 prefixes of a sketch against one image of it, a sketch a call. Figures are per sketch."""
    count = min(SLOW, len(sketches))
    chosen = [sketches.sketches[index * len(sketches) // count] for index in range(count)]
    out = limits.aligned((COUNT, SIDE, SIDE), np.uint8)
    spec = RasterSpec(SIDE, SIDE)
    whole = [pack([sketch], round_points=True) for sketch in chosen]
    parts = [pack(sketch.prefixes(COUNT), round_points=True) for sketch in chosen]

    def alone(call: int) -> None:
        rasterize(whole[call % count], spec, scale=False, out=out[-1:])

    def together(call: int) -> None:
        rasterize_prefixes(whole[call % count], spec, COUNT, scale=False, out=out)

    def apart(call: int) -> None:
        rasterize(parts[call % count], spec, scale=False, out=out)

    competitors = [
        Competitor(f"writing alone, {COUNT} images: {name}", way, 1, None, COUNT * BYTES, 1, True)
        for name, way in limits.writers(out).items()
    ]
    competitors += [
        Competitor(ONE, alone, 1, lambda: _check(chosen, alone, out, last=True), BYTES),
        Competitor(ALL, together, 1, lambda: _check(chosen, together, out), COUNT * BYTES),
        Competitor(APART, apart, 1, lambda: _check(chosen, apart, out), COUNT * BYTES),
    ]
    if find_spec("scipy"):
        strokes = [[np.array(stroke) for stroke in sketch.strokes] for sketch in chosen]
        counts = [[prefix.num_points for prefix in sketch.prefixes(COUNT)] for sketch in chosen]

        def papers(call: int) -> None:
            papers_prefixes(strokes[call % count], counts[call % count], out)

        competitors.append(Competitor(PAPERS, papers, 1, lambda: _check(chosen, papers, out), COUNT * BYTES))
    race(report, GROUP, competitors, rounds=rounds, calls=count)


def _check(chosen: list[Sketch], run: Callable[[int], None], out: Images, last: bool = False) -> Verdict:
    """Every image must be the twin's of that prefix; with ``last`` only the whole sketch is drawn."""
    wrong = images = 0
    for call, sketch in enumerate(chosen):
        out.fill(7)
        run(call)
        wanted = [sketch] if last else sketch.prefixes(COUNT)
        for image, prefix in zip(out[-len(wanted) :], wanted, strict=True):
            images += 1
            wrong += not np.array_equal(image, twin.bresenham(prefix.strokes, SIDE, SIDE))
    return Verdict(not wrong, f"{wrong} of {images} images differ" if wrong else f"same pixels, {images} images")
