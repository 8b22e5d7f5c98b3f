"""Contact sheets of a search: the queries that went best and worst, each as a row of pictures, in one PNG.

A row shows the sketch, the first photos found with the true one framed, and the true photo at the end where it is not among
them; all as the encoder sees them, so that a picture framed badly shows.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fgsbir_edge.errors import NoPairsError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.sheet import CELL, GAP, GREEN, GREY, INK, PAPER
from training.evaluate_retrieval import Ranking, Search
from training.evaluation import photo_input, sketch_input

SIDE = 132  # pixels of text left of a row
CAPTION = 28  # pixels of text under a picture, two lines
HEADING = 32  # pixels above the first row and between best and worst
ROW = CELL + CAPTION + GAP
INNER = CELL - 10  # pixels a side of a picture inside its frame


@dataclass(frozen=True)
class SheetOptions:
    """`rows` of the best and as many of the worst queries, each with its `top` first photos."""

    rows: int = 12
    top: int = 8


def best_and_worst(ranking: Ranking, rows: int) -> tuple[list[int], list[int]]:
    """Up to `rows` queries that went best and up to `rows` others that went worst, in that order.

    Best: the smallest rank, then the largest margin to the nearest wrong photo. Worst: the smallest percentile rank, then the
    smallest margin. A photo comes a second time only when there are no others; names decide between equals. Queries whose
    gallery is one photo are left out: nothing was searched.
    """
    searched = [index for index, size in enumerate(ranking.galleries.tolist()) if size > 1]
    margins = np.nan_to_num(ranking.margins, nan=-np.inf).tolist()
    ranks, percentiles = ranking.ranks.tolist(), ranking.percentiles.tolist()
    names = [(pair.sketch, pair.photo) for pair in ranking.pairs]
    best = _distinct(sorted(searched, key=lambda i: (ranks[i], -margins[i], names[i])), ranking)
    best = best[: min(rows, (len(searched) + 1) // 2)]
    left = set(searched) - set(best)
    worst = _distinct(sorted(left, key=lambda i: (percentiles[i], margins[i], names[i])), ranking)
    return best, worst[:rows]


def _distinct(order: Iterable[int], ranking: Ranking) -> list[int]:
    """The same queries, those whose photo came before moved to the end."""
    first: dict[str, int] = {}
    again = [index for index in order if first.setdefault(ranking.pairs[index].photo, index) != index]
    return [*first.values(), *again]


def write_sheet(path: Path, title: str, search: Search, spec: InputSpec, options: SheetOptions) -> None:
    """Draw the sheet and write it as PNG, atomically.

    Raises OutputError, NoPairsError (no gallery has two photos) and what reading the chosen images raises.
    """
    best, worst = best_and_worst(search.ranking, options.rows)
    if not best:
        raise NoPairsError("no contact sheet: every gallery is one photo, so nothing was searched; try --gallery all")
    height = 2 * HEADING + (len(best) + len(worst)) * ROW + GAP
    count = min(options.top, int(search.ranking.galleries.max()))
    width = SIDE + (count + 2) * (CELL + GAP) + 3 * GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for heading, queries in ((f"{title}: best", best), ("worst", worst)):
        draw.text((GAP, top + 8), heading, INK, font=_font(15))
        top += HEADING
        for query in queries:
            _draw_row(sheet, top, search, query, (spec, count))
            top += ROW
    data = io.BytesIO()
    sheet.save(data, "PNG")
    write_atomic(path, data.getvalue())


def _draw_row(sheet: Image.Image, top: int, search: Search, query: int, view: tuple[InputSpec, int]) -> None:
    spec, count = view
    folder, pair, ranking = search.table.folder, search.ranking.pairs[query], search.ranking
    rank, similarity = int(ranking.ranks[query]), float(ranking.similarity[query])
    label = [f"rank {rank} of {ranking.galleries[query]}", f"margin {ranking.margins[query]:+.3f}", pair.category, pair.user]
    draw = ImageDraw.Draw(sheet)
    for line, text in enumerate(text for text in label if text):
        draw.text((GAP, top + 24 + 17 * line), _shortened(text, SIDE - 2 * GAP, draw), INK, font=_font(12))
    _draw_cell(sheet, (SIDE, top), picture(sketch_input(folder, pair.sketch, spec), spec), ("sketch", pair.sketch), GREY)
    found = search.nearest(query, count)
    for column, (name, score) in enumerate(found, start=1):
        frame, what = (GREEN, "true") if name == pair.photo else (GREY, "")
        left = SIDE + GAP + column * (CELL + GAP)
        shown = picture(photo_input(folder, name, spec), spec)
        _draw_cell(sheet, (left, top), shown, (f"{column}   {score:.3f}   {what}", name), frame)
    if all(name != pair.photo for name, _ in found):
        left = SIDE + 2 * GAP + (count + 1) * (CELL + GAP)
        shown = picture(photo_input(folder, pair.photo, spec), spec)
        _draw_cell(sheet, (left, top), shown, (f"{rank}   {similarity:.3f}   true", pair.photo), GREEN)


def _draw_cell(
    sheet: Image.Image, corner: tuple[int, int], shown: Image.Image, caption: tuple[str, str], frame: tuple[int, int, int]
) -> None:
    (left, top), draw = corner, ImageDraw.Draw(sheet)
    sheet.paste(shown.resize((INNER, INNER), Image.Resampling.LANCZOS), (left + 5, top + 5))
    draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline=frame, width=4 if frame == GREEN else 1)
    for line, text in enumerate(caption):
        draw.text((left + 2, top + CELL + 1 + 13 * line), _shortened(text, CELL - 4, draw), INK, font=_font(11))


def picture(pixels: np.ndarray, spec: InputSpec) -> Image.Image:
    """The encoder's input float32 [1,3,S,S] as an image again."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    levels = np.clip(np.rint((pixels[0] * std + mean) * 255.0), 0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))


def _shortened(text: str, width: int, draw: ImageDraw.ImageDraw) -> str:
    """The text, or ".." and as much of its end as fits: the end of a file name tells it from its neighbours."""
    ends = (text, *(f"..{text[cut:]}" for cut in range(1, len(text))))
    return next((end for end in ends if draw.textlength(end, font=_font(12)) <= width), "..")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
