"""Contact sheets: what was drawn and what was found, as one PNG. A row is a sketch and its first hits, the true photo framed."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.files import write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

    from fgsbir_edge.formats.drawing import Drawing
    from fgsbir_edge.gallery import Gallery, Hit
    from fgsbir_edge.sketch import Sketch

CELL = 112  # pixels a side of a picture
GAP = 6
LABEL = 16  # pixels of text height under a picture
SIDE = 84  # pixels of text left of a row
TITLE = 30
TOP = 10  # hits a row
GREEN, GREY, INK, PAPER = (0, 150, 60), (205, 205, 205), (40, 40, 40), (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Row:
    """One search: ``picture`` uint8 [S, S], dark on white; ``rank`` of the ``true`` photo where that is known."""

    label: str
    picture: NDArray[np.uint8]
    hits: Sequence[Hit]
    true: str | None = None
    rank: int | None = None


def sketch_picture(item: Sketch | Drawing) -> NDArray[np.uint8]:
    """A sketch as the encoder sees it, dark on white: uint8 [CELL, CELL]."""
    from fgsbir_edge.formats.drawing import drawing_pixels
    from fgsbir_edge.raster import RasterSpec, rasterize
    from fgsbir_edge.sketch import Sketch

    if isinstance(item, Sketch):
        picture: NDArray[np.uint8] = rasterize(item.centred(), RasterSpec(CELL, CELL, "antialias", 1.5, "dark"))[0]
        return picture
    return 255 - drawing_pixels(item, CELL, line_width=1.5)


def write_sheet(path: str | os.PathLike[str], title: str, rows: Sequence[Row], gallery: Gallery) -> None:
    """Draw the sheet and write it as PNG, atomically. Raises OutputError."""
    from PIL import Image, ImageDraw

    columns = 2 + max((len(row.hits) for row in rows), default=0)  # the sketch, the hits, and a true photo that is not among them
    width = SIDE + columns * (CELL + GAP) + 2 * GAP
    sheet = Image.new("RGB", (width, TITLE + len(rows) * (CELL + LABEL + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, font=_font(14))
    for index, row in enumerate(rows):
        _draw_row(sheet, draw, TITLE + index * (CELL + LABEL + GAP), row, gallery)
    data = io.BytesIO()
    sheet.save(data, "PNG")
    write_atomic(path, data.getvalue())


def _draw_row(sheet: Image, draw: ImageDraw, top: int, row: Row, gallery: Gallery) -> None:
    from PIL import Image

    draw.multiline_text((GAP, top + CELL // 3), row.label, INK, font=_font(12), spacing=3)
    _draw_cell(sheet, draw, (SIDE, top), Image.fromarray(row.picture).convert("RGB"), "sketch", GREY)
    for column, hit in enumerate(row.hits, start=1):
        right = hit.name == row.true
        caption = f"{hit.rank}  {hit.distance:.3f}"
        _draw_cell(
            sheet,
            draw,
            (SIDE + GAP + column * (CELL + GAP), top),
            _thumbnail(gallery, hit.name),
            caption,
            GREEN if right else GREY,
        )
    if row.true is not None and all(hit.name != row.true for hit in row.hits):
        left = SIDE + 2 * GAP + (1 + len(row.hits)) * (CELL + GAP)
        _draw_cell(sheet, draw, (left, top), _thumbnail(gallery, row.true), f"true photo, rank {row.rank}", GREEN)


def _draw_cell(
    sheet: Image, draw: ImageDraw, corner: tuple[int, int], picture: Image, caption: str, frame: tuple[int, ...]
) -> None:
    left, top = corner
    picture.thumbnail((CELL - 8, CELL - 8))
    sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
    draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline=frame, width=4 if frame == GREEN else 1)
    draw.text((left + 2, top + CELL + 1), caption, INK, font=_font(11))


def _thumbnail(gallery: Gallery, name: str) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(gallery.thumbnail(name))).convert("RGB")


def _font(size: int) -> FreeTypeFont | BitmapFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
