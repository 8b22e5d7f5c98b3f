"""A contact sheet of photos with what was drawn of them, and with a person's sketch where there is one, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fgsbir_edge.errors import NoPairsError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.sheet import CELL, GAP, GREY, INK, PAPER, sketch_picture
from fgsbir_edge.sketch import Sketch
from training.generation.pictures import Pixels, is_dot, picture, png

HEADING = 30  # pixels of the title
LABEL = 16  # pixels of the columns' names, and of the text under a photo
BLOCK_GAP = 22  # pixels between blocks side by side
WIDTH = 12  # pictures side by side, about
COLOURS = 256  # of the file: less than half its size, and nobody sees it


@dataclass(frozen=True, eq=False)
class SheetEntry:
    """A photo uint8 [S,S,3], its generated sketches, and a person's sketch of it if there is one; no photo where it must not be
    passed on.
    """

    name: str
    photo: Pixels | None
    drawn: tuple[Sketch, ...]
    person: Sketch | Drawing | None = None


def write_drawn_sheet(path: Path, title: str, entries: Sequence[SheetEntry]) -> None:
    """Draw the sheet, blocks of photo, drawings and person's sketch in reading order, and write it atomically.

    Every photo has as many columns as the one with the most drawings. Raises NoPairsError without an entry, OutputError.
    """
    if not entries:
        raise NoPairsError("no contact sheet: not one photo was drawn; check the photos, or leave out --sheet")
    most, people = max(len(entry.drawn) for entry in entries), any(entry.person is not None for entry in entries)
    photos = any(entry.photo is not None for entry in entries)
    names = ["photo"] * photos + (["drawn"] if most == 1 else [f"drawn {number}" for number in range(1, most + 1)])
    names += ["person"] * people
    block = len(names) * (CELL + GAP) - GAP + BLOCK_GAP
    across = min(len(entries), max(1, WIDTH // len(names)))
    row = CELL + LABEL + GAP
    height = HEADING + LABEL + -(-len(entries) // across) * row + GAP
    sheet = Image.new("RGB", (2 * GAP + across * block - BLOCK_GAP, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 6), title, INK, font=ImageFont.load_default(15))
    for column in range(across):
        for number, name in enumerate(names):
            draw.text((GAP + column * block + number * (CELL + GAP), HEADING), name, INK, font=ImageFont.load_default(12))
    for index, entry in enumerate(entries):
        down, column = divmod(index, across)
        _draw_block(sheet, (GAP + column * block, HEADING + LABEL + down * row), entry, len(names) if people else 0, int(photos))
    write_atomic(path, png(sheet.quantize(COLOURS, dither=Image.Dither.NONE)))


def _draw_block(sheet: Image.Image, corner: tuple[int, int], entry: SheetEntry, person_column: int, first: int) -> None:
    """One photo with its sketches from column `first` on; the person's in the last of `person_column` columns."""
    left, top = corner
    shown: list[tuple[int, Image.Image]] = []
    if entry.photo is not None:
        shown.append((0, Image.fromarray(entry.photo).resize((CELL, CELL), Image.Resampling.LANCZOS)))
    for number, sketch in enumerate(entry.drawn, start=first):
        pixels = picture(sketch, CELL) if is_dot(sketch) else sketch_picture(sketch)
        shown.append((number, Image.fromarray(pixels).convert("RGB")))
    if entry.person is not None:
        shown.append((person_column - 1, Image.fromarray(sketch_picture(entry.person)).convert("RGB")))
    draw = ImageDraw.Draw(sheet)
    for column, image in shown:
        x = left + column * (CELL + GAP)
        sheet.paste(image, (x, top))
        draw.rectangle((x, top, x + CELL - 1, top + CELL - 1), outline=GREY)
    draw.text((left, top + CELL + 1), _shortened(entry.name, draw), INK, font=ImageFont.load_default(11))


def _shortened(text: str, draw: ImageDraw.ImageDraw) -> str:
    """The text, or ".." and as much of its end as a picture is wide: the end of a file name tells it from its neighbours."""
    font = ImageFont.load_default(11)
    ends = (text, *(f"..{text[cut:]}" for cut in range(1, len(text))))
    return next((end for end in ends if draw.textlength(end, font=font) <= CELL), "..")
