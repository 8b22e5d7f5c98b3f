"""Ink to lines of one pixel, and their way from junction to junction.

Thinning takes away, from each of the four sides in turn, every pixel that is neither the end of a line nor needed to hold its
neighbours together, until nothing changes (A. Rosenfeld, A characterization of parallel thinning algorithms, Information and
Control 29, 1975): no line breaks, no hole closes. Only the pixels that are left are looked at, so a drawing takes milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
Flags = NDArray[np.bool_]

_AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))  # rows, columns; even ones share a side


def _removable() -> Flags:
    """[4, 256]: by side and by code (bit k: neighbour k is ink), whether a pixel open to that side may go."""
    ink = (np.arange(256)[:, None] >> np.arange(8)) & 1  # [256, 8]
    paper = 1 - ink
    pieces = sum(paper[:, k] * (1 - paper[:, k + 1] * paper[:, (k + 2) % 8]) for k in (0, 2, 4, 6))
    inner = (pieces == 1) & (ink.sum(axis=1) > 1)
    return np.stack([inner & (paper[:, side] == 1) for side in (2, 6, 0, 4)])


_REMOVABLE = _removable()


def thinned(ink: Flags) -> Flags:
    """Lines of one pixel through the middle of the ink, bool [H, W] -> [H, W]; diagonal neighbours are connected."""
    flat, steps = _padded(ink)
    bits = (1 << np.arange(8)).astype(np.uint8)
    left = np.flatnonzero(flat)
    while True:
        before = len(left)
        for table in _REMOVABLE:
            code = np.zeros(len(left), np.uint8)
            for step, bit in zip(steps, bits, strict=True):
                code |= flat[left + step] * bit
            gone = table[code]
            flat[left[gone]] = False
            left = left[~gone]
        if len(left) == before:
            return flat.reshape(ink.shape[0] + 2, ink.shape[1] + 2)[1:-1, 1:-1]


@dataclass(frozen=True, eq=False)
class Line:
    """A line from junction to junction.

    Args:
        points: [n, 2] float64, x and y, pixels.
        start, end: the junctions before its first and after its last point; -1 where the line ends freely. A closed line
            without a junction begins and ends freely at neighbouring points, and is `closed`.
    """

    points: FloatArray
    start: int
    end: int
    closed: bool = False


@dataclass(frozen=True, eq=False)
class PixelGraph:
    """`lines`, and the points [n, 2] of the junction pixels with the number of the junction that each belongs to [n]."""

    lines: list[Line]
    junction_points: FloatArray
    junction_of: IntArray


def pixel_graph(lines: Flags, ink: NDArray[np.uint8]) -> PixelGraph:
    """Lines and junctions of `lines` [H, W], which are `thinned`; points lie in the middle of the `ink` [H, W] 3 x 3 around them.

    A junction is a connected group of pixels of three or more neighbours. Two diagonal neighbours are not linked where a pixel
    beside both is, so that a step in a line is no junction.
    """
    flat, steps = _padded(lines)
    pixels = np.flatnonzero(flat)
    beside = np.stack([flat[pixels + step] for step in steps])  # [8, n]
    for k in (1, 3, 5, 7):
        beside[k] &= ~(beside[k - 1] | beside[(k + 1) % 8])
    number = np.full(flat.size, -1)
    number[pixels] = np.arange(len(pixels))
    linked = [number[pixels[beside[k]] + steps[k]] for k in range(8)]
    first, second = np.concatenate([np.flatnonzero(row) for row in beside]), np.concatenate(linked)
    crossing = beside.sum(axis=0) > 2
    group = _groups(len(pixels), first, second, crossing)
    points = _middles(pixels, ink, steps, lines.shape[1] + 2)
    found = [
        Line(points[walk], start, end, closed) for walk, start, end, closed in _walks(len(pixels), first, second, crossing, group)
    ]
    return PixelGraph(found, points[crossing], group[crossing])


def _padded(flags: Flags) -> tuple[Flags, list[int]]:
    """A flat copy with an empty pixel all around, and the steps to the eight neighbours."""
    width = flags.shape[1] + 2
    return np.pad(flags, 1).ravel(), [row * width + column for row, column in _AROUND]


def _middles(pixels: IntArray, ink: NDArray[np.uint8], steps: list[int], width: int) -> FloatArray:
    """x and y [n, 2] of the middle of the ink in the 3 x 3 around each pixel of the padded grid."""
    flat = np.pad(ink, 1).ravel().astype(np.float64)
    total = flat[pixels].copy()
    moved = np.zeros((len(pixels), 2))
    for (row, column), step in zip(_AROUND, steps, strict=True):
        weight = flat[pixels + step]
        total += weight
        moved += weight[:, None] * np.array([column, row])
    rows, columns = np.divmod(pixels, width)
    middles: FloatArray = np.stack([columns - 1, rows - 1], axis=1) + moved / np.maximum(total, 1)[:, None]
    return middles


def _groups(count: int, first: IntArray, second: IntArray, crossing: Flags) -> IntArray:
    """The number of the junction that each pixel belongs to, -1 for none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    both = crossing[first] & crossing[second]
    links = coo_array((np.ones(int(both.sum())), (first[both], second[both])), shape=(count, count))
    _, labels = connected_components(links, directed=False)
    group: IntArray = np.where(crossing, labels, -1)
    return group


def _walks(
    count: int, first: IntArray, second: IntArray, crossing: Flags, group: IntArray
) -> list[tuple[list[int], int, int, bool]]:
    """Pixels in order, junctions before and after, closed or not: every line between junctions, open ones first."""
    ways: list[list[int]] = [[] for _ in range(count)]  # to pixels of the same line, at most two
    doors: list[list[int]] = [[] for _ in range(count)]  # to junctions
    inner = ~crossing[first]
    for a, b, g in zip(first[inner].tolist(), second[inner].tolist(), group[second[inner]].tolist(), strict=True):
        if g < 0:
            ways[a].append(b)
        else:
            doors[a].append(g)
    plain = np.flatnonzero(~crossing).tolist()
    seen: set[int] = set()
    found = []
    for closed in (False, True):
        for pixel in plain:
            if pixel in seen or (len(ways[pixel]) > 1 and not closed):
                continue
            walk = [pixel]
            seen.add(pixel)
            while (step := next((way for way in ways[walk[-1]] if way not in seen), -1)) >= 0:
                walk.append(step)
                seen.add(step)
            if len(walk) == 1:  # one pixel between two junctions, or at one, or alone
                start, end = [*doors[pixel], -1, -1][:2]
            else:
                start, end = ([*doors[walk[side]], -1][0] for side in (0, -1))
            found.append((walk, start, end, closed))
    return found
