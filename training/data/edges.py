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

GAMMA = 0.7  # between light and what the eye makes of it: seams of dark leather count as well as outlines of pale things
FLOOR = 0.008  # slope per pixel below which it is noise or a soft shadow
CONTRAST = 90.0  # percentile of the edges' slopes
MOST = 0.05  # share of the pixels that lines take; leaves and grass would take more, a drawing has the weightiest lines alone

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class EdgeScale:
    """One scale: Gaussian width in pixels of a 256 image, the two thresholds as shares of the photo's own contrast, and the
    shortest line kept, in pixels."""

    sigma: float
    low: float
    high: float
    shortest: int


SCALES = (EdgeScale(1.0, 0.20, 0.45, 14), EdgeScale(1.6, 0.20, 0.45, 20), EdgeScale(2.4, 0.20, 0.45, 26))


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
    from scipy import ndimage

    lines = edges(load_photo(path, SIDE, fit), SCALES[scale])
    smooth = ndimage.gaussian_filter(lines.astype(np.float32), 0.8)  # or the pixels' stairs would show
    try:
        return drawing_pixels(Drawing(np.minimum(2.5 * smooth, 1.0)), side, line_width=line_width)
    except EmptySketchError:
        return np.zeros((side, side), np.uint8)


def edges(photo: NDArray[np.uint8], scale: EdgeScale) -> NDArray[np.bool_]:
    """Thin lines [S,S] along the edges of a photo [S,S,3]; none where the photo is flat."""
    slope_y, slope_x = _slopes(photo, scale.sigma)
    strength = np.hypot(slope_x, slope_y)
    ridge = _thinned(strength, slope_x, slope_y) & (strength > FLOOR)
    if not ridge.any():
        return ridge
    labels, length = _pieces(ridge)
    lines = (length >= scale.shortest)[labels] & ridge  # specks do not say what contrast the lines have
    contrast = np.percentile(
        strength[lines if lines.any() else ridge], CONTRAST
    )  # of this photo, so that pale things have outlines
    labels, length = _pieces(ridge & (strength > scale.low * contrast))
    strong = np.zeros(len(length), bool)
    strong[labels[ridge & (strength > scale.high * contrast)]] = True
    strong[0] = False
    long = strong & (length >= scale.shortest)
    return _weightiest(long if long.any() else strong, labels, length, strength)


def _pieces(lines: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Connected lines: a number for each pixel [S,S], 0 where there is none, and the pixels of each number."""
    from scipy import ndimage

    labels, count = ndimage.label(lines, np.ones((3, 3)))
    return labels, np.bincount(labels.ravel(), minlength=count + 1)


def _weightiest(
    chosen: NDArray[np.bool_], labels: NDArray[np.intp], length: NDArray[np.intp], strength: Float32
) -> NDArray[np.bool_]:
    """Of the chosen pieces those with the largest sum of strength, as many as a drawing may have; one at least."""
    weight = np.where(chosen, np.bincount(labels.ravel(), strength.ravel(), minlength=len(length)), 0.0)
    order = np.argsort(-weight, kind="stable")[: int(chosen.sum())]
    drawn = np.cumsum(length[order]) <= MOST * strength.size
    drawn[:1] = True
    result: NDArray[np.bool_] = np.isin(labels, order[drawn])
    return result


def _slopes(photo: NDArray[np.uint8], sigma: float) -> tuple[Float32, Float32]:
    """Gaussian derivatives down and across [S,S] of the colour that changes most at each pixel."""
    from scipy import ndimage

    values = (photo.astype(np.float32) / 255) ** GAMMA
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
