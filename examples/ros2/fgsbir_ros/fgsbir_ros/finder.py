"""What the node does, without ROS: a sketch that grows or comes as a picture, its photos, and a person to learn from."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge import __version__
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import EmptySketchError, FgsbirError
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.gallery import Hit
from fgsbir_edge.preprocess import as_sketch
from fgsbir_edge.sketch import Sketch

Stamp = tuple[int, int]  # seconds, nanoseconds
Stroke = NDArray[np.float64]  # [n, 2]


@dataclass(frozen=True)
class Settings:
    """What the node is started with; names and meanings are those of its parameters."""

    gallery: str
    bundle: str = ""
    person: str = ""
    k: int = 5
    backend: str = "auto"
    variant: str = "fp32"
    threads: int = 0
    min_score: float = 0.0

    def __post_init__(self) -> None:
        if not self.gallery:
            raise ValueError("parameter gallery is empty: give a file made with 'fgsbir-edge index FOLDER --gallery FILE'")
        if self.k < 1 or self.threads < 0:
            raise ValueError(f"parameters k and threads are {self.k} and {self.threads}, expected at least 1 and 0")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"parameter min_score is {self.min_score}, expected 0 to 1")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a sketch found: (photo, score in [0, 1]) nearest first, none where there is no sketch yet."""

    hits: tuple[tuple[str, float], ...]
    sketch: Sketch | Drawing | None
    millis: float = 0.0


@dataclass(frozen=True)
class Taught:
    """What came of showing, undoing or forgetting. Ranks count from 1; 0 where nothing was learned."""

    success: bool
    message: str
    rank_before: int = 0
    rank_after: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class Info:
    """What VisionInfo says."""

    method: str
    location: str
    version: int  # grows whenever the same sketch may find other photos than before


class Finder:
    """An engine, the sketch on the table and the person at it. Use from one thread; close it."""

    def __init__(self, settings: Settings) -> None:
        """Open the gallery. Raises what Engine.open raises."""
        self._settings = settings
        self._engine = Engine.open(
            gallery=settings.gallery,
            bundle=settings.bundle or None,
            threads=settings.threads or None,
            backend=settings.backend,
            variant=settings.variant,
        )
        self.person, self.k = settings.person, settings.k
        self._version = 1
        self._strokes: list[Stroke] = []
        self._stamp: Stamp | None = None
        self._last: Sketch | Drawing | None = None
        self.searches, self.millis, self.problem = 0, 0.0, ""

    def close(self) -> None:
        """Close the gallery."""
        self._engine.close()

    @property
    def engine(self) -> Engine:
        """For thumbnails."""
        return self._engine

    @property
    def info(self) -> Info:
        """Model, place of the gallery, and the version of what is in force."""
        score = "(1 + cosine) / 2" if self._engine.confidence is None else "probability"
        method = f"fgsbir-edge {__version__} {self._engine.bundle.name}; backend {self._engine.encoder.name}; score: {score}"
        return Info(method, self._engine.gallery.path, self._version)

    def draw(self, stamp: Stamp, stroke: Stroke) -> Answer:
        """One more stroke [n, 2], x right and y down in any unit. Strokes of one stamp are one sketch, another stamp begins a
        new one, and a stroke without points clears the table.

        Raises what ``Sketch`` raises; the stroke is left out then.
        """
        if not len(stroke):
            self._strokes, self._stamp, self._last = [], stamp, None
            return Answer((), None)
        strokes = [*(self._strokes if stamp == self._stamp else []), stroke]
        try:
            sketch = Sketch.from_strokes(strokes)
            sketch.centred()  # raises where all points coincide
        except EmptySketchError:
            sketch = None  # a dot: the next point or stroke makes a sketch of it
        self._strokes, self._stamp = strokes, stamp
        self._last = None
        return Answer((), None) if sketch is None else self._search(sketch)

    def see(self, image: NDArray[np.uint8]) -> Answer:
        """A whole drawing, uint8 [H, W] or [H, W, 3 or 4]. Raises what ``as_sketch`` raises."""
        self._strokes, self._stamp, self._last = [], None, None
        return self._search(as_sketch(image))

    def adapt(self, photo: str) -> Taught:
        """Note that the person meant ``photo`` by the last sketch, and learn from all that this person has shown."""
        if not self.person:
            return Taught(False, "parameter person is empty: say who draws, as in 'ros2 param set /fgsbir person ann'")
        if self._last is None:
            return Taught(False, "there is no sketch to learn from: draw first")
        try:
            before = self._rank(photo)
            shown = self._engine.feedback(self._last, photo, person=self.person)
            self._version += 1
            return Taught(True, shown.explanation, before, self._rank(photo), shown.pairs)
        except (FgsbirError, ValueError) as error:  # ValueError: no name for a person
            return Taught(False, str(error))

    def undo(self) -> Taught:
        """Take back what the person has shown last."""
        try:
            back = self._engine.learner.undo(self.person)
        except FgsbirError as error:
            return Taught(False, str(error))
        self._version += 1
        return Taught(True, back.explanation, pairs=back.pairs)

    def reset(self) -> Taught:
        """Forget the person: all pairs, and what was learned of them."""
        try:
            self._engine.gallery.people.forget(self.person)
        except FgsbirError as error:
            return Taught(False, str(error))
        self._version += 1
        return Taught(True, f"{self.person!r} is forgotten")

    def use_person(self, person: str) -> None:
        """Someone else draws from now on; "" is nobody."""
        if person != self.person:
            self.person = person
            self._version += 1

    def values(self) -> dict[str, str]:
        """For diagnostics."""
        return {
            "photos": str(len(self._engine.gallery)),
            "person": self.person,
            "pairs": str(self._pairs()),
            "database_version": str(self._version),
            "searches": str(self.searches),
            "last search, ms": f"{self.millis:.1f}",
            "last problem": self.problem,
        }

    def _known(self) -> str | None:
        """The person as a search wants it: None for nobody, and for one who has not shown anything yet."""
        return self.person if self.person in self._engine.gallery.people.names() else None

    def _pairs(self) -> int:
        known = self._known()
        return 0 if known is None else len(self._engine.gallery.people.shown(known))

    def _search(self, sketch: Sketch | Drawing) -> Answer:
        start = time.perf_counter()
        hits = self._engine.search(sketch, self.k, person=self._known())
        self._last = sketch
        self.searches, self.millis = self.searches + 1, 1e3 * (time.perf_counter() - start)
        found = tuple(item for item in map(scored, hits) if item[1] >= self._settings.min_score)
        return Answer(found, sketch, self.millis)

    def _rank(self, photo: str) -> int:
        engine, known = self._engine, self._known()
        adapter = None if known is None else engine.learner.adapter(known)
        assert self._last is not None
        return engine.gallery.ranks(engine.encode_sketches([self._last]), [photo], head=engine.head, adapter=adapter)[0]


def scored(hit: Hit) -> tuple[str, float]:
    """(photo, score in [0, 1]): the probability that it is meant, or (1 + cosine) / 2 where the model has no constants for it."""
    return hit.name, 1.0 - hit.distance * hit.distance / 4.0 if hit.confidence is None else hit.confidence
