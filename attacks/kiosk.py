"""What the threads and processes of a kiosk do to one gallery, for ever and at random: the work of ``attacks.soak``.

A photo's and a sketch's way is the real one, files and all; only the network is real for a share of the calls alone, so that
the rest is done often enough. The number of photos and of people swings about where it began.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fgsbir_edge.adapt import AdaptOptions
from fgsbir_edge.arrays import Float32
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder import Encoder
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import EmptyGalleryError, NoPairsError, UnknownPersonError, UnknownPhotoError
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.gallery.check import check
from fgsbir_edge.gallery.merge import merge
from fgsbir_edge.gallery.metadata import Given
from fgsbir_edge.gallery.repair import backup
from fgsbir_edge.gallery.shards import Part, Shard
from fgsbir_edge.gallery.store import PhotoFile, Store
from fgsbir_edge.sketch import Sketch

PEOPLE, CATEGORIES, FILES = 12, 5, 60  # FILES: photos that lie on disk
BLOCK = 32  # photos added at a time
# someone else has removed it meanwhile, or nobody and nothing of the kind was there yet
EXPECTED = (UnknownPersonError, UnknownPhotoError, NoPairsError, EmptyGalleryError)
BINS = np.geomspace(1e-4, 1e3, 71)  # seconds; times are counted, not kept


@dataclass
class Tally:
    """What an operation did. ``times`` counts by BINS."""

    done: int = 0
    refused: int = 0
    slowest: float = 0.0
    times: np.ndarray = field(default_factory=lambda: np.zeros(len(BINS) + 1, np.int64))

    def add(self, seconds: float) -> None:
        """Note one."""
        self.done += 1
        self.slowest = max(self.slowest, seconds)
        self.times[np.searchsorted(BINS, seconds)] += 1

    def summary(self) -> dict[str, float]:
        """Counts, and milliseconds (upper ends of bins: a tenth of a decade)."""
        total = np.cumsum(self.times)
        edges = np.append(BINS, np.inf)
        p50, p99 = (
            min(edges[np.searchsorted(total, share * total[-1])], self.slowest) if self.done else 0.0 for share in (0.5, 0.99)
        )
        times = {"p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "max_ms": 1e3 * self.slowest}
        return {"done": self.done, "refused": self.refused, **{name: round(float(value), 2) for name, value in times.items()}}


@cache
def _network(bundle: Bundle) -> Encoder:
    """One for all threads of a process."""
    return OnnxEncoder(bundle, threads=1)


@cache
def _bundle(path: Path | None) -> Bundle:
    return Bundle.default() if path is None else Bundle.load(path)


class SometimesReal:
    """An encoder that runs the network for a share of the calls, and else projects the pixels."""

    def __init__(self, bundle: Bundle, share: float, seed: int) -> None:
        self._real = _network(bundle)
        self._share, self._chance = share, random.Random(seed)
        self.name, self.size, self.features = "onnx-cpu at times", self._real.size, self._real.features
        self._projection = np.random.default_rng(0).normal(size=(3 * 8 * 8, self.features)).astype(np.float32)

    def encode(self, pixels: Float32) -> Float32:
        """See Encoder."""
        if self._chance.random() < self._share:
            return self._real.encode(pixels)
        side = self.size // 8
        cells = pixels[:, :, : 8 * side, : 8 * side].reshape(len(pixels), 3, 8, side, 8, side).mean(axis=(3, 5))
        rows = cells.reshape(len(pixels), -1) @ self._projection
        unit: Float32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


@dataclass(frozen=True)
class Place:
    """Where it happens: a gallery, a folder of photos and one for copies; ``photos`` that there are about."""

    gallery: Path
    folder: Path
    photos: int
    share: float  # of calls that the network itself answers
    bundle: Path | None = None


class Worker:
    """One thread's engine, and what it does; a subclass has the operations and how often each is drawn."""

    weights: dict[str, int]

    def __init__(self, place: Place, seed: int) -> None:
        self.place, self.rng = place, random.Random(seed)
        self.tallies = {name: Tally() for name in self.weights}
        self.faults: list[str] = []
        self.bundle = _bundle(place.bundle)
        self.encoder = SometimesReal(self.bundle, place.share, seed)
        self.engine = self._opened()

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop. To be called in the thread that made this."""
        names, weights = list(self.weights), list(self.weights.values())
        while not stop.is_set() and len(self.faults) < 10:
            name = self.rng.choices(names, weights)[0]
            start = time.monotonic()
            try:
                getattr(self, name)()
            except EXPECTED:
                self.tallies[name].refused += 1
            except Exception:  # whatever it is, it is what this looks for
                self.faults.append(f"{name}: {traceback.format_exc()}")
            self.tallies[name].add(time.monotonic() - start)
        self.engine.close()

    def reopen(self) -> None:
        """As after a restart of this part of the kiosk."""
        self.engine.close()
        self.engine = self._opened()

    def _opened(self) -> Engine:
        return Engine(self.bundle, self.encoder, Gallery.open(self.place.gallery, self.bundle))

    def sketch(self) -> Sketch:
        """A few lines."""
        walk = np.cumsum(np.random.default_rng(self.rng.getrandbits(32)).normal(size=(3, 20, 2)), axis=1)
        return Sketch.from_strokes(list(walk))

    def photo(self) -> str:
        """A name in the gallery."""
        return self.rng.choice(self.engine.gallery.index.entries).name

    def person(self) -> str:
        """Someone, known or not."""
        return f"person {self.rng.randrange(PEOPLE)}"


class Visitor(Worker):
    """People at the screen: they search, confirm what they meant, take back, and ask to be forgotten."""

    weights = {  # noqa: RUF012 - never changed
        "query": 30,
        "query_category": 10,
        "query_filtered": 10,
        "query_person": 20,
        "query_adapter": 8,
        "feedback": 15,
        "describe": 2,
        "undo": 4,
        "forget": 2,
        "export_import": 2,
        "reopen": 1,
    }

    def query(self) -> None:
        self.engine.search(self.sketch())

    def query_category(self) -> None:
        self.engine.search(self.sketch(), category=f"category {self.rng.randrange(CATEGORIES)}")

    def query_filtered(self) -> None:
        self.engine.search(self.sketch(), where=f"price < {self.rng.randrange(1, 100)} or tags = 'tag {self.rng.randrange(9)}'")

    def query_person(self) -> None:
        self.engine.search(self.sketch(), person=self.person())

    def query_adapter(self) -> None:
        """One that moves photos: it gets an index of its own."""
        pairs = [(self.sketch(), self.photo()) for _ in range(4)]
        adapter = self.engine.adapt(pairs, options=AdaptOptions(side="both", guard=False)).adapter
        self.engine.search(self.sketch(), adapter=adapter)

    def feedback(self) -> None:
        self.engine.feedback(self.sketch(), self.photo(), person=self.person())

    def describe(self) -> None:
        """What is known of some photos changes."""
        for _ in range(4):
            told: Given = {"price": self.rng.randrange(100), "tags": [f"tag {self.rng.randrange(9)}"]}
            self.engine.gallery.set_metadata({self.photo(): told})

    def undo(self) -> None:
        self.engine.learner.undo(self.person())

    def forget(self) -> None:
        self.engine.gallery.people.forget(self.person())

    def export_import(self) -> None:
        person, file = self.person(), self.place.folder / f"{threading.get_ident()}.person"
        self.engine.gallery.people.save(person, file)
        self.engine.gallery.people.forget(person)
        with contextlib.suppress(ValueError):  # the other visitor was faster: the name is taken again
            self.engine.learner.load(file, skip_missing=True)


class Attendant(Worker):
    """Whoever keeps the gallery: photos come and go, it is copied and checked."""

    weights = {"index": 6, "add_or_remove": 12, "describe": 6, "backup": 1, "check": 1, "reopen": 1}  # noqa: RUF012
    describe = Visitor.describe

    def index(self) -> None:
        """Some files are new or changed since the last time."""
        folder = self.place.folder / "photos"
        for _ in range(3):
            number = self.rng.randrange(FILES)
            draw_photo(folder / f"category {number % CATEGORIES}" / f"{number}.png", self.rng.getrandbits(32))
        self.engine.index(folder, progress=False)

    def add_or_remove(self) -> None:
        """Keep the number of photos near where it began."""
        gallery = self.engine.gallery
        if len(gallery) >= self.place.photos:
            gallery.remove([entry.name for entry in self.rng.sample(gallery.index.entries, BLOCK)])
        elif self.rng.random() < 0.5:
            with closing(Store.open(str(self.place.gallery))) as store:
                add_made_up(store, BLOCK, self.rng.getrandbits(32))
        else:
            shard = made_up(BLOCK, self.rng.getrandbits(32), self.bundle)
            shard.save(self.place.folder / shard.part.file)
            merge([self.place.folder / shard.part.file], self.place.gallery)

    def backup(self) -> None:
        target = self.place.folder / "copy.gallery"
        target.unlink(missing_ok=True)
        backup(self.place.gallery, target)

    def check(self) -> None:
        report = check(self.place.gallery)
        assert report.healthy, report.faults


class Reader(Worker):
    """Another process, which only searches."""

    weights = {"query": 20, "query_category": 10, "query_filtered": 10, "query_person": 10, "reopen": 1}  # noqa: RUF012
    query, query_category = Visitor.query, Visitor.query_category
    query_filtered, query_person = Visitor.query_filtered, Visitor.query_person


WORKERS: dict[str, Callable[[Place, int], Worker]] = {"visitor": Visitor, "attendant": Attendant, "reader": Reader}


def draw_photo(path: Path, seed: int) -> None:
    """A small photo of a polygon."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (96, 80), tuple(int(v) for v in rng.integers(180, 256, 3)))
    corners = [(float(x), float(y)) for x, y in rng.uniform(10, 70, (5, 2))]
    ImageDraw.Draw(picture).polygon(corners, fill=tuple(int(v) for v in rng.integers(0, 160, 3)), outline="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def add_made_up(store: Store, count: int, seed: int) -> None:
    """Photos that were never seen."""
    shard = made_up(count, seed, store)
    store.add(shard.files, shard.thumbnails, shard.features.astype(np.float32))


def made_up(count: int, seed: int, of: Store | Bundle) -> Shard:
    """Photos that were never seen, with features of unit length and thumbnails of about the usual size."""
    rng = np.random.default_rng(seed)
    width = of.features if isinstance(of, Store) else of.head.features
    rows = rng.normal(size=(count, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"{seed:08x}/{i}.jpg" for i in range(count)]
    files = tuple(PhotoFile(name, f"category {i % CATEGORIES}", f"/nowhere/{name}", 1, 1, "") for i, name in enumerate(names))
    thumbnails = tuple(b"\xff\xd8\xff" + rng.bytes(int(rng.integers(2000, 5000))) for _ in files)
    return Shard(Part(of.features_digest, width, f"{seed}", 0, 1), files, rows.astype(np.float16), thumbnails)
