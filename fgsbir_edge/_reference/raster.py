"""The rasteriser in NumPy: both styles, one sketch at a time. ``csrc/rasterize_cpu.cpp`` must give the same pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Strokes = list[NDArray[np.float64]]


def segment_pixels(x0: int, y0: int, x1: int, y1: int) -> list[tuple[int, int]]:
    """Pixels (x, y) of an integer segment, both ends included, in drawing order (METHODS D.1).

    The axis with the longer way is walked one pixel at a time, y where both are equal; a decision value says when to step the
    other axis. Rounding happens in the direction of travel, so a segment drawn backwards may take other pixels.
    """
    dx, dy = x1 - x0, y1 - y0
    x_is_major = abs(dx) > abs(dy)
    major, minor = (abs(dx), abs(dy)) if x_is_major else (abs(dy), abs(dx))
    step_x, step_y = (-1 if dx < 0 else 1), (-1 if dy < 0 else 1)
    x, y = x0, y0
    decision = 2 * minor - major
    pixels = []
    for _ in range(major + 1):
        pixels.append((x, y))
        if decision >= 0:
            if x_is_major:
                y += step_y
            else:
                x += step_x
            decision -= 2 * major
        decision += 2 * minor
        if x_is_major:
            x += step_x
        else:
            y += step_y
    return pixels


def lines(strokes: Strokes, height: int, width: int) -> Mask:
    """One-pixel lines [H, W] before the dilation: points rounded half to even, row 0 and column 0 never drawn."""
    mask = np.zeros((height, width), dtype=np.bool_)
    for stroke in strokes:
        points = [(int(x), int(y)) for x, y in np.rint(stroke)]
        # The first point is a segment of its own, so that a stroke of one point leaves a dot.
        for (x0, y0), (x1, y1) in zip(points[:1] + points[:-1], points, strict=True):
            for x, y in segment_pixels(x0, y0, x1, y1):
                if 0 < x < width and 0 < y < height:
                    mask[y, x] = True
    return mask


def dilated(mask: Mask) -> Mask:
    """One dilation by the 3x3 cross; outside the image counts as empty. [H, W] -> [H, W]."""
    grown: Mask = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def bresenham(strokes: Strokes, height: int, width: int) -> NDArray[np.uint8]:
    """Ink [H, W], 0 or 255, of strokes [n, 2] in pixels: the rasteriser of the FG-SBIR papers."""
    ink: NDArray[np.uint8] = np.where(dilated(lines(strokes, height, width)), np.uint8(255), np.uint8(0))
    return ink


def antialias(strokes: Strokes, height: int, width: int, line_width: float) -> NDArray[np.uint8]:
    """Ink [H, W], 0..255, of strokes [n, 2] in pixels, drawn with a round pen of ``line_width`` pixels.

    Coverage of a pixel is clamp(1/2 + line_width/2 - d, 0, 1) with d the distance from its centre (integer coordinates) to the
    nearest segment; ink is 255 times that, rounded half up.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    nearest = np.full((height, width), np.inf)
    for stroke in strokes:
        points = np.asarray(stroke, dtype=np.float64)
        for (x0, y0), (x1, y1) in zip(points[:1].tolist() + points[:-1].tolist(), points.tolist(), strict=True):
            dx, dy = x1 - x0, y1 - y0
            squared_length = dx * dx + dy * dy
            along = ((x - x0) * dx + (y - y0) * dy) / squared_length if squared_length > 1e-12 else np.zeros_like(x)
            along = np.clip(along, 0.0, 1.0)  # where on the segment the nearest point lies
            nearest = np.minimum(nearest, np.hypot(x - (x0 + along * dx), y - (y0 + along * dy)))
    coverage = np.clip(0.5 + line_width / 2 - nearest, 0.0, 1.0)
    return np.floor(coverage * 255 + 0.5).astype(np.uint8)


def output(
    ink: NDArray[np.uint8], dark: bool, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
) -> NDArray[np.uint8] | NDArray[np.float64]:
    """Ink [H, W] as the operation writes it: bytes [H, W], or with mean and std [3, H, W] float64 (v/255 - mean) / std."""
    value = np.uint8(255) - ink if dark else ink
    if mean is None or std is None:
        return value
    channels: NDArray[np.float64] = (value / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    return channels
