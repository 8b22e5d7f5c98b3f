"""Rasterisers side by side: this project's, the papers' algorithm, Pillow, OpenCV, aggdraw, cairo, skia, and writing alone.

``python -m benchmarks.raster [--data DIR] [--rounds 15] [--quick] [--out FILE] [--compare OLD]``. All ChairV2 sketches at 256x256
where a data folder is at hand (--data or FGSBIR_DATA), else traces of the bundled drawings. One thread for everyone unless a row
says otherwise. Every answer is checked before anything is timed; competitors take turns; figures are microseconds per sketch.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import limits
from benchmarks.compare import comparison
from benchmarks.raster_canvas import canvas
from benchmarks.raster_field import ALL, BLOCK, FLOATS, GROUPS, Field
from benchmarks.raster_fit import fit
from benchmarks.raster_gate import Gate
from benchmarks.raster_peers import PAPERS, SAME, Peer, peers
from benchmarks.raster_prefixes import prefixes
from benchmarks.raster_targets import judge
from benchmarks.record import RESULTS, libraries, one_thread_a_library, write
from benchmarks.rounds import Report, race
from benchmarks.sketches import SIDE, load
from benchmarks.tables import text

LIBRARIES = ("numpy", "scipy", "pillow", "opencv-python-headless", "aggdraw", "pycairo", "skia-python")
QUICK = 4  # sketches of a smoke test


@dataclass(frozen=True)
class Options:
    """What to run. ``rounds`` 0 checks answers and times one round of a few sketches: a smoke test, its figures mean nothing."""

    data: str | None = None
    rounds: int = 15
    quick: bool = False


def run(options: Options) -> dict[str, Any]:
    """Everything this benchmark finds, as it goes into JSON."""
    report = Report()
    sketches = load(options.data, QUICK if options.quick else None)
    gate, rounds = Gate(sketches), 1 if options.quick else options.rounds
    contestants, report.skipped = peers()
    for (source, size), group in GROUPS.items():
        _drawn(report, group, Field(sketches, gate, size, source), contestants, rounds)
    _all_in_one_call(report, Field(sketches, gate, len(sketches)), contestants, rounds)
    for group, dtype in FLOATS.items():
        _normalised(report, group, Field(sketches, gate, BLOCK), contestants, rounds, dtype)
    prefixes(report, sketches, rounds)
    canvas(report, sketches, gate, rounds)
    depends = fit(sketches, rounds)
    judge(report)
    return {
        "question": "vector sketches to pixels, 256x256",
        "sketches": {
            "set": sketches.name,
            "note": sketches.note,
            "count": len(sketches),
            "segments": round(sketches.segments, 1),
        },
        "rounds": rounds,
        "quick": options.quick,
        "libraries": libraries(LIBRARIES),
        "fit": depends,
        **report.figures(),
    }


def _drawn(report: Report, group: str, field: Field, contestants: list[Peer], rounds: int) -> None:
    """Bytes out. The papers' Python takes part once: it is hundreds of times slower, whatever it is given."""
    everyone = field.source == "prepared" and field.size > 1
    chosen = [peer for peer in contestants if everyone or peer.name != PAPERS]
    ours = [
        field.ours(style, threads) for style in ("bresenham", "antialias") for threads in ((1, 2) if field.size > 1 else (1,))
    ]
    limiting = field.limits() if everyone else []
    blank = [field.blank()] if field.source == "prepared" else []
    race(report, group, [*limiting, *map(field.peer, chosen), *blank, *ours], rounds=rounds, calls=len(field.blocks))


def _all_in_one_call(report: Report, field: Field, contestants: list[Peer], rounds: int) -> None:
    """The whole set into one array: more memory than any cache holds."""
    chosen = [field.peer(peer) for peer in contestants if peer.name in SAME]
    ours = [field.ours(style, threads) for style in ("bresenham", "antialias") for threads in (1, 2)]
    race(report, ALL, [*field.limits(), *chosen, field.blank(), *ours], rounds=rounds, turn_ms=40.0)


def _normalised(report: Report, group: str, field: Field, contestants: list[Peer], rounds: int, dtype: type[np.generic]) -> None:
    """Straight into an encoder's input."""
    out = limits.aligned((len(field.blocks[0]), 3, SIDE, SIDE), dtype)
    chosen = [field.peer_normalised(peer, out) for peer in contestants if peer.name == SAME[0]]
    ours = [field.ours_normalised(style, out, threads) for style in ("bresenham", "antialias") for threads in (1, 2)]
    race(report, group, [*field.limits(out), *chosen, *ours], rounds=rounds, calls=len(field.blocks))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.raster", description=__doc__)
    parser.add_argument("--data", help="folder that holds chairv2/strokes.npz; FGSBIR_DATA where not given")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="four sketches, one round: whether everything runs")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/raster.json; --quick writes nothing by default")
    parser.add_argument("--compare", type=Path, help="an earlier result: print ratios of times with their intervals")
    arguments = parser.parse_args()
    one_thread_a_library()
    figures = run(Options(arguments.data, arguments.rounds, arguments.quick))
    out = arguments.out or (None if arguments.quick else RESULTS / "raster.json")
    if out is not None:
        write(out, figures)
    sys.stdout.write(text(figures))
    if arguments.compare:
        sys.stdout.write(comparison(figures, arguments.compare))


if __name__ == "__main__":
    main()
