"""What the API does, on an engine: functions for the gallery's thread, and the kiosk that calls them."""

from __future__ import annotations

import base64
import bisect
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fgsbir_edge.arrays import Float32
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import UnknownPersonError, UnknownPhotoError
from fgsbir_edge.feedback import Feedback
from fgsbir_edge.formats.drawing import Drawing, read_drawing
from fgsbir_edge.gallery import Hit, Item
from fgsbir_edge.gallery.filters import Where
from fgsbir_edge.gallery.people import OutdatedError
from fgsbir_edge.gallery.store import Entry
from fgsbir_edge.head import Adapter
from fgsbir_edge.photo import ImageBudget
from fgsbir_edge.serve.options import GUEST_SECONDS, MAX_BODY, MAX_PIXELS
from fgsbir_edge.serve.problems import Problem
from fgsbir_edge.serve.worker import Worker
from fgsbir_edge.sketch import MAX_POINTS, Sketch

T = TypeVar("T")
Facts = dict[str, Any]
SketchReader = Callable[[], "Sketch | Drawing"]


@dataclass(frozen=True)
class Question:
    """How to look: ``k`` photos, by what was learned of ``person``, among those of ``category`` that ``where`` lets through."""

    k: int = 10
    person: str | None = None
    category: str | None = None
    where: Where | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        """Which photos may answer, as the gallery takes it."""
        return {"category": self.category, "where": self.where}


class Kiosk:
    """An engine's people and photos for many clients at once."""

    def __init__(self, worker: Worker, clock: Callable[[], float] = time.monotonic) -> None:
        self.worker, self._clock = worker, clock
        self._guests: dict[str, float] = {}  # name: when they were last of use
        self.gallery_path = worker.now(lambda engine: engine.gallery.path)

    def close(self) -> None:
        """Forget the guests, let what is under way end, and close the engine."""
        try:
            for guest in self._guests:
                self.worker.now(lambda engine, name=guest: _forget_if_known(engine, name))  # type: ignore[misc]
        finally:
            self.worker.close()

    async def search(self, read: SketchReader, question: Question) -> Facts:
        """The photos nearest to a drawing."""
        self._touch(question.person)
        features = await self.worker.encode(lambda: [read()])
        return await self.worker.run(lambda engine: _search(engine, features, question))

    async def adapt(self, person: str, reads: Sequence[SketchReader], photos: Sequence[int]) -> Facts:
        """Learn from pairs in one step."""
        return (await self._show(Question(person=person), reads, photos))[0]

    async def feedback(self, read: SketchReader, photo: int, question: Question) -> Facts:
        """Learn from one pair, and search again."""
        facts, features = await self._show(question, [read], [photo])
        found = await self.worker.run(lambda engine: _search(engine, features, question))
        return {**found, **facts}

    async def _show(self, question: Question, reads: Sequence[SketchReader], photos: Sequence[int]) -> tuple[Facts, Float32]:
        self._touch(question.person)
        names = await self.worker.run(lambda engine: [_entry(engine, photo).name for photo in photos])
        features = await self.worker.encode(lambda: [read() for read in reads])
        return await self.worker.run(lambda engine: _show(engine, question, features, photos, names)), features

    async def photos(self, after: int, limit: int) -> Facts:
        """A page of photos."""
        return await self.worker.run(lambda engine: _photos(engine, after, limit))

    async def item(self, photo: int) -> Item:
        """A photo's row."""
        return await self.worker.run(lambda engine: engine.gallery.item(photo))

    async def thumbnail(self, photo: int) -> bytes:
        """A photo's thumbnail, JPEG."""
        return await self.worker.run(lambda engine: engine.gallery.thumbnail(_entry(engine, photo).name))

    async def people(self, after: str, limit: int) -> Facts:
        """A page of people."""
        return await self.worker.run(lambda engine: _people(engine, after, limit, set(self._guests)))

    async def add(self, person: str | None) -> Facts:
        """Somebody new by name; None: a guest."""
        await self._forget_old_guests()
        name = f"Guest {secrets.token_hex(3)}" if person is None else person
        facts = await self.worker.run(lambda engine: _add(engine, name))
        if person is None:
            self._guests[name] = self._clock()
        return {**facts, "guest": person is None}

    async def forget(self, person: str) -> None:
        """Delete somebody."""
        await self.worker.run(lambda engine: engine.gallery.people.forget(person))
        self._guests.pop(person, None)

    async def undo(self, person: str) -> Facts:
        """Take back what somebody has shown last."""
        self._touch(person)
        return _learned(await self.worker.run(lambda engine: engine.learner.undo(person)))

    def _touch(self, person: str | None) -> None:
        if person in self._guests:
            self._guests[person] = self._clock()

    async def _forget_old_guests(self) -> None:
        old = [name for name, used in self._guests.items() if self._clock() - used > GUEST_SECONDS]
        for name in old:
            await self.worker.run(lambda engine, name=name: _forget_if_known(engine, name))  # type: ignore[misc]
            self._guests.pop(name, None)


def reader(strokes: Sequence[Sequence[Sequence[float]]] | None, image: str | bytes | None) -> SketchReader:
    """What makes a sketch of strokes, or of an image file in base64 or as it is; raises as ``read_drawing`` and ``Sketch`` do."""
    if image is not None:
        data = base64.b64decode(image) if isinstance(image, str) else image
        return lambda: read_drawing(data, ImageBudget(MAX_BODY, MAX_PIXELS))
    points = [[point[:2] for point in stroke] for stroke in strokes or []]  # rows of one width
    return lambda: Sketch.from_strokes(points, MAX_POINTS)


def _search(engine: Engine, features: Float32, question: Question) -> Facts:
    adapter = None if question.person is None else engine.learner.adapter(question.person)
    answer = engine.search_features(features, question.k, adapter=adapter, **question.chosen)
    return {
        "hits": [_hit(hit) for hit in answer],
        "photos": len(engine.gallery),
        "person": question.person,
        "in_gallery": _short(answer.in_gallery),
        "known": answer.known,
        "sure": answer.sure,
    }


def _show(engine: Engine, question: Question, features: Float32, photos: Sequence[int], names: Sequence[str]) -> Facts:
    person = question.person
    assert person is not None

    def ranks(adapter: Adapter | None) -> list[int]:
        return engine.gallery.ranks(features, names, head=engine.head, adapter=adapter, **question.chosen)

    before = ranks(engine.learner.adapter(person) if person in engine.gallery.people.names() else None)
    feedback = engine.learner.show_features(person, features, names)
    after = ranks(feedback.adapter)
    rows = [{"photo": photo, "before": old, "after": new} for photo, old, new in zip(photos, before, after, strict=True)]
    return {**_learned(feedback), "ranks": rows}


def _learned(feedback: Feedback) -> Facts:
    return {
        "person": feedback.person,
        "pairs": feedback.pairs,
        "learned": feedback.adapter.moves("sketch") or feedback.adapter.moves("photo"),
        "explanation": feedback.explanation,
    }


def _hit(hit: Hit) -> Facts:
    return {
        "id": hit.id,
        "name": hit.name,
        "category": hit.category,
        "rank": hit.rank,
        "distance": _short(hit.distance),
        "confidence": _short(hit.confidence),
    }


def _short(number: float | None) -> float | None:
    return None if number is None else round(number, 6)


def _entry(engine: Engine, photo: int) -> Entry:
    entries = engine.gallery.index.entries
    place = bisect.bisect_left(entries, photo, key=lambda entry: entry.id)
    if place == len(entries) or entries[place].id != photo:
        raise UnknownPhotoError(f"photo {photo} is not in the gallery; ask GET /photos for those that are")
    return entries[place]


def _photos(engine: Engine, after: int, limit: int) -> Facts:
    entries = engine.gallery.index.entries
    first = bisect.bisect_right(entries, after, key=lambda entry: entry.id)
    page = entries[first : first + limit]
    rows = [{"id": entry.id, "name": entry.name, "category": entry.category} for entry in page]
    return {"photos": rows, "total": len(entries), "next": page[-1].id if first + limit < len(entries) else None}


def _people(engine: Engine, after: str, limit: int, guests: set[str]) -> Facts:
    people = engine.gallery.people
    names = sorted(people.names())
    first = bisect.bisect_right(names, after)
    page = names[first : first + limit]
    rows = [{"person": name, "pairs": len(people.shown(name)), "guest": name in guests} for name in page]
    return {"people": rows, "total": len(names), "next": page[-1] if first + limit < len(names) else None}


def _add(engine: Engine, name: str) -> Facts:
    people = engine.gallery.people
    taken = Problem(409, "PersonExists", f"somebody is called {name!r} already", "choose that person, or take another name")
    nothing = people.shown_or_nothing(name)
    if nothing.version or name in people.names():
        raise taken
    try:
        people.replace(nothing, nothing, Adapter.identity(engine.head))
    except OutdatedError:
        raise taken from None
    return {"person": name, "pairs": 0}


def _forget_if_known(engine: Engine, name: str) -> None:
    try:
        engine.gallery.people.forget(name)
    except UnknownPersonError:
        return
