"""Raster drawings (PNG, JPEG, WebP, BMP) to ink, and ink to the encoder's frame."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import median, percentile
from fgsbir_edge.errors import EmptySketchError, NonFiniteError, ShapeError
from fgsbir_edge.photo import ImageBudget, Source, flattened, has_alpha, open_image
from fgsbir_edge.sketch import CANVAS, LONG_SIDE

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 1024  # pixels; longer drawings are averaged down first: the encoder looks at a few hundred
LINE_WIDTH = 2.0  # pixels; the rasteriser's default for vector sketches

_NOISE_FLOOR = 0.08  # contrast with the paper that JPEG artefacts around a line reach
_MIN_CONTRAST = 0.15  # a pale pencil line; fainter marks are dirt
_FLAT = 0.04  # spread of a scan or a canvas; paper under a lamp spreads wider
_INK_BOX = 0.2  # ink that counts towards the drawing's extent
_RUN_INK = 64  # of 255; a run of such pixels is a cut through a line
_LINE_SHARE = 0.1  # of the drawing's longer side; what seems a thicker line is a filled shape
_GREY = frozenset({"1", "L", "I", "I;16", "I;16L", "I;16B", "I;16N"})  # modes of images without colour and alpha
_FINE = 4  # stroke widths are measured and mended on a grid this much finer than the result

Float32 = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Drawing:
    """A raster drawing as ink. The array is copied in and read-only.

    Args:
        ink: [H, W] float32 in [0, 1] (values outside are clipped); 1 = full ink, 0 = paper.

    Raises:
        ShapeError: not two-dimensional.
        NonFiniteError: NaN or infinity.
        EmptySketchError: no pixel with ink above 0.2.
    """

    ink: Float32

    def __post_init__(self) -> None:
        ink = np.array(self.ink, dtype=np.float32)
        if ink.ndim != 2:
            raise ShapeError(f"ink has shape {ink.shape}, expected [H, W]; use Drawing.from_image for colour images")
        if not np.isfinite(ink).all():
            raise NonFiniteError("ink holds NaN or infinity, expected values in [0, 1]: repair the image")
        if not (ink > _INK_BOX).any():
            raise _no_ink(ink.shape)
        np.clip(ink, 0, 1, out=ink)
        ink.setflags(write=False)
        object.__setattr__(self, "ink", ink)

    @classmethod
    def from_image(cls, image: Image) -> Drawing:
        """Find the ink of a PIL image of any mode.

        Ink is contrast with the paper, the largest over the three colours, so that dark lines on light paper, light lines on
        dark and coloured lines all count. The paper is the image's median colour (ink covers less than half), and where that is
        not flat, as in a photo of paper under a lamp, a quadratic surface fitted to it. In an image that is mostly transparent
        whatever is opaque is drawn: dark lines are seen against white, light ones against black.

        Contrast within the noise is paper, the strongest tenth is full ink. Images longer than 1024 pixels are averaged down
        first. Raises EmptySketchError if nothing stands out from the paper.
        """
        if 0 in image.size:
            raise _no_ink(image.size[::-1])
        factor = -(-max(image.size) // MAX_SIDE)
        pixels, paper = _pixels_and_paper(image, factor)
        difference = _contrast(pixels, paper)
        noise = max(_NOISE_FLOOR, 4 * float(median(difference.ravel())))
        marks = difference[difference > noise]
        strongest = percentile(marks, 90) if marks.size else 0.0
        if strongest < max(_MIN_CONTRAST, 1.25 * noise):
            raise _no_ink(difference.shape)
        return cls((difference - noise) / (strongest - noise))


def read_drawing(source: Source, budget: ImageBudget | None = None) -> Drawing:
    """Read a drawing from an image file (path, bytes or binary stream).

    Raises what ``photo.load_image`` raises for files, and EmptySketchError for an image without ink.
    """
    image = open_image(source, budget or ImageBudget(), wanted=MAX_SIDE)
    try:
        return Drawing.from_image(image)
    except EmptySketchError as error:
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "image")
        raise EmptySketchError(f"{name}: {error}") from None


def drawing_pixels(drawing: Drawing, size: int, long_side: float = LONG_SIDE / CANVAS, line_width: float = LINE_WIDTH) -> Pixels:
    """Place a drawing as the rasteriser places a vector sketch: uint8 [size, size], 255 = full ink.

    The box around the middle of the outermost lines is scaled uniformly so that its longer side is ``long_side * size``, and
    centred on pixel ``size / 2``. Lines that come out thinner than ``line_width`` pixels are widened to it, so that a thin pen on
    a large sheet does not fade; thicker lines stay.

    Raises ValueError if ``size`` is below 8 or ``long_side`` is not in (0, 1].
    """
    if size < 8 or not 0 < long_side <= 1:
        raise ValueError(f"size is {size} and long_side {long_side}, expected at least 8 pixels and a share in (0, 1]")
    fine = _widened(_placed(drawing.ink, size * _FINE, long_side), line_width * _FINE)
    rows = _sum(fine.reshape(size, _FINE, -1).swapaxes(0, 1))
    blocks = _sum(np.moveaxis(rows.reshape(size, size, _FINE), 2, 0))
    pixels: Pixels = ((blocks + _FINE**2 // 2) // _FINE**2).astype(np.uint8)
    return pixels


def _sum(parts: NDArray[Any]) -> NDArray[np.uint16]:
    """The sum over the first axis, part by part: several times faster than one sum over short runs in memory."""
    total: NDArray[np.uint16] = parts[0].astype(np.uint16)
    for part in parts[1:]:
        total += part
    return total


def _no_ink(shape: tuple[int, ...]) -> EmptySketchError:
    return EmptySketchError(f"drawing of {shape[1]} x {shape[0]} pixels has no ink: draw at least one line that stands out")


def _pixels_and_paper(image: Image, factor: int) -> tuple[Float32, Float32]:
    """Return colours [H, W, 3] in [0, 1] and the colour of the paper behind each ([H, W, 3] or broadcastable)."""
    if not has_alpha(image):
        colours = flattened(image)
        return _on_paper(_unit(colours.getchannel(0) if image.mode in _GREY else colours, factor))
    colour, alpha = np.split(_unit(image.convert("RGBA"), factor), [3], axis=2)
    if median(alpha.ravel()) < 0.5:
        white = np.average(colour.mean(axis=2), weights=alpha[:, :, 0] + 1e-9) < 0.5
        paper = np.full((1, 1, 3), 1.0 if white else 0.0, np.float32)
    else:
        paper = median(colour[alpha[:, :, 0] > 0.5]).astype(np.float32)[None, None]
    composed: Float32 = paper + (colour - paper) * alpha
    return composed, paper


def _unit(image: Image, factor: int) -> Float32:
    """Return an image as float32 [H, W, channels] in [0, 1], averaged over ``factor`` x ``factor`` pixels."""
    unit: Float32 = np.asarray(image.reduce(factor) if factor > 1 else image, dtype=np.float32) / np.float32(255)
    return unit if unit.ndim == 3 else unit[:, :, None]


def _contrast(pixels: Float32, paper: Float32) -> Float32:
    """Return the difference from the paper as a share of the greatest possible there, the largest over the colours: [H, W].

    A share, because a shadow over paper and line dims their difference as well.
    """
    channels = np.moveaxis(np.abs(pixels - paper) / np.maximum(paper, 1 - paper), 2, 0)
    largest: Float32 = functools.reduce(np.maximum, channels)  # several times faster than max(axis=2)
    return largest


def _on_paper(pixels: Float32) -> tuple[Float32, Float32]:
    """Find the paper of an opaque image. A photographed one comes back smoothed, against the grain of sensor and paper."""
    colour = median(pixels.reshape(-1, pixels.shape[2])).astype(np.float32)[None, None]
    if median(_contrast(pixels, colour).ravel()) <= _FLAT:
        return pixels, colour
    from PIL import Image, ImageFilter

    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    grainless = Image.fromarray((pixels * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(1))
    smooth = _unit(grainless, 1)
    return smooth, _fitted_paper(smooth)


def _fitted_paper(pixels: Float32) -> Float32:
    """Fit a quadratic surface [H, W, 3] to the paper: least absolute deviations, so that ink does not pull it."""
    height, width = pixels.shape[:2]
    basis = _quadratics(np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :])
    step = max(1, max(height, width) // 64)
    terms = basis[::step, ::step].reshape(-1, basis.shape[2])
    values = pixels[::step, ::step].reshape(-1, 3)
    weights = np.ones((len(values), 1))
    for _ in range(20):  # reweighted least squares; settles in about ten
        surface = np.linalg.lstsq(terms * weights, values * weights, rcond=None)[0]
        residual = np.abs(values - terms @ surface).max(axis=1, keepdims=True)
        weights = 1 / np.sqrt(residual + 0.01)
    return (basis @ surface).astype(np.float32)


def _quadratics(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    one = np.ones(np.broadcast(y, x).shape)
    return np.stack([one, x * one, y * one, x * y, x * x * one, y * y * one], axis=-1)


def _placed(ink: Float32, side: int, long_side: float) -> Pixels:
    """Crop to the ink's box, scale, and centre on uint8 [side, side]; the upper ink level becomes 255."""
    from PIL import Image

    rows = np.flatnonzero((ink > _INK_BOX).any(axis=1))
    columns = np.flatnonzero((ink > _INK_BOX).any(axis=0))
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longest, lines = max(crop.shape), _line_width((crop * 255).astype(np.uint8))
    middle = longest - lines if lines < _LINE_SHARE * longest else longest
    scale = min(long_side * side / middle, side / longest)
    height, width = (max(1, round(length * scale)) for length in crop.shape)
    filter_ = Image.Resampling.HAMMING if scale < 1 else Image.Resampling.BICUBIC  # the sharpest that leave no halo or blocks
    resized = np.asarray(Image.fromarray(crop).resize((width, height), filter_))
    level = percentile(resized[resized > resized.max() / 10], 90)
    placed = np.zeros((side, side), np.uint8)
    # The rasteriser's pixel i lies around coordinate i, not between i and i + 1: hence half a pixel of the result further.
    top, left = (min((side - length + _FINE) // 2, side - length) for length in (height, width))
    scaled = resized / level
    np.clip(scaled, 0, 1, out=scaled)
    scaled *= 255
    scaled += 0.5
    placed[top : top + height, left : left + width] = scaled
    return placed


def _widened(fine: Pixels, line_width: float) -> Pixels:
    """Widen lines that are thinner than ``line_width`` pixels of this grid by growing all ink evenly."""
    missing = (line_width - _line_width(fine)) / 2  # on either side of a line
    for turn in range(max(0, int(np.ceil(missing)))):
        share = min(1.0, missing - turn)
        grown = _grown(fine, diagonal=turn % 2 == 1)  # cross and square in turn grow an octagon, nearly round
        fine = grown if share == 1 else (fine + share * (grown - fine.astype(np.float32)) + 0.5).astype(np.uint8)
    return fine


def _line_width(fine: Pixels) -> float:
    """Return the typical line width of uint8 ink, pixels: the median ink across all rows' and columns' runs; 0 without any.

    A line at an angle is cut obliquely, at worst √2 times as long; 0.87 is right between. The median over runs counts lines by
    their length, so that a filled shape does not pass for a thick line.
    """
    widths = []
    for grid in (fine, fine.T):
        padded = np.pad(grid, ((0, 0), (1, 1))).ravel()  # so that no run goes over from one row to the next
        solid = padded >= _RUN_INK
        edges = np.flatnonzero(np.diff(solid))
        lengths = np.diff(edges)[::2]
        widths.append(np.add.reduceat(padded[solid], np.cumsum(lengths) - lengths, dtype=np.int64) / 255)
    every = np.concatenate(widths)
    return 0.87 * float(median(every)) if every.size else 0.0


def _grown(values: Pixels, *, diagonal: bool) -> Pixels:
    """Return the maximum over each pixel's 3 x 3 cross or square; nothing lies beyond the edge."""
    tall = values.copy()
    np.maximum(tall[1:], values[:-1], out=tall[1:])
    np.maximum(tall[:-1], values[1:], out=tall[:-1])
    source = tall if diagonal else values
    grown: Pixels = tall.copy()
    np.maximum(grown[:, 1:], source[:, :-1], out=grown[:, 1:])
    np.maximum(grown[:, :-1], source[:, 1:], out=grown[:, :-1])
    return grown
