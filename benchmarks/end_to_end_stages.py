"""The competitors of ``end_to_end.py``, stage by stage, and what their answers are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.adapt_task import PAIRS
from benchmarks.end_to_end_place import PAPERS_OPTIONS, STEPS, TOP, Place
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
)
from benchmarks.rounds import Competitor, Report, Verdict
from fgsbir_edge.adapt import AdaptResult, adapt
from fgsbir_edge.arrays import Float32
from fgsbir_edge.encoder.backends import BACKENDS, CPU
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.head import Adapter
from fgsbir_edge.preprocess import sketch_pixels

if TYPE_CHECKING:
    from benchmarks.end_to_end_torch import Research

LEAST_COSINE, LEAST_FOUND = 0.999, 0.3
_EVICTED = 16  # adapters that take turns: more than a gallery keeps the photos' embeddings of


def stages(place: Place, peers: dict[str, Research]) -> dict[str, list[Competitor]]:
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
        for group, competitor in _peer_stages(name, place, peer, features).items():
            stages[group].append(competitor)
    return stages


def _peer_stages(name: str, place: Place, peer: Research, features: Float32) -> dict[str, Competitor]:
    """The stages of research code; torch.compile takes part where something is compiled."""
    import torch

    count, solve, task = len(place.sketches), peer.adapt(place.task), place.task
    drawn = [sketch_pixels([sketch], place.engine.input) for sketch in place.sketches]
    inputs = [torch.from_numpy(one).contiguous(memory_format=torch.channels_last) for one in drawn]
    rows = [torch.from_numpy(features[i : i + 1]) for i in range(count)]
    encoded = place.engine.encoder.encode(drawn[0])
    agrees = partial(_same_rows, lambda: peer.encode(inputs[0]).numpy(), encoded)
    found = {
        ENCODE: Competitor(name, lambda i: peer.encode(inputs[i % count]), check=agrees),
        ADAPT_PAPERS: Competitor(name, lambda _: solve(), check=lambda: task.verdict(solve(), STEPS)),
    }
    if name == COMPILED:
        return found
    answer, wanted = solve(), place.head.embed(features[:1])
    return {
        **found,
        RASTER: Competitor(
            name,
            lambda i: peer.rasterise(place.sketches[i % count]),
            check=lambda: _judged(
                float(np.corrcoef(peer.rasterise(place.sketches[0]).numpy().ravel(), drawn[0].ravel())[0, 1]), 0.5
            ),
        ),
        HEAD: Competitor(
            name, lambda i: peer.embed(rows[i % count]), check=partial(_same_rows, lambda: peer.embed(rows[0]), wanted)
        ),
        SEARCH: Competitor(
            name,
            lambda i: peer.search(rows[i % count]),
            check=lambda: _nearest(place, features, [peer.search(row) for row in rows]),
        ),
        ADAPTED: Competitor(name, lambda i: peer.search_adapted(rows[i % count], answer)),
    }


def query_of(name: str, place: Place, engine: Engine) -> Competitor:
    """A search from strokes, as an application asks for it."""

    def check() -> Verdict:
        found = [[hit.name for hit in engine.search(sketch, TOP)] for sketch in place.sketches]
        return _found(place, found)

    return Competitor(name, lambda i: engine.search(place.sketches[i % len(place.sketches)], TOP), check=check)


def adaptations(place: Place, peers: dict[str, Research]) -> list[Competitor]:
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


def peer_query(name: str, place: Place, peer: Research) -> Competitor:
    """The same as research code."""

    def check() -> Verdict:
        known = [entry.name for entry in place.engine.gallery.index.entries]
        return _found(place, [[known[row] for row in peer.query(sketch)] for sketch in place.sketches])

    return Competitor(name, lambda i: peer.query(place.sketches[i % len(place.sketches)]), check=check)


def backends(report: Report, place: Place) -> list[Competitor]:
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
            found.append(query_of(f"{OURS}, {name}", place, engine))
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
