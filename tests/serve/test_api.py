"""The HTTP API over the toy model: what it answers, what it keeps, what it shows of photos."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.confidence import Confidence
from fgsbir_edge.engine import Engine
from fgsbir_edge.gallery import Gallery
from fgsbir_edge.serve.options import GUEST_SECONDS
from fgsbir_edge.serve.page_files import page_files
from fgsbir_edge.serve.service import Kiosk
from fgsbir_edge.serve.worker import Worker
from fgsbir_edge.sketch import Sketch
from tests.serve.running import drawn, running
from tests.toy import PHOTOS


def hits_of(client: httpx.Client, number: int, **more: object) -> list[dict[str, Any]]:
    found = client.post("/search", json={"strokes": drawn(number), **more})
    assert found.status_code == 200, found.text
    return found.json()["hits"]


@pytest.fixture
def ids(client: httpx.Client) -> dict[str, int]:
    return {photo["name"]: photo["id"] for photo in client.get("/photos", params={"limit": PHOTOS}).json()["photos"]}


def test_the_server_tells_about_itself(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok", "photos": PHOTOS}
    assert client.get("/version").json()["model"] == "toy"
    expected = {"idle_seconds": 60.0, "token_needed": False, "categories": ["even", "odd"], "keeps": True}
    assert client.get("/settings").json() == expected


def test_strokes_are_searched_as_the_engine_does(client: httpx.Client, bundle: Bundle, gallery_path: Path) -> None:
    with Engine.open(bundle=bundle, gallery=gallery_path, threads=1) as engine:
        expected = engine.search(Sketch.from_strokes(drawn(3)), 5)
    hits = hits_of(client, 3, k=5)
    assert [(hit["id"], hit["rank"], hit["name"]) for hit in hits] == [(hit.id, hit.rank, hit.name) for hit in expected]
    np.testing.assert_allclose([hit["distance"] for hit in hits], [hit.distance for hit in expected], atol=1e-5)


def test_answers_say_how_sure_they_are(client: httpx.Client, bundle: Bundle, gallery_path: Path) -> None:
    plain = client.post("/search", json={"strokes": drawn(3)}).json()
    assert [plain[name] for name in ("in_gallery", "known", "sure")] == [None] * 3, "the toy model has no constants for it"
    assert plain["hits"][0]["confidence"] is None

    def opened() -> Engine:
        engine = Engine.open(bundle=bundle, gallery=gallery_path, threads=1)
        engine.confidence = Confidence((2.0, 0.3, 0.1), (0.0, 1.0), (1.0, 0.2, 0.5, 0.5, 0.1), none_below=0.9, sure_from=0.05)
        return engine

    with opened() as engine:
        expected = engine.search(Sketch.from_strokes(drawn(3)), 5)
    with running(Kiosk(Worker(opened))) as doubtful:
        found = doubtful.post("/search", json={"strokes": drawn(3), "k": 5}).json()
    assert [hit["confidence"] for hit in found["hits"]] == pytest.approx([hit.confidence for hit in expected], abs=1e-5)
    assert found["in_gallery"] == pytest.approx(expected.in_gallery, abs=1e-5)
    assert (found["known"], found["sure"]) == (expected.known, expected.sure) == (False, True)


def test_pressure_and_time_may_follow_the_coordinates(client: httpx.Client) -> None:
    strokes = [[[*point, 0.5] if place % 2 else [*point, 0.7, 12.0] for place, point in enumerate(drawn(3)[0])]]
    assert client.post("/search", json={"strokes": strokes}).json()["hits"] == hits_of(client, 3)


def test_images_are_searched_as_body_and_in_base64(
    client: httpx.Client, bundle: Bundle, gallery_path: Path, data_path: Path
) -> None:
    path = data_path / "sketches" / "ann" / "4.png"
    with Engine.open(bundle=bundle, gallery=gallery_path, threads=1) as engine:
        expected = [hit.name for hit in engine.search(path, 4, category="odd")]
    options = {"k": 4, "category": "odd"}
    plain = client.post("/search", params=options, content=path.read_bytes(), headers={"Content-Type": "image/png"})
    packed = client.post("/search", json={"image": base64.b64encode(path.read_bytes()).decode(), **options})
    assert plain.json() == packed.json()
    assert [hit["name"] for hit in plain.json()["hits"]] == expected


def test_feedback_is_learned_kept_undone_and_forgotten(
    client: httpx.Client, ids: dict[str, int], bundle: Bundle, gallery_path: Path
) -> None:
    names = sorted(ids, key=lambda name: name[-6:])
    for number in range(5):
        answer = client.post("/feedback", json={"strokes": drawn(number), "photo": ids[names[number]], "person": "ann"}).json()
        assert answer["pairs"] == number + 1
        (ranks,) = answer["ranks"]
        assert answer["hits"][ranks["after"] - 1]["id"] == ids[names[number]]
        if number == 0:
            assert ranks["before"] == 1 + [hit["name"] for hit in hits_of(client, 0, k=PHOTOS)].index(names[0])
        last = answer
    assert hits_of(client, 4, person="ann") == last["hits"]
    assert client.get("/people").json()["people"] == [{"person": "ann", "pairs": 5, "guest": False}]
    with Engine.open(bundle=bundle, gallery=gallery_path, threads=1) as engine:
        assert engine.gallery.people.shown("ann").photos == tuple(names[:5])
    undone = client.post("/people/undo", json={"person": "ann"}).json()
    assert undone["pairs"] == 4
    assert client.post("/people/forget", json={"person": "ann"}).status_code == 204
    assert client.get("/people").json() == {"people": [], "total": 0, "next": None}
    gone = client.post("/search", json={"strokes": drawn(1), "person": "ann"})
    assert gone.status_code == 404
    assert gone.json()["error"] == "UnknownPersonError"
    assert str(gallery_path) not in gone.text


def test_pairs_are_adapted_to_in_one_step(client: httpx.Client, ids: dict[str, int]) -> None:
    pairs = [
        {"strokes": drawn(number), "photo": ids[f"{'odd' if number % 2 else 'even'}/star{number:02d}.png"]} for number in range(5)
    ]
    adapted = client.post("/adapt", json={"person": "bob", "pairs": pairs}).json()
    assert (adapted["pairs"], len(adapted["ranks"])) == (5, 5)
    one_by_one = [client.post("/feedback", json={**pair, "person": "cat"}).json() for pair in pairs][-1]
    assert one_by_one["learned"] == adapted["learned"]
    assert hits_of(client, 7, person="bob") == hits_of(client, 7, person="cat")
    undone = client.post("/people/undo", json={"person": "bob"}).json()
    assert (undone["pairs"], undone["learned"]) == (0, False)
    assert hits_of(client, 7, person="bob") == hits_of(client, 7)


def test_a_photo_outside_the_category_teaches_nothing(client: httpx.Client, ids: dict[str, int]) -> None:
    body = {"strokes": drawn(1), "photo": ids["odd/star01.png"], "person": "ann", "category": "even"}
    assert client.post("/feedback", json=body).status_code == 404
    assert client.get("/people").json()["total"] == 0


def test_filters_leave_photos_out(client: httpx.Client, bundle: Bundle, gallery_path: Path, data_path: Path) -> None:
    with Engine.open(bundle=bundle, gallery=gallery_path, threads=1) as engine:
        engine.gallery.set_metadata({"odd/star05.png": {"price": 7}, "even/star04.png": {"price": 30}})
    assert [hit["name"] for hit in hits_of(client, 5, where="price < 10")] == ["odd/star05.png"]
    assert [hit["name"] for hit in hits_of(client, 5, where={"price": {">": 10}})] == ["even/star04.png"]
    picture = (data_path / "sketches" / "ann" / "4.png").read_bytes()
    found = client.post("/search", params={"where": "has price"}, content=picture, headers={"Content-Type": "image/png"})
    assert len(found.json()["hits"]) == 2
    for where in ("price <", {"price": {"<": "much"}}):
        wrong = client.post("/search", json={"strokes": drawn(1), "where": where})
        assert (wrong.status_code, wrong.json()["error"]) == (422, "FilterError")
    none = client.post("/search", json={"strokes": drawn(1), "where": "price > 99"})
    assert (none.status_code, none.json()["error"]) == (404, "EmptyGalleryError")


def test_people_are_added_once(client: httpx.Client) -> None:
    assert client.post("/people", json={"person": "Zoë / ..\\"}).status_code == 201
    again = client.post("/people", json={"person": "Zoë / ..\\"})
    assert (again.status_code, again.json()["error"]) == (409, "PersonExists")
    assert hits_of(client, 2, person="Zoë / ..\\") == hits_of(client, 2)


def test_people_come_in_pages(client: httpx.Client) -> None:
    for name in "dcba":
        client.post("/people", json={"person": name})
    first = client.get("/people", params={"limit": 3}).json()
    second = client.get("/people", params={"limit": 3, "after": first["next"]}).json()
    assert [person["person"] for person in first["people"] + second["people"]] == list("abcd")
    assert (first["total"], second["next"]) == (4, None)


def test_photos_come_in_pages(client: httpx.Client) -> None:
    seen: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = client.get("/photos", params={"after": after, "limit": 5}).json()
        seen += page["photos"]
        after = page["next"]
    assert len(seen) == page["total"] == PHOTOS
    assert len({photo["id"] for photo in seen}) == PHOTOS


def test_pictures_by_id(client: httpx.Client, ids: dict[str, int], gallery_path: Path) -> None:
    number = ids["odd/star05.png"]
    with Gallery.open(gallery_path, None) as gallery:
        assert client.get(f"/photos/{number}/thumbnail").content == gallery.thumbnail("odd/star05.png")
    answer = client.get(f"/photos/{number}/image", params={"side": 64})
    assert (answer.headers["content-type"], "immutable" in answer.headers["cache-control"]) == ("image/jpeg", True)
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert (picture.format, max(picture.size)) == ("JPEG", 64)


def test_a_file_that_changed_is_not_shown(client: httpx.Client, ids: dict[str, int], gallery_path: Path) -> None:
    source = gallery_path.parent / "photos" / "odd" / "star05.png"
    source.write_bytes((source.parent / "star07.png").read_bytes())
    changed = client.get(f"/photos/{ids['odd/star05.png']}/image")
    source.unlink()
    missing = client.get(f"/photos/{ids['odd/star05.png']}/image")
    for answer in (changed, missing):
        assert (answer.status_code, answer.json()["error"]) == (404, "PhotoFileGone")
        assert str(gallery_path.parent) not in answer.text
    assert client.get(f"/photos/{ids['odd/star05.png']}/thumbnail").status_code == 200


@pytest.mark.parametrize("number", ["0", "-1", "99", "1e3", "..%2f..%2fetc%2fpasswd", "odd%2Fstar05.png", str(2**63), "%00"])
@pytest.mark.parametrize("what", ["image", "thumbnail"])
def test_only_ids_of_the_gallery_find_a_picture(client: httpx.Client, number: str, what: str) -> None:
    answer = client.get(f"/photos/{number}/{what}")
    assert answer.status_code in (404, 422)
    assert set(answer.json()) == {"error", "message", "remedy"}


def test_what_another_process_changes_is_seen(
    client: httpx.Client, bundle: Bundle, gallery_path: Path, ids: dict[str, int]
) -> None:
    hits_of(client, 2)
    with Engine.open(bundle=bundle, gallery=gallery_path, threads=1) as other:
        other.gallery.remove(["even/star02.png"])
        other.feedback(Sketch.from_strokes(drawn(3)), "odd/star03.png", person="eve")
        expected = [hit.name for hit in other.search(Sketch.from_strokes(drawn(2)), PHOTOS, person="eve")]
    assert client.get("/health").json()["photos"] == PHOTOS - 1
    assert [hit["name"] for hit in hits_of(client, 2, k=PHOTOS, person="eve")] == expected
    assert client.get(f"/photos/{ids['even/star02.png']}/thumbnail").status_code == 404


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Guests:
    client: httpx.Client
    clock: Clock = field(default_factory=Clock)

    def new(self) -> str:
        return str(self.client.post("/people", json={"guest": True}).json()["person"])

    def known(self) -> list[str]:
        return [person["person"] for person in self.client.get("/people").json()["people"]]


@pytest.fixture
def guests(worker: Worker) -> Iterator[Guests]:
    clock = Clock()
    with running(Kiosk(worker, clock)) as client:
        yield Guests(client, clock)


def test_guests_who_stay_away_are_forgotten(guests: Guests, ids: dict[str, int]) -> None:
    idle, busy = guests.new(), guests.new()
    assert guests.client.get("/people").json()["people"][0]["guest"] is True
    guests.clock.now = 0.9 * GUEST_SECONDS
    hits_of(guests.client, 1, person=busy)
    guests.clock.now = 1.1 * GUEST_SECONDS
    new = guests.new()
    assert set(guests.known()) == {busy, new}
    assert idle not in guests.known()


def test_guests_are_forgotten_when_the_server_stops(worker: Worker, gallery_path: Path) -> None:
    with running(Kiosk(worker)) as client:
        client.post("/people", json={"person": "ann"})
        forgotten, left = Guests(client).new(), Guests(client).new()
        client.post("/people/forget", json={"person": forgotten})
        assert set(Guests(client).known()) == {"ann", left}
    with Gallery.open(gallery_path, None) as gallery:
        assert gallery.people.names() == ["ann"]


def test_the_page_comes_whole_and_from_here_alone(client: httpx.Client) -> None:
    start = client.get("/")
    assert start.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in start.headers["content-security-policy"]
    files = page_files()
    assert {"index.html", "page.css", "main.js", "board.js", "icon.svg"} <= set(files)
    for name, file in files.items():
        assert client.get(f"/page/{name}").content == file.data
        text = file.data.decode().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "//" not in text.replace(" // ", " ").replace("\n//", "\n") or name.endswith(".js"), name
        for outside in ("http:", "https:", "@import", "url(", "eval(", "innerHTML", " style=", "onclick="):
            assert outside not in text, (name, outside)
    assert client.get("/page/..%2fapp.py").status_code == 404
    assert client.get("/page/routes.py").status_code == 404
