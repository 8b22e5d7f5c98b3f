"""Exact search in galleries of 2,000 to a million photos, beside faiss alone and beside reading the embeddings once.

``python -m benchmarks.search [--sizes 2000 100000 1000000] [--widths 64 512] [--out FILE]``. A query of ours begins at a sketch's
features [C = 512] and ends at the ten photos found, by name; faiss and NumPy alone begin at an embedding and end at numbers.
Embeddings are random with a spectrum that falls, as those of trained heads do; every competitor's ten are checked. All work on
one thread, and times are those of the processor, which other processes hardly change. What a
gallery's file costs, and memory, is measured by ``search_store.py``, each in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.limits import aligned, reader
from benchmarks.record import RESULTS, libraries, one_thread_a_library, write
from benchmarks.rounds import Competitor, Report, Verdict, race
from benchmarks.search_store import store_figures
from fgsbir_edge.arrays import Float32, frozen, norms
from fgsbir_edge.gallery.flat import CHUNK, FaissFlat, SearchOptions, Storage, faiss
from fgsbir_edge.gallery.search import PhotoIndex
from fgsbir_edge.gallery.store import Entry
from fgsbir_edge.head import Adapter, Head

FEATURES, TOP, QUERIES, PAIRS, SHORTLIST = 512, 10, 256, 5, 1000
STORAGES: tuple[Storage, ...] = ("float32", "float16", "int8")
TARGET = 1.2
BATCHES, BATCHED = (1, 16, 256), (2_000, 100_000)  # queries at a time, in galleries of these sizes
LARGE = 1 << 28  # numbers in all embeddings: from there on no further copy of them fits into memory beside the others
ADAPTED = f"ours, an adapter of both sides over {SHORTLIST}"


@dataclass(frozen=True, eq=False)
class Place:
    """A gallery of random photos, queries for it, and what they should find."""

    head: Head
    adapter: Adapter
    items: list[Entry]
    features: NDArray[np.float16]
    queries: Float32  # sketch features [QUERIES, C]
    embeddings: Float32  # [N, D], aligned
    lengths: Float32  # [N, 1] of the outputs they were made from

    @classmethod
    def random(cls, count: int, width: int) -> Place:
        """So many photos, embedded in so many dimensions."""
        rng = np.random.default_rng(count + width)
        spectrum = (1.0 / np.sqrt(1.0 + np.arange(FEATURES) / 16.0)).astype(np.float32)
        weight = np.linalg.qr(rng.normal(size=(FEATURES, width)))[0].T
        head = Head(frozen(weight), frozen(0.01 * rng.normal(size=width)), frozen([0.2]))
        features = np.empty((count, FEATURES), np.float16)
        for first in range(0, count, CHUNK):
            rows = rng.standard_normal((min(CHUNK, count - first), FEATURES), dtype=np.float32) * spectrum
            features[first : first + CHUNK] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        items = [Entry(i, f"{i:07d}.jpg", None) for i in range(count)]
        near = features[rng.choice(count, QUERIES, replace=False)].astype(np.float32)
        queries = near + 0.02 * rng.standard_normal(near.shape, dtype=np.float32)
        change = frozen(0.05 * rng.normal(size=(width, 2 * PAIRS)))
        adapter = Adapter(head.digest, change, frozen(features[: 2 * PAIRS]), "both")
        embeddings, lengths = aligned((count, width), np.float32), np.empty((count, 1), np.float32)
        for first in range(0, count, CHUNK):
            outputs = head.outputs(features[first : first + CHUNK].astype(np.float32))
            lengths[first : first + CHUNK] = norms(outputs)
            embeddings[first : first + CHUNK] = outputs / norms(outputs)
        return cls(head, adapter, items, features, queries, embeddings, lengths)

    def best(self, number: int) -> set[int]:
        """The true ten of a query, in double precision."""
        query = self.head.embed(self.queries[number : number + 1])[0].astype(np.float64)
        scores = np.concatenate([part.astype(np.float64) @ query for part in np.array_split(self.embeddings, 64)])
        return {int(place) for place in np.argpartition(scores, -TOP)[-TOP:]}

    def index(self, options: SearchOptions) -> PhotoIndex:
        """What a gallery holds in memory; the embeddings, which it would make itself, are the same array for all."""
        index = PhotoIndex(self.items, self.features, options)
        index._base, index._lengths[self.head.digest] = (self.head.digest, self.embeddings), self.lengths
        return index


@dataclass
class Last:
    """The latest query and what was found for it, as places."""

    number: int = -1
    found: Sequence[int] = ()


def ours(place: Place, name: str, options: SearchOptions, adapter: Adapter | None = None, batch: int = 1) -> Competitor:
    """A gallery's search, ``batch`` queries a call; the last of them is checked."""
    index, last = place.index(options), Last()

    def run(call: int) -> object:
        first = call * batch % QUERIES
        last.number = first + batch - 1
        answers = index.search(place.queries[first : first + batch], TOP, head=place.head, adapter=adapter)
        last.found = [hit.id for hit in answers[-1]]
        return answers

    def check() -> Verdict:
        found = set(last.found)
        if adapter is None:
            return agreed(found, place.best(last.number))
        query = place.queries[last.number : last.number + 1]
        exact = place.index(SearchOptions(backend="numpy")).search(query, TOP, head=place.head, adapter=adapter)[0]
        return Verdict(True, f"{len(found & {hit.id for hit in exact})} of {TOP} as over all photos")

    return Competitor(name, run, items=batch, check=check)


def alone(place: Place, storage: Storage, name: str, batch: int = 1) -> Competitor:
    """faiss's own search with queries that are embedded already."""
    built = FaissFlat(lambda a, b: place.embeddings[a:b], place.embeddings.shape, SearchOptions(storage=storage))
    embedded, last = place.head.embed(place.queries), Last()
    faiss().omp_set_num_threads(1)

    def run(call: int) -> object:
        first = call * batch % QUERIES
        last.number = first + batch - 1
        last.found = built.index.search(embedded[first : first + batch], TOP)[1][-1]
        return last.found

    def check() -> Verdict:
        return Verdict(True, f"{len(place.best(last.number) & {int(i) for i in last.found})} of {TOP}")

    return Competitor(name, run, items=batch, check=check)


def plain_numpy(place: Place) -> Competitor:
    """One product and a partition."""
    embedded, last = place.head.embed(place.queries), Last()

    def run(call: int) -> object:
        last.number = call % QUERIES
        scores = place.embeddings @ embedded[last.number]
        last.found = np.argpartition(scores, -TOP)[-TOP:].tolist()
        return last.found

    return Competitor("NumPy alone", run, check=lambda: agreed(set(last.found), place.best(last.number)))


def agreed(found: set[int], wanted: set[int]) -> Verdict:
    """All ten must be there."""
    return Verdict(found == wanted, f"{len(found & wanted)} of {TOP}")


def competitors(place: Place) -> Iterator[Competitor]:
    """All of them, for one gallery and one query at a time."""
    read: Callable[[int], object] | None = reader(place.embeddings)
    if read is not None:
        yield Competitor("reading all embeddings once", read, bytes=place.embeddings.nbytes, limit=True)
    yield plain_numpy(place)
    yield ours(place, "ours, NumPy", SearchOptions(backend="numpy"))
    for storage in STORAGES:
        yield alone(place, storage, f"faiss {storage} alone")
        yield ours(place, f"ours, {storage}", SearchOptions(storage=storage))
    if place.embeddings.size < LARGE:
        yield ours(place, "ours, faiss float32", SearchOptions(backend="faiss"))
    yield ours(place, ADAPTED, SearchOptions(shortlist=SHORTLIST), place.adapter)


def batches(place: Place) -> Iterator[Competitor]:
    """Ours and faiss alone, with more and more queries at a time."""
    for batch in BATCHES:
        yield alone(place, "float32", f"faiss float32 alone, {batch} at a time", batch)
        yield ours(place, f"ours, float32, {batch} at a time", SearchOptions(), batch=batch)
        adapted = f"ours, an adapter of both sides over {SHORTLIST}, {batch} at a time"
        yield ours(place, adapted, SearchOptions(shortlist=SHORTLIST), place.adapter, batch=batch)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 100_000, 1_000_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--stored", type=int, nargs="*", default=[100_000, 1_000_000], help="sizes of galleries written and read")
    parser.add_argument("--out", type=Path, default=RESULTS / "search.json")
    arguments = parser.parse_args()
    one_thread_a_library()
    report = Report()
    stored = store_figures(arguments.stored) if arguments.stored else {}
    rounds = arguments.rounds
    for count in arguments.sizes:
        for width in arguments.widths:
            place, group = Place.random(count, width), f"{count:,} photos, D = {width}"
            race(report, group, list(competitors(place)), rounds=rounds, clock=time.thread_time_ns)
            for storage in STORAGES:
                got = report.times(group, f"faiss {storage} alone", (group, f"ours, {storage}"))
                report.target(f"{group}: ours, {storage}, at most {TARGET} × faiss alone", TARGET, got, most=True)
            got = report.times(group, "faiss float32 alone", (group, ADAPTED))
            report.target(f"{group}: adapted re-ranking, at most {TARGET} × faiss alone", TARGET, got, most=True)
            if width == arguments.widths[0] and count in BATCHED:
                several = list(batches(place))
                race(report, f"{group}, several queries", several, rounds=rounds, turn_ms=100, clock=time.thread_time_ns)
            del place
            gc.collect()
            figures: dict[str, Any] = {**report.figures(), **stored, "libraries": libraries(["faiss-cpu", "numpy"])}
            write(arguments.out, figures)  # so far: the largest gallery may not fit into memory


if __name__ == "__main__":
    main()
