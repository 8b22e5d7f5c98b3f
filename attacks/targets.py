"""Every parser of files that come from outside, with files that it accepts: what ``attacks.fuzz`` changes and hands back.

A parser may accept a file, or refuse it with an error of this package. Anything else (another exception, a crash, minutes of
work, gigabytes) is a fault.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from attacks.gallery_ops import EMBEDDING, FEATURES, head
from attacks.gallery_targets import people_of, shards, use_filter, use_gallery, use_shard, write_gallery, write_person
from fgsbir_edge.bundle import DEFAULT_FOLDER, Bundle
from fgsbir_edge.encoder.engine_file import EngineFileError, pack, unpack
from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.formats import read_sketch
from fgsbir_edge.formats.drawing import read_drawing
from fgsbir_edge.formats.qmul import read_qmul, read_strokes_npz, write_qmul, write_strokes_npz
from fgsbir_edge.formats.quickdraw import read_quickdraw, write_quickdraw
from fgsbir_edge.formats.stroke3 import read_strokes
from fgsbir_edge.formats.svg import read_svg, write_svg
from fgsbir_edge.gallery.metadata_table import read_metadata_table
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.pairs import read_pairs
from fgsbir_edge.photo import load_photo
from fgsbir_edge.sketch import Sketch

HOUSE = Sketch.from_strokes([[(0.5, 0), (10, 0), (10, 5)], [(2, 2), (3, 3)], [(4, 4), (6, 5.25)]])
FOX = Sketch.from_strokes([[(20 * i % 37, 7 * i % 19) for i in range(40)], [(1, 1), (30, 30)]])


@dataclass(frozen=True)
class Target:
    """A parser of files.

    Args:
        suffix: of its files.
        parse: reads one.
        seeds: contents that it accepts.
        binary: whether words of text are not what it is made of.
    """

    suffix: str
    parse: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]
    binary: bool = True

    def refuses(self, path: Path) -> bool:
        """Parse; whether the file was refused as it should be. Whatever else is raised goes on."""
        try:
            self.parse(path)
        except (FgsbirError, EngineFileError):
            return True
        return False


def _written(suffix: str, *writers: Callable[[Path], object]) -> Callable[[], list[bytes]]:
    """Seeds that functions write to a path."""

    def seeds() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            made = []
            for number, writer in enumerate(writers):
                path = Path(folder) / f"{number}{suffix}"
                writer(path)
                made.append(path.read_bytes())
        return made

    return seeds


def _image(kind: str) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        picture = Image.new("RGB", (40, 30), "white")
        ImageDraw.Draw(picture).line([(3, 3), (30, 20), (10, 25)], fill="black", width=2)
        made = []
        for mode in ("RGB", "L") if kind == "JPEG" else ("RGB", "L", "P", "RGBA", "1"):
            stream = io.BytesIO()
            picture.convert(mode).save(stream, kind)
            made.append(stream.getvalue())
        return made

    return seeds


def _npy() -> list[bytes]:
    made = []
    five = np.array([[1, 2, 1, 0, 0], [3, 4, 0, 1, 0], [5, 6, 1, 0, 0], [2, 1, 0, 0, 1]])
    for rows in (np.array([[1, 2, 0], [3, 4, 1], [5, 6, 0], [1, 1, 1]], np.float32), five):
        stream = io.BytesIO()
        np.save(stream, rows)
        made.append(stream.getvalue())
    return made


def _adapters() -> list[bytes]:
    rng = np.random.default_rng(0)
    support = rng.normal(size=(3, FEATURES)).astype(np.float32)
    rows = rng.normal(size=(EMBEDDING, 3)).astype(np.float32)
    shift = np.ones(EMBEDDING, np.float32)
    return [Adapter(head().digest, rows, support, "both", {"pairs": "3"}, c).to_bytes() for c in (None, shift)]


def _manifests() -> list[bytes]:
    manifest = json.loads((DEFAULT_FOLDER / "manifest.json").read_text(encoding="utf-8"))
    return [json.dumps(manifest).encode()]


def _open_bundle(path: Path) -> None:
    """The default bundle with another manifest."""
    folder = path.parent / "bundle"
    folder.mkdir(exist_ok=True)
    for file in DEFAULT_FOLDER.iterdir():
        link = folder / file.name
        if file.name != "manifest.json" and file.is_file() and not link.exists():
            link.symlink_to(file)
    (folder / "manifest.json").write_bytes(path.read_bytes())
    Bundle.load(folder)


def _tables() -> list[bytes]:
    return [
        b"sketch,photo\na.png,b.jpg\nc/d.png,e f.jpg\n",
        b'sketch,photo,category,user\n"a,1.png",b.jpg,chair,ann\nc.svg,d.jpg,,bob\n',
    ]


def _svgs() -> list[bytes]:
    drawn = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100"><defs><path id="a" d="M1 1L9 9"/></defs>
<g transform="translate(3,4) scale(2)"><path d="M10,10 C20,20 30,5 40,10 q5,5 10,0 a3 4 5 0 1 9 9 z"/>
<circle cx="5" cy="6" r="3"/>
<polyline points="1,2 3,4 5,6"/><line x1="1" y1="2" x2="3" y2="9"/></g>
<rect width="9" height="4"/></svg>"""
    return [drawn, *_written(".svg", lambda path: write_svg(path, HOUSE))()]


TARGETS: dict[str, Target] = {
    "svg": Target(".svg", read_svg, _svgs, binary=False),
    "quickdraw": Target(
        ".ndjson",
        read_quickdraw,
        _written(".ndjson", lambda p: write_quickdraw(p, [HOUSE, FOX]), lambda p: write_quickdraw(p, [FOX], raw=True)),
        binary=False,
    ),
    "strokes_npz": Target(
        ".npz", read_strokes_npz, _written(".npz", lambda path: write_strokes_npz(path, {"a": HOUSE, "b": FOX}))
    ),
    "strokes_npy": Target(".npy", read_strokes, _npy),
    "qmul": Target(".pkl", read_qmul, _written(".pkl", lambda path: write_qmul(path, {"a": HOUSE, "b": FOX}))),
    "any_sketch": Target(".png", lambda path: read_sketch(path), _image("PNG")),
    "drawing_jpeg": Target(".jpg", read_drawing, _image("JPEG")),
    "photo_png": Target(".png", lambda path: load_photo(path, 32), _image("PNG")),
    "photo_jpeg": Target(".jpg", lambda path: load_photo(path, 32, "trim"), _image("JPEG")),
    "pairs": Target(".csv", read_pairs, _tables, binary=False),
    "filter": Target(
        ".filter",
        use_filter,
        lambda: [
            b"price<50 and (brand=oak or tags in ('a', \"b\")) and not has sold",
            b'{"price": {"<": 50}, "or": [{"brand": ["oak", "ash"]}, {"not": {"sold": true}}]}',
        ],
        binary=False,
    ),
    "metadata_csv": Target(
        ".csv",
        read_metadata_table,
        lambda: [b'name,price,zip:text,tags:list,sold\na.jpg,5,012,x;y,true\n"b,c.jpg",-2.5e1,,,\n'],
        binary=False,
    ),
    "metadata_jsonl": Target(
        ".jsonl",
        read_metadata_table,
        lambda: [b'{"name": "a.jpg", "price": 5, "tags": ["x", "y"], "sold": null}\n\n{"name": "b.jpg", "brand": "oak"}\n'],
        binary=False,
    ),
    "adapter": Target(".safetensors", lambda path: Adapter.load(path, head()), _adapters),
    "head": Target(".safetensors", Head.load, lambda: [head().to_bytes()]),
    "manifest": Target(".json", _open_bundle, _manifests, binary=False),
    "person": Target(".person", lambda path: people_of().load(path), _written(".person", write_person)),
    "gallery": Target(".gallery", use_gallery, _written(".gallery", write_gallery(4), write_gallery(25))),
    "shard": Target(".shard", use_shard, _written(".shard", *(one.save for one in shards()))),
    "engine": Target(
        ".engine", lambda path: unpack(path.read_bytes(), "ab" * 32), lambda: [pack("ab" * 32, b"content", {"name": "x"})]
    ),
}


def corpus(name: str) -> Iterator[bytes]:
    """A target's seeds, and what earlier runs have found worth keeping."""
    yield from TARGETS[name].seeds()
    for path in sorted((Path(__file__).parent / "corpus" / name).glob("*")):
        yield path.read_bytes()
