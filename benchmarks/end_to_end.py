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
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.adapt_task import PAIRS
from benchmarks.compare import comparison, read_result
from benchmarks.end_to_end_place import PAPERS_OPTIONS, PHOTOS, STEPS, TOP, Place
from benchmarks.end_to_end_starts import Starts
from benchmarks.end_to_end_tables import (
    ADAPT,
    ADAPT_PAPERS,
    ADAPTED,
    COMPILED,
    ENCODE,
    HEAD,
    OURS,
    RASTER,
    RESEARCH,
    SEARCH,
    WHOLE,
    WHOLE_ADAPT,
    WHOLE_WALL,
    text,
    write_plot,
)
from benchmarks.record import RESULTS, libraries, one_thread_a_library, write
from benchmarks.rounds import Competitor, Report, Verdict, race
from fgsbir_edge.adapt import AdaptResult, adapt
from fgsbir_edge.arrays import Float32
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.backends import BACKENDS, CPU
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.head import Adapter
from fgsbir_edge.preprocess import sketch_pixels

if TYPE_CHECKING:
    from benchmarks.end_to_end_torch import Research

PLOT = Path(__file__).parents[1] / "docs" / "images" / "end_to_end.svg"
QUESTION = "strokes to photos found, and to an adapter in force"
LEAST_COSINE, LEAST_FOUND = 0.999, 0.3
_EVICTED = 16  # adapters that take turns: more than a gallery keeps the photos' embeddings of


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
        for group, competitors in _stages(place, peers).items():
            race_all(group, competitors, clock=time.thread_time_ns)
        race_all(WHOLE_ADAPT, _adaptations(place, peers), clock=time.thread_time_ns)
        whole = [_query_of(OURS, place, place.engine), *(_peer_query(name, place, peer) for name, peer in peers.items())]
        race_all(WHOLE, whole, clock=time.thread_time_ns)
        race_all(WHOLE_WALL, [*whole, *_backends(report, place)])
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


def _stages(place: Place, peers: dict[str, Research]) -> dict[str, list[Competitor]]:
    """Competitors of each stage; each stage is given what the papers' or our own stage before it makes, whichever it takes."""
    engine, head, count = place.engine, place.head, len(place.sketches)
    spec = engine.sketch_input
    pixels = [sketch_pixels([sketch], spec) for sketch in place.sketches]
    features = engine.encode_sketches(place.sketches)
    rows = [features[i : i + 1] for i in range(count)]
    result = engine.adapt_features(*place.shown)
    papers = partial(adapt, head, *place.shown, options=PAPERS_OPTIONS)
    both = [_scaled(papers(), 1 + 0.001 * number) for number in range(_EVICTED)]
    ours: dict[str, list[tuple[str, Callable[[int], object], Callable[[], Verdict] | None]]] = {
        RASTER: [(OURS, lambda i: sketch_pixels([place.sketches[i % count]], spec), None)],
        ENCODE: [(OURS, lambda i: engine.sketch_encoder.encode(pixels[i % count]), None)],
        HEAD: [(OURS, lambda i: head.embed(rows[i % count]), None)],
        SEARCH: [(OURS, lambda i: engine.gallery.search(rows[i % count], TOP, head=head), partial(_nearest, place, features))],
        ADAPT_PAPERS: [(OURS, lambda _: papers(), partial(_as_papers, place, papers))],
        ADAPT: [(f"{OURS}, with the guard", lambda _: engine.adapt_features(*place.shown), partial(_in_force, result))],
        ADAPTED: [
            (
                f"{OURS}, sketches moved",
                lambda i: engine.gallery.search(rows[i % count], TOP, head=head, adapter=result.adapter),
                None,
            ),
            (
                f"{OURS}, photos moved too",
                lambda i: engine.gallery.search(rows[i % count], TOP, head=head, adapter=both[i % _EVICTED]),
                None,
            ),
        ],
    }
    stages = {group: [Competitor(name, work, check=check) for name, work, check in each] for group, each in ours.items()}
    for name, peer in peers.items():
        for group, competitor in _peer_stages(name, place, peer, (pixels, features)).items():
            stages[group].append(competitor)
    return stages


def _peer_stages(name: str, place: Place, peer: Research, given: tuple[list[Float32], Float32]) -> dict[str, Competitor]:
    """The stages of research code; torch.compile takes part where something is compiled."""
    import torch

    count, solve, task = len(place.sketches), peer.adapt(place.task), place.task
    inputs = [torch.from_numpy(one).contiguous(memory_format=torch.channels_last) for one in given[0]]
    rows = [torch.from_numpy(given[1][i : i + 1]) for i in range(count)]
    same_network = place.engine.bundle.sketch is None
    agrees = partial(_same_rows, lambda: peer.encode(inputs[0]).numpy(), given[1][:1]) if same_network else None
    found = {
        ENCODE: Competitor(name, lambda i: peer.encode(inputs[i % count]), check=agrees),
        ADAPT_PAPERS: Competitor(name, lambda _: solve(), check=lambda: task.verdict(solve(), STEPS)),
    }
    if name == COMPILED:
        return found
    answer, drawn, wanted = solve(), sketch_pixels(place.sketches[:1], place.engine.sketch_input), place.head.embed(given[1][:1])
    return {
        **found,
        RASTER: Competitor(
            name,
            lambda i: peer.rasterise(place.sketches[i % count]),
            check=lambda: _judged(
                float(np.corrcoef(peer.rasterise(place.sketches[0]).numpy().ravel(), drawn.ravel())[0, 1]), 0.5
            ),
        ),
        HEAD: Competitor(
            name, lambda i: peer.embed(rows[i % count]), check=partial(_same_rows, lambda: peer.embed(rows[0]), wanted)
        ),
        SEARCH: Competitor(
            name,
            lambda i: peer.search(rows[i % count]),
            check=lambda: _nearest(place, given[1], [peer.search(row) for row in rows]),
        ),
        ADAPTED: Competitor(name, lambda i: peer.search_adapted(rows[i % count], answer)),
    }


def _query_of(name: str, place: Place, engine: Engine) -> Competitor:
    def check() -> Verdict:
        found = [[hit.name for hit in engine.search(sketch, TOP)] for sketch in place.sketches]
        return _found(place, found)

    return Competitor(name, lambda i: engine.search(place.sketches[i % len(place.sketches)], TOP), check=check)


def _adaptations(place: Place, peers: dict[str, Research]) -> list[Competitor]:
    """Five drawings in strokes, and photos of the gallery, to what is searched with from then on."""
    engine, shown = place.engine, place.sketches[:PAIRS]

    def ours() -> AdaptResult:
        return engine.adapt_features(engine.encode_sketches(shown), engine.photo_features(place.names[:PAIRS]))

    found = [Competitor(OURS, lambda _: ours(), check=partial(_in_force, ours()))]
    return [*found, *(Competitor(name, _adaptation(place, peer)) for name, peer in peers.items() if name == RESEARCH)]


def _adaptation(place: Place, peer: Research) -> Callable[[int], object]:
    import torch

    photos, task = place.shown[1], place.task

    def solve(_: int) -> object:
        sketches = peer.encode(torch.cat([peer.rasterise(sketch) for sketch in place.sketches[:PAIRS]])).numpy()
        task.__dict__["support"] = np.concatenate([sketches, photos])
        return peer.adapt(task)()

    return solve


def _peer_query(name: str, place: Place, peer: Research) -> Competitor:
    def check() -> Verdict:
        known = [entry.name for entry in place.engine.gallery.index.entries]
        return _found(place, [[known[row] for row in peer.query(sketch)] for sketch in place.sketches])

    return Competitor(name, lambda i: peer.query(place.sketches[i % len(place.sketches)]), check=check)


def _backends(report: Report, place: Place) -> list[Competitor]:
    """The whole way on every other backend that opens here; the others are named."""
    found = []
    for name in BACKENDS:
        if name == CPU:
            continue
        try:
            engine = Engine.open(bundle=place.engine.bundle, gallery=place.gallery, backend=name, threads=1)
        except FgsbirError as error:
            report.skipped.append({"name": f"{OURS}, {name}", "reason": " ".join(str(error).split())})
        else:
            found.append(_query_of(f"{OURS}, {name}", place, engine))
    return found


def _found(place: Place, names: list[list[str]]) -> Verdict:
    share = float(np.mean([own in ten for own, ten in zip(place.names, names, strict=True)]))
    return Verdict(share >= LEAST_FOUND, f"the photo meant among ten for {share:.0%}")


def _nearest(place: Place, features: Float32, found: list[list[int]] | None = None) -> Verdict:
    """Whether the ten found are those that float64 finds; None asks ours."""
    head, photos = place.head, place.photos
    weight, bias = head.weight.astype(np.float64), head.bias.astype(np.float64)
    embedded = [rows.astype(np.float64) @ weight.T + bias for rows in (features, photos)]
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in embedded]
    order = np.argsort(-(units[0] @ units[1].T), axis=1, kind="stable")[:, :TOP]
    if found is None:
        positions = place.engine.gallery.index.positions
        hits = place.engine.gallery.search(features, TOP, head=head)
        found = [[positions[hit.name] for hit in ten] for ten in hits]
    same = sum(len({*ten} & {*wanted}) for ten, wanted in zip(found, order.tolist(), strict=True))
    return Verdict(same >= 0.999 * order.size, f"{same} of {order.size}")


def _as_papers(place: Place, solve: Callable[[], AdaptResult]) -> Verdict:
    adapter = solve().adapter
    head, change = place.head, adapter.coefficients
    return place.task.verdict((head.weight + change @ adapter.support, head.bias + change.sum(axis=1)), STEPS)


def _in_force(result: AdaptResult) -> Verdict:
    return Verdict(True, result.status)


def _same_rows(call: Callable[[], Any], wanted: Float32) -> Verdict:
    own = np.asarray(call())
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(wanted, axis=1)
    return _judged(float(np.min(np.sum(own * wanted, axis=1) / lengths)), LEAST_COSINE)


def _judged(likeness: float, least: float) -> Verdict:
    return Verdict(likeness >= least, f"cosine {likeness:.4f}")


def _scaled(result: AdaptResult, factor: float) -> Adapter:
    return replace(result.adapter, coefficients=result.adapter.coefficients * np.float32(factor))


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
