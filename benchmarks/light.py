"""What a sketch encoder of its own saves: one query on one core, from strokes to the ten nearest of 2,000 photos.

``python -m benchmarks.light --bundle DIR [--out FILE]``, DIR holding two encoders (docs/light.md). The bundle with both, the same
one without the second, and every variant of the second take turns; stages by themselves too. Times are those of the thread, which
leave out what other processes take. Before anything is timed each answer is compared with a search by NumPy over all photos.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, libraries, one_thread_a_library, write
from benchmarks.rounds import Competitor, Report, Verdict, race
from benchmarks.tables import group_table
from fgsbir_edge.bench_inputs import scribbles
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.backends import CPU, Setting, open_encoder
from fgsbir_edge.engine import Engine
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery.store import MEMORY, PhotoFile, Store
from fgsbir_edge.preprocess import sketch_pixels
from fgsbir_edge.sketch import Sketch

PHOTOS, TOP, DRAWINGS = 2000, 10, 16
WANTED = 3.0  # ms


def gallery(bundle: Bundle, photos: int = PHOTOS) -> Gallery:
    """Made-up photos, unit features around a common mean, in memory."""
    rng = np.random.default_rng(0)
    store = Store.create(MEMORY, bundle.features_digest, bundle.head.features)
    rows = rng.normal(size=(photos, bundle.head.features)) + rng.normal(size=bundle.head.features)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    files = [PhotoFile(f"{i:07d}.jpg", None, f"/photos/{i:07d}.jpg", 100_000, i, f"{i:064x}") for i in range(photos)]
    store.add(files, [b""] * photos, rows.astype(np.float32))
    return Gallery(store, bundle)


def engines(bundle: Bundle, photos: int = PHOTOS) -> dict[str, Engine]:
    """One for each encoder of sketches, on one thread: the large one, and each variant of the light one."""
    large = open_encoder(bundle, Setting(CPU, threads=1))
    alone = replace(bundle, sketch=None)
    found = {"encoder of photos": Engine(alone, large, gallery(alone, photos))}
    for variant in bundle.for_sketches.variants if bundle.sketch is not None else ():
        own = open_encoder(bundle.for_sketches, Setting(CPU, variant, threads=1))
        found[f"sketch encoder {variant}"] = Engine(bundle, large, gallery(bundle, photos), sketch_encoder=own)
    return found


def right(engine: Engine, drawings: Sequence[Sketch]) -> Verdict:
    """Whether searches find what comparing with every photo finds."""
    index = engine.gallery.index
    rows = engine.head.embed(index.features(np.arange(len(index.entries))))
    for drawing in drawings:
        scores = rows @ engine.head.embed(engine.encode_sketches([drawing]))[0]
        expected = np.sort(scores)[::-1][:TOP]
        got = np.array([1 - hit.distance**2 / 2 for hit in engine.search(drawing, TOP)])
        if not np.allclose(got, expected, atol=1e-4):
            return Verdict(False, f"scores {got.round(4).tolist()}, expected {expected.round(4).tolist()}")
    return Verdict(True, f"the {TOP} nearest of {len(index.entries)}")


def run(bundle: Bundle, rounds: int, photos: int = PHOTOS) -> dict[str, Any]:
    """The figures, microseconds."""
    report, drawings = Report(), scribbles(DRAWINGS)
    found = engines(bundle, photos)

    def query(engine: Engine, number: int) -> object:
        return engine.search(drawings[number % DRAWINGS], TOP)

    def raster(engine: Engine, number: int) -> object:
        return sketch_pixels([drawings[number % DRAWINGS]], engine.sketch_input)

    def encode(engine: Engine, pixels: Sequence[np.ndarray], number: int) -> object:
        return engine.sketch_encoder.encode(pixels[number % DRAWINGS])

    clock = time.thread_time_ns
    whole = [Competitor(name, partial(query, one), check=partial(right, one, drawings)) for name, one in found.items()]
    race(report, f"strokes to the {TOP} nearest of {photos:,} photos", whole, rounds=rounds, clock=clock)
    race(report, "raster", [Competitor(name, partial(raster, one)) for name, one in found.items()], rounds=rounds, clock=clock)
    pixels = {name: [sketch_pixels([one], engine.sketch_input) for one in drawings] for name, engine in found.items()}
    encoders = [Competitor(name, partial(encode, one, pixels[name])) for name, one in found.items()]
    race(report, "encode", encoders, rounds=rounds, clock=clock)
    return {
        "question": "what a sketch encoder of its own saves",
        "bundle": bundle.name,
        "photos": photos,
        "wanted_ms": WANTED,
        **report.figures(),
        "bytes": {name: one.size for name, one in bundle.for_sketches.variants.items()},
        "libraries": libraries(("numpy", "onnxruntime")),
    }


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m benchmarks.light", description=__doc__)
    options.add_argument("--bundle", type=Path, required=True, help="with two encoders")
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--out", type=Path, default=RESULTS / "light.json")
    arguments = options.parse_args()
    one_thread_a_library()
    figures = run(Bundle.load(arguments.bundle), arguments.rounds)
    write(arguments.out, figures)
    for group in dict.fromkeys(row["group"] for row in figures["rows"]):
        sys.stdout.write(f"{group}\n\n{group_table(figures, group)}\n")


if __name__ == "__main__":
    main()
