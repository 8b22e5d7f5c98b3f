"""Write what the C++ example reads: a gallery with its model, sketches' features, or strokes.

    python export_gallery.py gallery GALLERY robot.pack [--bundle DIR]
    python export_gallery.py sketches SKETCH... sketches.pack [--bundle DIR]
    python export_gallery.py strokes SKETCH drawing.strokes

A pack is described in pack.h. Exit codes are those of fgsbir-edge.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.console import run
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import OutputError, SketchFormatError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.formats import read_sketch
from fgsbir_edge.sketch import Sketch


def pack(settings: Mapping[str, str], items: Sequence[str], arrays: Mapping[str, Float32]) -> bytes:
    """The bytes of a pack. Raises OutputError where a name has a line break."""
    lines = ["fgsbir-edge-pack 1"]
    lines += [f"set {name} {value}" for name, value in settings.items()]
    lines += [f"item {item}" for item in items]
    lines += [f"array {name} {' '.join(map(str, array.shape))}" for name, array in arrays.items()]
    for line in lines:
        if "\n" in line:
            raise OutputError(f"{line[:80]!r} has a line break, which a pack cannot hold; rename the file")
    text = "\n".join([*lines, "", ""])
    return text.encode() + b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in arrays.values())


def gallery_pack(engine: Engine) -> bytes:
    """Head, input settings, names, features [N, C] and embeddings [N, D] of an engine's gallery."""
    head, spec = engine.head, engine.input
    arrays = {"weight": head.weight, "bias": head.bias, "step_sizes": head.step_sizes}
    if head.margin_net is not None:
        arrays["margin_net"] = head.margin_net.packed
    index = engine.gallery.index
    places = index.select(None) if index.entries else np.arange(0)
    arrays |= {"photo_features": index.features(places), "photo_embeddings": index.embeddings(head)}
    numbers = {name: repr(float(getattr(head, name))) for name in ("margin", "sharpness", "centre")}
    settings = {
        **{"head_digest": head.digest, "features_digest": engine.bundle.features_digest},
        **{"side": head.side, "negatives": head.negatives},
        **numbers,
        **{"size": str(spec.size), "style": spec.style, "line_width": repr(spec.line_width), "ink": spec.ink},
        **{"mean": " ".join(map(repr, spec.mean)), "std": " ".join(map(repr, spec.std))},
    }
    return pack(settings, [entry.name for entry in index.entries], arrays)


def sketch_pack(engine: Engine, sketches: Sequence[str]) -> bytes:
    """Features [n, C] of sketches, under the paths they were given by."""
    return pack(
        {"features_digest": engine.bundle.features_digest}, sketches, {"sketch_features": engine.encode_sketches(sketches)}
    )


def strokes_text(path: str) -> str:
    """A vector sketch as the C++ example reads it. Raises SketchFormatError for a picture."""
    sketch = read_sketch(path)
    if not isinstance(sketch, Sketch):
        raise SketchFormatError(f"{path}: is a picture, not strokes; export its features with 'sketches'")
    return "".join(" ".join(f"{x!r},{y!r}" for x, y in stroke.tolist()) + "\n" for stroke in sketch.strokes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one file. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sources = {"gallery": "a gallery's file", "sketches": "sketch files", "strokes": "one vector sketch"}
    for name, source in sources.items():
        command = commands.add_parser(name, help=f"from {source}")
        command.add_argument("source", nargs="+" if name == "sketches" else 1, metavar="SOURCE", help=source)
        command.add_argument("target", metavar="FILE", help="written whole or not at all")
        if name != "strokes":
            command.add_argument("--bundle", metavar="DIR", help="model (default: the one in the package)")
    options = parser.parse_args(arguments)

    def work() -> int:
        if options.command == "strokes":
            data = strokes_text(options.source[0]).encode()
        else:
            bundle = Bundle.default() if options.bundle is None else Bundle.load(options.bundle)
            place = Path(options.source[0]) if options.command == "gallery" else None
            with Engine.open(gallery=place, bundle=bundle) as engine:
                data = gallery_pack(engine) if place is not None else sketch_pack(engine, options.source)
        write_atomic(options.target, data)
        return 0

    return run(work)


if __name__ == "__main__":
    sys.exit(main())
