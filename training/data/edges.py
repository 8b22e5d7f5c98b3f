"""Edge drawings of photos, so that photos without sketches make pairs too: (edge drawing, photo).

Canny's steps at one of several scales: Gaussian derivative, thinning across the edge, hysteresis, and short pieces left out. The
coarse scales keep outlines and the main lines inside, as a person's drawing does; the fine one adds detail.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import EmptySketchError
from fgsbir_edge.formats.drawing import Drawing, drawing_pixels
from fgsbir_edge.photo import Fit, load_photo

SIDE = 256  # pixels at which edges are found
PREFIX = "edges"  # of the sketch names below; no dataset folder can hold a file of such a name

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class EdgeScale:
    """One scale: Gaussian width in pixels of a 256 image, thresholds on the slope of grey values in [0,1] per pixel, and the
    shortest line kept, in pixels."""

    sigma: float
    low: float
    high: float
    shortest: int


SCALES = (EdgeScale(1.0, 0.04, 0.10, 12), EdgeScale(1.6, 0.03, 0.07, 18), EdgeScale(2.4, 0.02, 0.05, 24))


def edge_key(photo: str, scale: int) -> str:
    """The sketch name that stands for the edge drawing of a photo at a scale, 0 (fine) to 2."""
    return f"{PREFIX}:{scale}:{photo}"


def edge_name(sketch: str) -> tuple[int, str] | None:
    """Scale and photo of such a name; None for the name of a real sketch."""
    prefix, _, rest = sketch.partition(":")
    scale, _, photo = rest.partition(":")
    return (int(scale), photo) if prefix == PREFIX and scale.isdigit() and int(scale) < len(SCALES) else None


def edge_drawing(path: Path, fit: Fit, scale: int, side: int, line_width: float) -> NDArray[np.uint8]:
    """The edges of a photo, placed as a drawing is: ink uint8 [side,side]. A photo without any edge gives no ink.

    Raises what load_photo raises.
    """
    lines = edges(load_photo(path, SIDE, fit), SCALES[scale])
    try:
        return drawing_pixels(Drawing(lines.astype(np.float32)), side, line_width=line_width)
    except EmptySketchError:
        return np.zeros((side, side), np.uint8)


def edges(photo: NDArray[np.uint8], scale: EdgeScale) -> NDArray[np.bool_]:
    """Thin lines [S,S] along the edges of a photo [S,S,3]; the strongest over the three colours counts."""
    from scipy import ndimage

    slope_y, slope_x = _slopes(photo, scale.sigma)
    strength = np.hypot(slope_x, slope_y)
    ridge = _thinned(strength, slope_x, slope_y)
    labels, count = ndimage.label(ridge & (strength > scale.low), np.ones((3, 3)))
    length = np.bincount(labels.ravel(), minlength=count + 1)
    keep = length >= scale.shortest
    strong = np.zeros(count + 1, bool)
    strong[labels[ridge & (strength > scale.high)]] = True
    keep &= strong
    keep[0] = False
    lines: NDArray[np.bool_] = keep[labels]
    return lines


def _slopes(photo: NDArray[np.uint8], sigma: float) -> tuple[Float32, Float32]:
    """Gaussian derivatives down and across [S,S] of the colour that changes most at each pixel."""
    from scipy import ndimage

    values = photo.astype(np.float32) / 255
    down, across = (
        np.stack([ndimage.gaussian_filter(values[..., c], sigma, order=order, mode="nearest") for c in range(3)])
        for order in ((1, 0), (0, 1))
    )
    best = np.argmax(down**2 + across**2, axis=0)[None]
    return np.take_along_axis(down, best, 0)[0], np.take_along_axis(across, best, 0)[0]


def _thinned(strength: Float32, slope_x: Float32, slope_y: Float32) -> NDArray[np.bool_]:
    """Where the strength is the largest of the three pixels across the edge (to the nearest of eight directions)."""
    step = np.pi / 4
    angle = np.round(np.arctan2(slope_y, slope_x) / step).astype(int) % 4
    padded = np.pad(strength, 1)
    height, width = strength.shape
    ridge = np.zeros(strength.shape, bool)
    for direction, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        behind = padded[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        ridge |= (angle == direction) & (strength >= ahead) & (strength > behind)
    return ridge
