"""What augmentation may do, and vector sketches redrawn by it. warp.py does the nearest thing to pixels.

Strokes allow what pixels do not: leaving a stroke out, moving one alone, stopping half-way, drawing with another pen. All
randomness comes from the generator passed in.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.sketch import CANVAS, MIN_EXTENT, Sketch

FloatArray = NDArray[np.float64]

FEWEST_STROKES = 3  # a drawing of no more strokes loses none
_PROBABILITIES = ("stroke_dropout", "prefix", "prefix_least", "flip", "erase", "thicken", "thin", "grey", "composite")
_LARGEST = {  # what keeps an augmented item recognisable, and the affine maps invertible
    **{f"{side}_degrees": 180.0 for side in ("sketch", "photo")},
    **{f"{side}_{what}": 0.9 for side in ("sketch", "photo") for what in ("scale", "shift", "shear", "stretch")},
    "stroke_jitter": 64.0,
    "stroke_scale": 0.9,
    "elastic": 32.0,
    "width_min": 64.0,
    "width_max": 64.0,
    "brightness": 0.9,
    "contrast": 0.9,
    "gain": 0.9,
}


@dataclass(frozen=True)
class Affine:
    """Ranges of a random affine map: degrees, log scale, shift as a share of the side, shear, independent log x/y stretch."""

    degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    stretch: float = 0.0

    @property
    def still(self) -> bool:
        """Nothing moves."""
        return not any(asdict(self).values())

    def sample(self, rng: np.random.Generator, flips: NDArray[np.bool_]) -> FloatArray:
        """B maps [B,2,3] that act on coordinates in [-1,1], mirrored left to right where `flips` [B] says so."""
        count = len(flips)
        angle = np.deg2rad(rng.uniform(-self.degrees, self.degrees, count))
        scale = np.exp(rng.uniform(-self.scale, self.scale, (count, 1)) + rng.uniform(-self.stretch, self.stretch, (count, 2)))
        shear = rng.uniform(-self.shear, self.shear, count)
        shift = rng.uniform(-2 * self.shift, 2 * self.shift, (count, 2))
        scale[:, 0] *= np.where(flips, -1.0, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        columns = [cos * scale[:, 0], (cos * shear - sin) * scale[:, 1], shift[:, 0]]
        columns += [sin * scale[:, 0], (sin * shear + cos) * scale[:, 1], shift[:, 1]]
        return np.stack(columns, axis=1).reshape(count, 2, 3)


@dataclass(frozen=True)
class Augmentation:
    """How much training items are changed. Numbers only, so that a configuration file can hold it.

    Vector sketches are redrawn, raster sketches warped, worn and torn, photos warped and recoloured. A flip is shared by a pair.

    Args:
        stroke_dropout: probability that a stroke is left out; two strokes stay at least, and few strokes stay all.
        prefix: probability that a vector sketch stops early, framed again as the device frames an unfinished one.
        prefix_least: smallest share of the points that such a beginning keeps.
        sketch_degrees, sketch_scale, sketch_shift, sketch_shear, sketch_stretch: affine range of sketches, as in `Affine`.
        photo_degrees, photo_scale, photo_shift, photo_shear, photo_stretch: affine range of photos.
        stroke_jitter: standard deviation of a stroke's own shift, units of the 256 canvas.
        stroke_scale: standard deviation of a stroke's own relative change of size.
        elastic: amplitude of a smooth random displacement of sketches, units of the 256 canvas (elastic.py).
        width_min, width_max: line width of vector sketches, pixels at the network's input; both 0: the runtime's own width.
        thicken, thin: probability that the lines of a raster sketch become thicker, or else thinner.
        erase: probability that a rectangle of a raster sketch is erased.
        flip: probability that a pair is mirrored.
        grey: probability that a photo loses its colour, since no sketch has any.
        composite: probability that the pairs of a batch exchange parts (composite.py).
        brightness, contrast, gain: largest shift of all values, relative change of contrast, and relative change of a channel.

    Raises:
        ValueError: a field out of range; the message names it.
    """

    stroke_dropout: float = 0.1
    prefix: float = 0.0
    prefix_least: float = 0.6
    sketch_degrees: float = 8.0
    sketch_scale: float = 0.12
    sketch_shift: float = 0.04
    sketch_shear: float = 0.06
    sketch_stretch: float = 0.08
    photo_degrees: float = 4.0
    photo_scale: float = 0.08
    photo_shift: float = 0.03
    photo_shear: float = 0.0
    photo_stretch: float = 0.03
    stroke_jitter: float = 1.5
    stroke_scale: float = 0.02
    elastic: float = 2.0
    width_min: float = 1.2
    width_max: float = 3.2
    thicken: float = 0.3
    thin: float = 0.15
    erase: float = 0.3
    flip: float = 0.5
    grey: float = 0.35
    brightness: float = 0.1
    contrast: float = 0.25
    gain: float = 0.1
    composite: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, largest = getattr(self, field.name), _LARGEST.get(field.name, 1.0)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= largest):
                kind = "a probability, 0 to 1" if field.name in _PROBABILITIES else f"a number from 0 to {largest:g}"
                raise ValueError(f"augmentation {field.name} is {value!r}, expected {kind}")
        if self.thicken + self.thin > 1:
            raise ValueError(f"augmentation thicken {self.thicken} and thin {self.thin} exclude each other: at most 1 together")
        if self.width_max < self.width_min or (self.width_min == 0 < self.width_max):
            raise ValueError(
                f"augmentation width_min {self.width_min} and width_max {self.width_max}: expected 0 < min <= max, "
                "or both 0 for the runtime's line width"
            )

    @classmethod
    def none(cls) -> Augmentation:
        """Nothing changes: items come as the device sees them."""
        return cls(**dict.fromkeys((field.name for field in fields(cls)), 0.0))

    @property
    def sketch_affine(self) -> Affine:
        return Affine(self.sketch_degrees, self.sketch_scale, self.sketch_shift, self.sketch_shear, self.sketch_stretch)

    @property
    def photo_affine(self) -> Affine:
        return Affine(self.photo_degrees, self.photo_scale, self.photo_shift, self.photo_shear, self.photo_stretch)

    @property
    def moves_sketches(self) -> bool:
        """Whether raster sketches are resampled."""
        return bool(self.elastic or self.flip) or not self.sketch_affine.still

    @property
    def moves_photos(self) -> bool:
        """Whether photos are resampled."""
        return bool(self.flip) or not self.photo_affine.still


def redrawn(sketch: Sketch, options: Augmentation, rng: np.random.Generator) -> Sketch:
    """A centred sketch stopped early, with strokes left out and strokes moved; the canvas is that of the original."""
    if options.prefix and rng.random() < options.prefix:
        sketch = beginning(sketch, rng.uniform(options.prefix_least, 1.0))
    lengths = np.diff(sketch.offsets)
    points = sketch.points
    if options.stroke_dropout and len(lengths) > FEWEST_STROKES:
        kept = rng.random(len(lengths)) >= options.stroke_dropout
        candidate = points[np.repeat(kept, lengths)]
        if kept.sum() >= 2 and np.ptp(candidate, axis=0).max() > MIN_EXTENT:
            points, lengths = candidate, lengths[kept]
    if options.stroke_jitter or options.stroke_scale:
        shift = rng.normal(0.0, options.stroke_jitter, (len(lengths), 2))
        growth = rng.normal(0.0, options.stroke_scale, (len(lengths), 1))
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        middle = np.add.reduceat(points, starts, axis=0) / lengths[:, None]
        points = points * np.repeat(1.0 + growth, lengths, axis=0) + np.repeat(shift - growth * middle, lengths, axis=0)
    return Sketch(points, np.concatenate([[0], np.cumsum(lengths)]))


def beginning(sketch: Sketch, share: float) -> Sketch:
    """The first `share` of the points, centred again; the whole sketch where so little of it has no extent."""
    part = sketch.prefix(max(2, math.ceil(share * sketch.num_points)))
    return part.centred() if np.ptp(part.points, axis=0).max() > MIN_EXTENT else sketch


def on_canvas(points: FloatArray, matrix: FloatArray) -> FloatArray:
    """Points [P,2] of the canvas through a map [2,3] on coordinates in [-1,1]."""
    half = CANVAS / 2
    moved: FloatArray = ((points / half - 1.0) @ matrix[:, :2].T + matrix[:, 2] + 1.0) * half
    return moved
