"""The drawing page in a real browser: drawn on by mouse, pen, finger and keyboard; it finds, learns, forgets and starts anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fgsbir_edge.engine import Engine
from fgsbir_edge.formats import read_sketch
from fgsbir_edge.pairs import DEMO_FOLDER
from fgsbir_edge.serve.service import Kiosk
from fgsbir_edge.serve.worker import Worker
from tests.serve.browser import DESKTOP, PHONE, PORTRAIT, Screen, chromium, demo_drawing, demo_kiosk
from tests.serve.running import QUIET, SECONDS, running

pytestmark = pytest.mark.slow
PERSON = "u8033"
TOKEN = "a-token-of-the-tests"
LINE = [(200.0, 300.0), (500.0, 320.0), (800.0, 300.0)]
OTHER = [(200.0, 700.0), (500.0, 720.0), (800.0, 700.0)]
NewScreen = Callable[..., Screen]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def api(browser: Any) -> Iterator[httpx.Client]:
    with running(demo_kiosk()) as client:
        yield client


@pytest.fixture
def screen(browser: Any, api: httpx.Client) -> Iterator[NewScreen]:
    """Opens pages; in the end nothing may have gone wrong on any, and nobody is left."""
    opened: list[Screen] = []

    def new(size: tuple[int, int] = DESKTOP, **context: Any) -> Screen:
        opened.append(Screen(browser, str(api.base_url), size, **context))
        return opened[-1]

    yield new
    for one in opened:
        one.context.close()
        assert one.faults == []
    for person in api.get("/people").json()["people"]:
        api.post("/people/forget", json={"person": person["person"]})


def eventually(holds: Callable[[], bool]) -> None:
    """What the page asks for without waiting for it must come true."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_drawing_finds_photos_and_a_tap_teaches(screen: NewScreen, api: httpx.Client) -> None:
    page = screen()
    assert page.photos() == []
    page.draw(demo_drawing(PERSON, "pug"))
    assert len(page.settled()) == 24
    assert len(page.searches) > 1, "results come while one draws"
    page.photo("pug").click()
    page.told("Show one more")
    page.page.click("#clear")
    page.page.wait_for_selector(".photo", state="detached")
    page.draw(demo_drawing(PERSON, "cuckoo"))
    before = page.settled().index("cuckoo") + 1
    page.photo("cuckoo").click()
    said = page.told("now it comes")
    after = page.photos().index("cuckoo") + 1
    assert after < before
    assert f"Before, it came in place {before}; now it comes {'first' if after == 1 else f'in place {after}'}." in said
    assert page.photo("cuckoo").get_attribute("aria-current") == "true"
    (guest,) = api.get("/people").json()["people"]
    assert (guest["pairs"], guest["guest"]) == (2, True)
    page.page.click("#unlearn")
    page.told("Unlearned")
    assert page.settled().index("cuckoo") + 1 == before
    page.page.click("#anew")
    page.page.wait_for_selector("#person-name:text-is('Who draws?')")
    eventually(lambda: api.get("/people").json()["total"] == 0)


def test_an_empty_board_shows_what_could_be_drawn(screen: NewScreen) -> None:
    page = screen()
    page.page.wait_for_selector("#ideas img >> nth=11")
    names = page.page.eval_on_selector_all("#ideas img", "images => images.map((image) => image.alt)")
    assert len(set(names)) == 12
    page.draw([LINE])
    page.settled()
    assert not page.page.is_visible("#ideas")
    page.page.click("#clear")
    page.page.wait_for_selector("#ideas", state="visible")


@pytest.mark.parametrize("size", [(320, 568), (390, 844), (667, 375), (844, 390), (1080, 1920), (1280, 800)])
def test_nothing_runs_out_of_the_screen(screen: NewScreen, size: tuple[int, int]) -> None:
    page = screen(size=size)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    board = page.page.locator("#board").bounding_box()
    assert board["width"] == pytest.approx(board["height"], abs=1)
    assert board["y"] + board["height"] <= size[1], "the whole board can be drawn on without scrolling"
    for tool in page.page.locator("#tools button").all():
        box = tool.bounding_box()
        assert box["x"] + box["width"] <= size[0]
        assert box["y"] + box["height"] <= size[1]


def test_what_is_kept_is_told(browser: Any, tmp_path: Path) -> None:
    with Engine.open(gallery=tmp_path / "g", photos=DEMO_FOLDER / "photos", create=True, threads=1):
        pass
    for gallery, said in ((tmp_path / "g", "kept in the gallery"), (None, "or the server stops")):
        kiosk = demo_kiosk() if gallery is None else Kiosk(Worker(lambda: Engine.open(gallery=tmp_path / "g", threads=1)))
        with running(kiosk) as client:
            page = Screen(browser, str(client.base_url))
            page.page.click("#person")
            assert said in page.page.inner_text("#people-kept")
            page.context.close()


def test_strokes_are_undone_redone_erased_and_saved(screen: NewScreen, tmp_path: Path) -> None:
    page = screen()
    assert page.page.is_disabled("#undo")
    page.draw([LINE, OTHER])
    page.settled()
    assert page.strokes() == 2
    page.page.click("#undo")
    page.settled()
    assert page.strokes() == 1
    page.page.keyboard.press("Control+y")
    page.settled()
    assert page.strokes() == 2
    page.page.click("#eraser")
    page.draw([[(500.0, 250.0), (500.0, 390.0)]])
    page.settled()
    assert page.strokes() == 3, "a line rubbed out in its middle is two"
    first = read_sketch(page.save_svg(tmp_path / "drawing.svg"))
    assert [len(stroke) > 1 for stroke in first.strokes] == [True] * 3
    assert first.bounds == pytest.approx((200, 300, 800, 720), abs=8)
    page.page.keyboard.press("Control+z")
    page.settled()
    assert page.strokes() == 2
    page.page.click("#clear")
    page.page.wait_for_selector(".photo", state="detached")
    assert page.page.is_visible("#hint")
    page.page.click("#undo")
    page.settled()
    assert page.strokes() == 2


def test_pens_press(screen: NewScreen, tmp_path: Path) -> None:
    page = screen()
    widths = []
    for force in (0.1, 0.9):
        tablet = page.context.new_cdp_session(page.page)
        kinds = ("mousePressed", "mouseMoved", "mouseMoved", "mouseReleased")
        for kind, (x, y) in zip(kinds, page.at([*LINE, LINE[2]]), strict=True):
            pen = {"button": "left", "buttons": 1, "clickCount": 1, "pointerType": "pen", "force": force}
            tablet.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **pen})
        svg = page.save_svg(tmp_path / "pen.svg").read_text()
        widths.append(float(svg.split('stroke-width="')[1].split('"')[0]))
        page.page.click("#clear")
    assert widths[1] > 1.5 * widths[0]


def test_fingers_draw_and_tap_on_a_phone(screen: NewScreen) -> None:
    page = screen(PHONE, has_touch=True, is_mobile=True)
    finger = page.context.new_cdp_session(page.page)
    for kind, (x, y) in zip(("touchStart", "touchMove", "touchMove"), page.at(LINE), strict=True):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.page.wait_for_selector("#undo:enabled")  # the stroke has ended: photos found under way move no more
    name = page.settled()[0]
    assert page.page.evaluate("scrollY") == 0, "the board does not scroll"
    page.photo(name).tap()
    assert name in page.told("You meant")


def test_everything_by_keyboard(screen: NewScreen, api: httpx.Client) -> None:
    page = screen()
    press = page.page.keyboard.press
    focused = "document.activeElement.id || document.activeElement.classList[0]"

    def tab_to(wanted: str) -> None:
        for _ in range(60):
            if page.page.evaluate(focused) == wanted:
                outline = page.page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
                assert float(outline[:-2]) >= 3, "focus is seen"
                return
            press("Tab")
        raise AssertionError(f"{wanted} is not reached by Tab")

    tab_to("board")
    for key in (
        "Space",
        *["ArrowRight"] * 8,
        *["ArrowDown"] * 6,
        "Shift+ArrowLeft",
        "Space",
        *["ArrowUp"] * 3,
        "Enter",
        "ArrowRight",
        "Escape",
    ):
        press(key)
    page.settled()
    assert page.strokes() == 2
    press("Control+z")
    tab_to("undo")
    press("Enter")
    page.page.wait_for_selector(".photo", state="detached")
    tab_to("redo")
    press("Space")
    page.settled()
    tab_to("photo")
    press("Enter")
    page.told("You meant")
    page.page.evaluate("document.getElementById('anew').blur()")
    page.page.locator("#person").focus()
    press("Enter")
    page.page.wait_for_selector("#people[open]")
    tab_to("people-new")
    page.page.keyboard.type("Ann")
    press("Enter")
    page.page.wait_for_selector("#people:not([open])", state="attached")
    assert page.page.inner_text("#person-name") == "Ann"
    press("Enter")
    page.page.wait_for_selector("#people[open] li:nth-child(2)")
    press("Escape")
    assert not page.page.is_visible("#people")
    eventually(lambda: [person["person"] for person in api.get("/people").json()["people"]] == ["Ann"])  # the guest is gone


def test_people_are_chosen_added_and_forgotten_after_a_question(screen: NewScreen, api: httpx.Client) -> None:
    api.post("/people", json={"person": "Bob"})
    page = screen()
    page.page.click("#person")
    page.page.click("#people-list button:has-text('Bob, 0 drawings')")
    page.draw([LINE])
    page.photo(page.settled()[0]).click()
    page.told("You meant")
    assert api.get("/people").json()["people"][0]["pairs"] == 1
    page.page.click("#person")
    page.page.fill("#people-new", "Bob")
    page.page.click("#people-form button")
    page.page.wait_for_selector("#people-fault:has-text('already')")
    page.faults.clear()  # the browser notes the 409
    for answer, left in (("#confirm-no", 1), ("#confirm-yes", 0)):
        page.page.click("#people-list button:text-is('Forget')")
        assert "Bob" in page.page.inner_text("#confirm-text")
        page.page.click(answer)
        eventually(lambda: api.get("/people").json()["total"] == left)  # noqa: B023 - asked at once
    page.page.wait_for_selector("#person-name:text-is('Who draws?')")


def test_it_starts_anew_when_nobody_is_there_and_warns_before(screen: NewScreen, api: httpx.Client) -> None:
    page = screen(fake_time=True)
    clock = page.page.clock
    clock.fast_forward(120_000)
    assert not page.page.is_visible("#idle"), "there is nothing to start anew"
    page.draw([LINE])
    page.photo(page.settled()[0]).click()
    page.told("You meant")
    clock.fast_forward(52_000)
    page.page.wait_for_selector("#idle[open]")
    page.page.click("#idle-stay")
    clock.fast_forward(30_000)
    assert not page.page.is_visible("#idle")
    assert page.photos()
    clock.fast_forward(22_000)
    page.page.wait_for_selector("#idle[open]")
    clock.fast_forward(10_000)
    page.page.wait_for_selector(".photo", state="detached")
    assert page.page.is_visible("#hint")
    assert page.page.inner_text("#person-name") == "Who draws?"
    assert page.page.is_disabled("#undo"), "nothing of the one before is left"
    eventually(lambda: api.get("/people").json()["total"] == 0)


def test_doubt_is_told(screen: NewScreen) -> None:
    page = screen()
    answer: dict[str, Any] = {"hits": [{"id": 1, "name": "a.jpg", "category": None, "rank": 1, "distance": 0}], "photos": 32}
    page.page.route("**/search", lambda route: route.fulfill(json=answer))
    for known, title in ((False, "The nearest of 32 photos; yours may not be among them"), (True, "The nearest of 32 photos")):
        answer["known"] = known
        page.draw([LINE])
        page.page.wait_for_selector(f"#found-title:text-is('{title}')")


def test_stale_answers_are_dropped(screen: NewScreen) -> None:
    page = screen()
    held: list[Any] = []
    page.page.route("**/search", lambda route: held.append(route) if not held else route.continue_())
    page.draw([LINE])
    while not held:
        page.page.wait_for_timeout(20)
    page.draw([OTHER])
    page.page.wait_for_selector(".photo")
    page.page.wait_for_timeout(300)
    fresh = page.photos()
    old = {"hits": [{"id": 1, "name": "old.jpg", "category": None, "rank": 1, "distance": 0}], "photos": 1, "person": None}
    held[0].fulfill(json=old)
    page.page.wait_for_timeout(300)
    assert page.photos() == fresh


def test_a_token_is_asked_for_once_or_comes_with_the_address(browser: Any) -> None:
    with running(demo_kiosk(), replace(QUIET, token=TOKEN)) as client:
        for tail in ("", f"#token={TOKEN}"):
            page = Screen(browser, str(client.base_url))
            page.open("?" + tail)
            assert TOKEN not in page.page.url
            page.draw([LINE])
            page.photo(page.settled()[0]).click()
            if not tail:
                page.page.fill("#key-text", TOKEN)
                page.page.keyboard.press("Enter")
            page.told("You meant")
            assert not page.page.is_visible("#key")
            assert [fault for fault in page.faults if "401" not in fault] == []
            page.context.close()


def test_faults_of_the_server_are_told(screen: NewScreen) -> None:
    page = screen()
    page.page.route(
        "**/search", lambda route: route.fulfill(status=503, json={"error": "E", "message": "It is broken", "remedy": "mend it"})
    )
    page.draw([LINE])
    assert page.told("It is broken") == "It is broken; mend it."
    page.page.unroute("**/search")
    page.page.route("**/search", lambda route: route.abort())
    page.draw([OTHER])
    page.told("does not answer")
    page.faults.clear()


AUDIT = (Path(__file__).parent / "audit.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [PORTRAIT, DESKTOP, PHONE], ids=["portrait", "desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_labels_sizes_contrast_and_layout(screen: NewScreen, size: tuple[int, int], scheme: str) -> None:
    page = screen(size, color_scheme=scheme, reduced_motion="reduce")
    assert page.page.evaluate(AUDIT) == []
    page.draw([LINE])
    page.photo(page.settled()[0]).click()
    page.told("You meant")
    assert page.page.evaluate(AUDIT) == []
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs out at the side"
    assert page.page.evaluate("getComputedStyle(document.querySelector('.photo')).animationName") == "none"
    for place in ("#board", "#tools", "#told"):
        box = page.page.locator(place).bounding_box()
        assert box["y"] + box["height"] <= size[1], f"{place} is on the screen at once"
    page.page.click("#person")
    page.page.wait_for_selector("#people[open]")
    assert page.page.evaluate(AUDIT) == []
