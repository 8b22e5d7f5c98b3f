"""From strokes to the photos found, and to an adapter in force: every stage, beside the same as research code does it.

``python -m benchmarks.end_to_end [--bundle DIR] [--rounds 30] [--no-compile] [--out FILE]`` measures and writes a result;
``--compare OLD NEW`` puts two results side by side and measures nothing. A gallery of 2,000 photos, one thread, drawings in
strokes. Research code is the papers' Python rasteriser, PyTorch eager and an inner loop by autograd, on the same weights, and the
same through torch.compile. Every answer is checked before it is timed. Times of stages are those of the processor, which other
processes hardly change; the whole way is timed by the clock on the wall too, and so are processes from their start.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.adapt_task import PAIRS
from benchmarks.compare import comparison, read_result
from benchmarks.end_to_end_place import PHOTOS, Place
from benchmarks.end_to_end_stages import adaptations, backends, peer_query, query_of, stages
from benchmarks.end_to_end_starts import Starts
from benchmarks.end_to_end_tables import (
    COMPILED,
    OURS,
    RESEARCH,
    WHOLE,
    WHOLE_ADAPT,
    WHOLE_WALL,
    text,
    write_plot,
)
from benchmarks.record import RESULTS, libraries, one_thread_a_library, write
from benchmarks.rounds import Report, race
from fgsbir_edge.bundle import Bundle

if TYPE_CHECKING:
    from benchmarks.end_to_end_torch import Research

PLOT = Path(__file__).parents[1] / "docs" / "images" / "end_to_end.svg"
QUESTION = "strokes to photos found, and to an adapter in force"


@dataclass(frozen=True)
class Options:
    """``compiled``: torch.compile too, whose first calls take minutes. ``starts``: processes of each kind."""

    rounds: int = 30
    turn_ms: float = 60.0
    compiled: bool = True
    starts: int = 9
    photos: int = PHOTOS
    drawings: int = 32


def run(bundle: Bundle, options: Options) -> dict[str, Any]:
    """All figures. Times are microseconds."""
    report = Report()
    with tempfile.TemporaryDirectory() as folder, Place.make(Path(folder), bundle, options.photos, options.drawings) as place:
        peers, first_calls = _peers(report, place, options)
        race_all = partial(race, report, rounds=options.rounds, turn_ms=options.turn_ms)
        for group, competitors in stages(place, peers).items():
            race_all(group, competitors, clock=time.thread_time_ns)
        race_all(WHOLE_ADAPT, adaptations(place, peers), clock=time.thread_time_ns)
        whole = [query_of(OURS, place, place.engine), *(peer_query(name, place, peer) for name, peer in peers.items())]
        race_all(WHOLE, whole, clock=time.thread_time_ns)
        race_all(WHOLE_WALL, [*whole, *backends(report, place)])
        Starts(Path(folder), place).race(report, options.starts, research=bool(peers))
        sketches = place.sketches
        drawn = {"count": len(sketches), "segments": float(np.mean([one.num_points - one.num_strokes for one in sketches]))}
    return {
        "question": QUESTION,
        "bundle": {"name": bundle.name, "encoder": bundle.encoder_sha256, "sketch encoder": bundle.for_sketches.encoder_sha256},
        "sketches": {**drawn, "set": "bundled drawings", "note": "their lines traced"},
        "photos": {"count": options.photos, "note": "32 shipped photos, the others random unit vectors"},
        "rounds": options.rounds,
        "quick": options.photos < PHOTOS,
        "first_call_seconds": first_calls,
        "libraries": libraries(("numpy", "pillow", "onnxruntime", "torch")),
        **report.figures(),
    }


def _peers(report: Report, place: Place, options: Options) -> tuple[dict[str, Research], dict[str, float]]:
    """Research code by name, and the seconds of the first calls of torch.compile; what cannot run is named in the report."""
    try:
        from benchmarks.end_to_end_torch import Research, released_state

        state = released_state(place.engine.bundle)
    except (ImportError, KeyError, RuntimeError) as error:
        report.skipped.append(
            {"name": RESEARCH, "reason": f"{type(error).__name__}: {error}; pip install '.[bench,train,export]'"}
        )
        return {}, {}
    make = partial(Research, place.engine.bundle, state, place.photos)
    found = {RESEARCH: make()}
    if not options.compiled:
        report.skipped.append({"name": COMPILED, "reason": "--no-compile"})
        return found, {}
    began = time.perf_counter()
    try:
        compiled = make(compiled=True)
        compiled.query(place.sketches[0])
    except Exception as error:  # a compiler may fail in any way; all else is measured all the same
        report.skipped.append({"name": COMPILED, "reason": f"{type(error).__name__}: {error}".splitlines()[0]})
        return found, {}
    return {**found, COMPILED: compiled}, {"network": round(time.perf_counter() - began, 1)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--bundle", type=Path, help="model folder (the one in the package)")
    parser.add_argument("--rounds", type=int, default=Options.rounds)
    parser.add_argument("--starts", type=int, default=Options.starts, help="processes of each kind that are started")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: its first calls take minutes")
    parser.add_argument("--quick", action="store_true", help="50 photos, one round: whether everything runs")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/end_to_end.json; --quick writes nothing by default")
    parser.add_argument("--plot", type=Path, help="the stages as bars (SVG); default: docs/images/end_to_end.svg, --quick: none")
    parser.add_argument(
        "--compare", type=Path, nargs=2, metavar=("OLD", "NEW"), help="ratios of two results; nothing is measured"
    )
    arguments = parser.parse_args()
    if arguments.compare:
        sys.stdout.write(comparison(read_result(arguments.compare[1]), arguments.compare[0]))
        return
    one_thread_a_library()
    bundle = Bundle.default() if arguments.bundle is None else Bundle.load(arguments.bundle)
    quick = Options(1, 1.0, False, 1, 50, PAIRS)
    figures = run(
        bundle,
        quick if arguments.quick else Options(arguments.rounds, compiled=not arguments.no_compile, starts=arguments.starts),
    )
    for path, default, put in ((arguments.out, RESULTS / "end_to_end.json", write), (arguments.plot, PLOT, write_plot)):
        chosen = path or (None if arguments.quick else default)
        if chosen is not None:
            put(chosen, figures)
    sys.stdout.write(text(json.loads(json.dumps(figures))))


if __name__ == "__main__":
    main()
