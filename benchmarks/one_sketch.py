"""One sketch through the CPU path: raster, encode, search, adapt, and the cold start of the command.

``python -m benchmarks.one_sketch [--threads 1] [--out FILE]``. Uses the shipped bundle, photos and drawings. The answers are
checked before anything is timed: the sketch's own photo must be found, and adaptation must come into force or say why not.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.record import sample, write
from fgsbir_edge.adapt import AdaptOptions
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.engine import Engine
from fgsbir_edge.pairs import DEMO_FOLDER, DataFolder
from fgsbir_edge.preprocess import sketch_pixels
from fgsbir_edge.sketch import Sketch

VECTOR_POINTS, VECTOR_STROKES = 113, 10  # what a chairv2 sketch has on average (METHODS D.3)


def vector_sketch() -> Sketch:
    """A drawing of average length in strokes: smooth random curves from a fixed seed."""
    rng = np.random.default_rng(0)
    strokes = []
    for _ in range(VECTOR_STROKES):
        steps = np.cumsum(rng.normal(0, 6, (VECTOR_POINTS // VECTOR_STROKES, 2)), axis=0)
        strokes.append(np.clip(rng.uniform(60, 200, 2) + steps, 0, 255))
    return Sketch.from_strokes(strokes)


def cold_starts(repeats: int) -> list[float]:
    """Seconds from process start to exit of the demo adaptation, output discarded."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "fgsbir_edge.adapt", "--demo", "--json"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m benchmarks.one_sketch", description=__doc__)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, default=200)
    options.add_argument("--out", type=Path, default=Path("benchmarks/results/one_sketch.json"))
    arguments = options.parse_args()

    folder = DataFolder.open(DEMO_FOLDER)
    pairs = folder.select(folder.users[0], None)
    with Engine.open(photos=folder.photos, threads=arguments.threads) as engine:
        drawing, vector = folder.sketch(pairs[0].sketch), vector_sketch()
        features = engine.encode_sketches([folder.sketch(pair.sketch) for pair in pairs])
        photos = engine.photo_features([pair.photo for pair in pairs])
        ranks = engine.gallery.ranks(features, [pair.photo for pair in pairs], head=engine.head)
        if np.mean(np.array(ranks) <= 5) < 0.3:
            raise SystemExit("the bundle does not find what it was drawn for; timings would mean nothing")
        result = engine.adapt_features(features[:5], photos[:5])
        pixels = sketch_pixels([vector], engine.input)
        one = engine.encode_sketches([vector])
        encoder, plain = OnnxEncoder(engine.bundle, arguments.threads), AdaptOptions(guard=False)
        repeats = arguments.repeats
        stages = {
            "raster, strokes": sample(lambda: sketch_pixels([vector], engine.input), repeats=repeats),
            "raster, drawing file": sample(lambda: sketch_pixels([drawing], engine.input), repeats=repeats),
            "encode": sample(lambda: encoder.encode(pixels), repeats=repeats),
            "search, 32 photos": sample(lambda: engine.gallery.search(one, 10, head=engine.head), repeats=repeats),
            "adapt, 5 pairs": sample(lambda: engine.adapt_features(features[:5], photos[:5], options=plain), repeats=repeats),
            "adapt with guard": sample(lambda: engine.adapt_features(features[:5], photos[:5]), repeats=repeats),
            "strokes to top 10": sample(lambda: engine.search(vector, 10), repeats=repeats),
        }
    starts = cold_starts(7)
    figures = {
        "question": "one sketch through the CPU path",
        "threads": arguments.threads,
        "unit": "ms",
        "stages": stages,
        "cold start, whole demo": {"median": round(1e3 * float(np.median(starts)), 1), "max": round(1e3 * max(starts), 1)},
        "status": result.status,
        "encoder": hashlib.sha256(engine.bundle.encoder).hexdigest(),
    }
    write(arguments.out, figures)
    lines = [f"{name:<24}{row['median']:9.3f} ms median {row['p95']:9.3f} p95" for name, row in stages.items()]
    lines.append(f"{'cold start, whole demo':<24}{figures['cold start, whole demo']['median']:9.1f} ms median")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
