"""The pictures of the drawing page in docs/images: ``python -m tests.serve.screenshots [--out docs/images]``.

A shipped person draws two shipped photos with the mouse, in Chromium, and taps them. Needs what the tests of the page need.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tests.serve.browser import PHONE, PORTRAIT, Screen, chromium, demo_drawing, demo_kiosk
from tests.serve.running import running

PERSON, FIRST, SECOND = "u8033", "pug", "cuckoo"
FILM = (1000, 640)  # pixels of the page
FILM_WIDTH = 800  # of the moving picture
EVERY = 3  # points between two pictures
FRAME, PAUSE, END = 90, 900, 3200  # ms
COLOURS = 256
Picture = Image.Image


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.serve.screenshots", description=__doc__)
    options.add_argument("--out", type=Path, default=Path("docs/images"))
    folder: Path = options.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    with running(demo_kiosk()) as client, chromium() as browser:
        url = str(client.base_url)
        portrait = Screen(browser, url, PORTRAIT)
        taught(portrait)
        still(portrait, folder / "serve_portrait.png", 2)
        portrait.context.close()
        phone = Screen(browser, url, PHONE, color_scheme="dark")
        taught(phone)
        still(phone, folder / "serve_phone.png", 1)
        phone.context.close()
        film(Screen(browser, url, FILM), folder / "serve.webp")


def first(screen: Screen) -> None:
    """The first photo is drawn and shown, and the board is clear again."""
    screen.draw(demo_drawing(PERSON, FIRST))
    screen.settled()
    screen.photo(FIRST).click()
    screen.told("You meant")
    screen.page.click("#clear")
    screen.page.wait_for_selector(".photo", state="detached")


def taught(screen: Screen) -> None:
    """Both photos are drawn and shown."""
    first(screen)
    screen.draw(demo_drawing(PERSON, SECOND))
    screen.settled()
    screen.photo(SECOND).click()
    screen.told("now it comes")
    screen.page.mouse.move(2, 2)
    screen.page.evaluate("scrollTo(0, 0)")
    screen.page.wait_for_function("[...document.images].every((image) => image.complete)")


def picture(screen: Screen) -> Picture:
    return Image.open(io.BytesIO(screen.page.screenshot())).convert("RGB")


def still(screen: Screen, path: Path, smaller: int) -> None:
    """The page as it is, a whole number of times smaller."""
    image = picture(screen).reduce(smaller)
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def film(screen: Screen, path: Path) -> None:
    """The second photo is drawn stroke by stroke, and shown."""
    first(screen)
    screen.page.wait_for_timeout(PAUSE)
    frames, times = [picture(screen)], [PAUSE]
    mouse = screen.page.mouse
    for stroke in demo_drawing(PERSON, SECOND):
        points = screen.at(stroke)
        mouse.move(*points[0])
        mouse.down()
        for start in range(1, len(points), EVERY):
            for x, y in points[start : start + EVERY]:
                mouse.move(x, y)
            screen.page.wait_for_timeout(FRAME)
            frames.append(picture(screen))
            times.append(FRAME)
        mouse.up()
    screen.settled()
    frames.append(picture(screen))
    times.append(2 * PAUSE)
    screen.photo(SECOND).hover()
    screen.photo(SECOND).click()
    screen.told("now it comes")
    screen.page.wait_for_function("[...document.images].every((image) => image.complete)")
    screen.page.wait_for_timeout(PAUSE)
    frames.append(picture(screen))
    times.append(END)
    save(frames, times, path)


def save(frames: Sequence[Picture], times: Sequence[int], path: Path) -> None:
    height = round(FILM[1] * FILM_WIDTH / FILM[0])
    small = [frame.resize((FILM_WIDTH, height), Image.Resampling.LANCZOS) for frame in frames]
    small[0].save(path, save_all=True, append_images=small[1:], duration=list(times), loop=0, quality=60, method=6)


if __name__ == "__main__":
    main()
