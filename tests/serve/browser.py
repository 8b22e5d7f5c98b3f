"""Chromium, the drawing page in it, and what a hand does there. Needs Playwright, and Chromium, the system's or its own."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fgsbir_edge.engine import Engine
from fgsbir_edge.pairs import DEMO_FOLDER
from fgsbir_edge.serve.service import Kiosk
from fgsbir_edge.serve.worker import Worker
from tests.serve.tracing import Stroke, traced

PORTRAIT, DESKTOP, PHONE = (1080, 1920), (1280, 800), (390, 844)
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60_000  # ms, on a busy machine


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window; skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install '.[browser]'")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with api.sync_playwright() as playwright:
        try:
            made = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE)
        except api.Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}; apt-get install chromium-headless-shell")
        yield made
        made.close()


def demo_kiosk() -> Kiosk:
    """The shipped model over the shipped photos, in memory."""
    return Kiosk(Worker(lambda: Engine.open(photos=DEMO_FOLDER / "photos", threads=1)))


def demo_drawing(person: str, name: str) -> list[Stroke]:
    """A shipped person's drawing as strokes, in the board's units."""
    return traced(DEMO_FOLDER / "sketches" / person / f"{name}.png")


class Screen:
    """A page, and what went wrong on it."""

    def __init__(
        self, browser: Any, url: str, size: tuple[int, int] = DESKTOP, *, fake_time: bool = False, **context: Any
    ) -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.home, self.faults, self.searches = url, [], []
        self.page.on(
            "console", lambda line: self._fault(f"{line.type}: {line.text}") if line.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self._fault(f"exception: {error}"))
        self.page.on("request", self._request)
        if fake_time:
            self.page.clock.install()
        self.open()

    def _fault(self, text: str) -> None:
        self.faults.append(text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.home, "blob:")):
            self._fault(f"asked elsewhere: {request.url}")
        if request.url.endswith("/search"):
            self.searches.append(json.loads(request.post_data))

    def open(self, tail: str = "") -> None:
        """Load the page."""
        self.page.goto(self.home + tail)
        self.page.wait_for_selector("body[data-ready]")

    def draw(self, strokes: Sequence[Stroke]) -> None:
        """Draw with the mouse, in units of 1000 a side."""
        mouse = self.page.mouse
        for stroke in strokes:
            (x, y), *others = self.at(stroke)
            mouse.move(x, y)
            mouse.down()
            for x, y in others:
                mouse.move(x, y)
            mouse.up()

    def at(self, stroke: Stroke) -> Stroke:
        """Points of the board on the screen."""
        box = self.page.locator("#board").bounding_box()
        return [(box["x"] + x / 1000 * box["width"], box["y"] + y / 1000 * box["height"]) for x, y in stroke]

    def photos(self) -> list[str]:
        """Names of the photos shown, the nearest first."""
        return list(self.page.locator(".photo .name").all_inner_texts())

    def photo(self, name: str) -> Any:
        """A photo's button."""
        return self.page.locator(".photo", has=self.page.locator(".name", has_text=name)).first

    def settled(self) -> list[str]:
        """The photos when they belong to the drawing as it is."""
        self.page.wait_for_selector("#found[data-fresh=true] .photo")
        return self.photos()

    def told(self, part: str) -> str:
        """What the page says, once it says this."""
        self.page.wait_for_selector(f'#told-text:has-text("{part}")')
        return str(self.page.inner_text("#told-text"))

    def strokes(self) -> int:
        """How many strokes the last search had."""
        return len(self.searches[-1]["strokes"])

    def save_svg(self, path: Path) -> Path:
        """What the button SVG saves."""
        with self.page.expect_download() as download:
            self.page.click("#save")
        download.value.save_as(path)
        return path
