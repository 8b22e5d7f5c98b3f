"""An engine asked by many at once: the same answers as one by one, nothing lost, nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from fgsbir_edge.arrays import Float32
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import GalleryFormatError
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.serve.problems import Problem
from fgsbir_edge.serve.worker import Worker
from fgsbir_edge.sketch import Sketch
from tests.serve.running import drawn
from tests.toy import PHOTOS

TURNS = 40


def at_once(tasks: list[Callable[[], httpx.Response]], threads: int = 8) -> list[httpx.Response]:
    with ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]


def test_many_at_once_get_the_answers_of_one_by_one(client: httpx.Client) -> None:
    def ask(number: int) -> httpx.Response:
        return client.post("/search", json={"strokes": drawn(number), "k": PHOTOS})

    expected = [ask(number).json() for number in range(PHOTOS)]
    answers = at_once([lambda number=turn % PHOTOS: ask(number) for turn in range(TURNS)])  # type: ignore[misc]
    for turn, answer in enumerate(answers):
        assert answer.json() == expected[turn % PHOTOS]


def test_many_teach_at_once_and_nothing_is_lost(client: httpx.Client, gallery_path: Path) -> None:
    photos = client.get("/photos", params={"limit": PHOTOS}).json()["photos"]

    def teach(turn: int) -> httpx.Response:
        body = {"strokes": drawn(turn % PHOTOS), "photo": photos[turn % PHOTOS]["id"], "person": f"person {turn % 3}"}
        return client.post("/feedback", json=body)

    tasks = [lambda turn=turn: teach(turn) for turn in range(24)]  # type: ignore[misc]
    tasks += [lambda turn=turn: client.post("/search", json={"strokes": drawn(turn)}) for turn in range(PHOTOS)]  # type: ignore[misc]
    assert {answer.status_code for answer in at_once(tasks)} == {200}
    with Gallery.open(gallery_path, None) as gallery:
        assert [len(gallery.people.shown(f"person {number}")) for number in range(3)] == [8, 8, 8]


def test_encoding_is_safe_from_several_threads(bundle: Bundle) -> None:
    with Engine.open(bundle=bundle, threads=1) as engine:
        sketches = [Sketch.from_strokes(drawn(number)) for number in range(PHOTOS)]
        expected = [engine.encode_sketches([sketch]) for sketch in sketches]
        with ThreadPoolExecutor(4) as pool:
            rows = list(pool.map(lambda turn: engine.encode_sketches([sketches[turn % PHOTOS]]), range(TURNS)))
    for turn, row in enumerate(rows):
        np.testing.assert_array_equal(row, expected[turn % PHOTOS])


class OneThreadEncoder:
    """An encoder that belongs to the thread that made it, as those on a GPU do."""

    def __init__(self, inner: OnnxEncoder) -> None:
        self.name, self.size, self.features = "one thread", inner.size, inner.features
        self._inner, self._thread = inner, threading.get_ident()

    def encode(self, pixels: Float32) -> Float32:
        assert threading.get_ident() == self._thread
        return self._inner.encode(pixels)


def test_an_encoder_of_one_thread_stays_on_it(bundle: Bundle, gallery_path: Path) -> None:
    def opened() -> Engine:
        return Engine(bundle, OneThreadEncoder(OnnxEncoder(bundle, 1)), Gallery.open(gallery_path, bundle))

    worker = Worker(opened, workers=4)
    assert not worker.parallel
    sketch = Sketch.from_strokes(drawn(1))

    async def ask() -> list[Float32]:
        return await asyncio.gather(*(worker.encode(lambda: [sketch]) for _ in range(8)))

    assert len(asyncio.run(ask())) == 8
    worker.close()


def test_too_many_waiting_are_turned_away(bundle: Bundle, gallery_path: Path) -> None:
    worker = Worker(lambda: Engine.open(bundle=bundle, gallery=gallery_path, threads=1), waiting=2)
    free = threading.Event()

    async def ask() -> list[object]:
        tasks = [asyncio.ensure_future(worker.run(lambda _: free.wait(60))) for _ in range(3)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        free.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(ask())
    assert results[:2] == [True, True]
    assert isinstance(results[2], Problem)
    assert (results[2].status, results[2].headers) == (503, {"Retry-After": "1"})
    worker.close()


def test_an_engine_that_does_not_open_leaves_no_thread(bundle: Bundle, tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(GalleryFormatError):
        Worker(lambda: Engine.open(bundle=bundle, gallery=tmp_path / "none", threads=1))
    assert threading.active_count() == before
