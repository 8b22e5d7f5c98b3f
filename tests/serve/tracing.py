"""Raster drawings as strokes, so that shipped ones can be drawn with a mouse: thinned to one pixel, then followed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Stroke = list[tuple[float, float]]
NEIGHBOURS = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]  # clockwise from above


def traced(path: Path, side: float = 1000.0, spacing: int = 8) -> list[Stroke]:
    """The lines of a drawing on paper, in units of ``side``, every ``spacing``-th pixel of them; the longest first."""
    with Image.open(path) as image:
        ink = np.asarray(image.convert("L")) < 128
    line = thinned(np.pad(ink, 1))
    left = {(int(row), int(column)) for row, column in np.argwhere(line)}
    strokes = []
    while left:
        ends = [at for at in left if len(_next_to(at, left)) == 1]
        at = min(ends or left)
        walk = [at]
        left.discard(at)
        while step := _next_to(at, left):
            at = step[0]
            left.discard(at)
            walk.append(at)
        if len(walk) >= 6:
            kept = walk[::spacing] + ([walk[-1]] if (len(walk) - 1) % spacing else [])
            strokes.append([((column - 1) * side / ink.shape[1], (row - 1) * side / ink.shape[0]) for row, column in kept])
    return sorted(strokes, key=len, reverse=True)


def _next_to(at: tuple[int, int], cells: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Straight neighbours first: a corner is no branch."""
    steps = NEIGHBOURS[::2] + NEIGHBOURS[1::2]
    return [cell for row, column in steps if (cell := (at[0] + row, at[1] + column)) in cells]


def thinned(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The middle lines of what is drawn (Zhang and Suen, 1984); the outermost pixels must be blank."""
    ink = ink.copy()
    while True:
        before = int(ink.sum())
        for first, second in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            around = [np.roll(ink, (-row, -column), (0, 1)) for row, column in NEIGHBOURS]
            count = sum(cell.astype(np.int8) for cell in around)
            turns = sum((~around[i] & around[(i + 1) % 8]).astype(np.int8) for i in range(8))
            inner = [~(around[a] & around[b] & around[c]) for a, b, c in (first, second)]
            ink &= ~((count >= 2) & (count <= 6) & (turns == 1) & inner[0] & inner[1])
        if int(ink.sum()) == before:
            return ink
