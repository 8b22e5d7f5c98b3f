"""Photos on a plain background, framed as sketches are: the object's longer side 190/256 of the frame, centred.

A sketch says nothing about the empty space around an object, so the space around a product photo only misplaces it. On frozen
features this framing alone moves chairv2 from 28 to 36 % Acc@1 (300 photos). Photos whose border is not plain are left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fgsbir_edge.arrays import median
from fgsbir_edge.sketch import CANVAS, LONG_SIDE

if TYPE_CHECKING:
    from PIL.Image import Image

TOLERANCE = 20  # grey levels of 255 that a plain background may differ from its median
PLAIN_SHARE = 0.9  # of the border's pixels within the tolerance
LOOK_SIDE = 256  # pixels; the box is looked for on an image reduced to about this
SMALLEST = 0.05  # of the longer side; a smaller "object" is dirt on an empty picture

Box = tuple[int, int, int, int]  # left, top, right, bottom


def content_box(image: Image) -> tuple[Box, tuple[int, int, int]] | None:
    """Box of what stands out from a plain background, in pixels of `image` (RGB), and the background's colour.

    None where the border is not plain, or nothing (or next to nothing) stands out.
    """
    factor = max(1, max(image.size) // LOOK_SIDE)
    small = np.asarray(image.reduce(factor) if factor > 1 else image, dtype=np.int16)
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    colour = median(border)
    if np.mean(np.abs(border - colour).max(axis=1) < TOLERANCE) < PLAIN_SHARE:
        return None
    stands_out = np.abs(small - colour).max(axis=2) >= TOLERANCE
    rows, columns = np.flatnonzero(stands_out.any(axis=1)), np.flatnonzero(stands_out.any(axis=0))
    if not len(rows) or max(len(rows), len(columns)) < SMALLEST * max(small.shape[:2]):
        return None
    right, bottom = min((int(columns[-1]) + 1) * factor, image.width), min((int(rows[-1]) + 1) * factor, image.height)
    red, green, blue = (int(value) for value in colour)
    return (int(columns[0]) * factor, int(rows[0]) * factor, right, bottom), (red, green, blue)


def trimmed(image: Image, long_side: float = LONG_SIDE / CANVAS) -> Image | None:
    """Square RGB image, the object's longer side `long_side` of the frame, on its own background; None without a plain one."""
    from PIL import Image as Images

    found = content_box(image)
    if found is None:
        return None
    (left, top, right, bottom), colour = found
    width, height = right - left, bottom - top
    side = max(round(max(width, height) / long_side), 1)
    square = Images.new("RGB", (side, side), colour)
    square.paste(image.crop((left, top, right, bottom)), ((side - width) // 2, (side - height) // 2))
    return square
