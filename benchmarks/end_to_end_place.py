"""What every pipeline of ``end_to_end.py`` works on: drawings in strokes, a gallery file of 2,000 photos, five pairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.adapt_task import MARGIN, PAIRS, STEP_SIZE, Task
from benchmarks.sketches import drawing_files, traces
from fgsbir_edge.adapt import AdaptOptions
from fgsbir_edge.arrays import Float32, normalised
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.engine import Engine
from fgsbir_edge.gallery.store import PhotoFile, Store
from fgsbir_edge.head import Head
from fgsbir_edge.pairs import DEMO_FOLDER
from fgsbir_edge.sketch import Sketch

PHOTOS, TOP, STEPS = 2_000, 10, 5
_THUMBNAIL = b"\0" * 16
# What the papers' inner loop does with five pairs, as ``adapt_torch`` has it: every row moves, no shift, nobody checks.
PAPERS_OPTIONS = AdaptOptions(
    steps=STEPS, margin=MARGIN, step_sizes=(STEP_SIZE,) * STEPS, side="both", negatives="support", guard=False, centre=np.inf
)


@dataclass(frozen=True)
class Place:
    """An engine over a gallery file in a folder, and the drawings: ``names[i]`` is the photo that ``sketches[i]`` means.

    Drawings are traced from those in the package, 256 units a side. The shipped photos are among the gallery's; the features of
    the others are random unit vectors, on which no time depends.
    """

    engine: Engine
    gallery: Path
    sketches: list[Sketch]
    names: list[str]

    @classmethod
    @contextmanager
    def make(cls, folder: Path, bundle: Bundle, photos: int = PHOTOS, drawings: int = 32) -> Iterator[Place]:
        """A new gallery file ``photos.fgsbir`` in ``folder``, opened by one thread of ONNX Runtime."""
        path = folder / "photos.fgsbir"
        _fill(path, bundle, photos)
        files = drawing_files()[:drawings]
        with Engine.open(bundle=bundle, gallery=path, threads=1, backend="onnx-cpu") as engine:
            engine.gallery.index.embeddings(engine.head)
            yield cls(engine, path, traces(drawings), [f"{file.stem}.jpg" for file in files])

    @property
    def head(self) -> Head:
        """The base head."""
        return self.engine.head

    @cached_property
    def photos(self) -> Float32:
        """Features of all photos [N, C]."""
        index = self.engine.gallery.index
        return index.features(np.arange(len(index.entries)))

    @cached_property
    def shown(self) -> tuple[Float32, Float32]:
        """Features of the five pairs: sketches [5, C], photos [5, C]."""
        sketches = self.engine.encode_sketches(self.sketches[:PAIRS])
        return sketches, self.engine.photo_features(self.names[:PAIRS])

    @property
    def task(self) -> Task:
        """The five pairs as ``adapt_torch`` takes them, on the released head."""
        head = self.head
        task = Task(head.features, head.embedding, 0)
        known = {"support": np.concatenate(self.shown), "weight": head.weight.copy(), "bias": head.bias.copy()}
        task.__dict__.update(known)  # in place of the random ones that it would make of itself
        return task


def _fill(path: Path, bundle: Bundle, photos: int) -> None:
    """Shipped photos first, then random ones."""
    files = sorted((DEMO_FOLDER / "photos").glob("*.jpg"))
    with Engine.open(bundle=bundle, photos=DEMO_FOLDER / "photos", threads=1, backend="onnx-cpu") as engine:
        real = engine.photo_features([file.name for file in files])
    count = max(0, photos - len(files))
    random = normalised(np.random.default_rng(0).standard_normal((count, bundle.head.features), dtype=np.float32))
    names = [file.name for file in files] + [f"random{number:06d}.jpg" for number in range(count)]
    entries = [PhotoFile(name, None, f"/photos/{name}", 1, i, f"{i:064x}") for i, name in enumerate(names)]
    store = Store.create(str(path), bundle.features_digest, bundle.head.features)
    store.add(entries, [_THUMBNAIL] * len(entries), np.concatenate([real, random]))
    store.close()
