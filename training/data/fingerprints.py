"""What tells that two photos, or two sketches, are the same: for the split report.

Photos. The 64-bit difference hash says which of two neighbouring grey values, on a 9 x 8 grid, is larger; two photos are compared
by the number of bits that differ. A plain background is cut away first, so that framing hides nothing. A catalogue is full of
things of one shape, which the hash takes for copies; so a pair is also compared by colour: its likeness is the correlation of two
8 x 8 thumbnails, which a change of brightness or contrast leaves alone.

Sketches. Vector or drawing, each is drawn in the frame that a network sees it in, with lines of one width, softened to 32 x 32;
likeness is the correlation again. So a sketch equals its own rendering, thinner or thicker, and its simplified self.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.formats.drawing import Drawing, drawing_pixels
from fgsbir_edge.photo import ImageBudget, flattened, open_image
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.reading import read_start
from fgsbir_edge.sketch import Sketch
from fgsbir_edge.trim import content_box

if TYPE_CHECKING:
    from PIL.Image import Image

BITS = 64
_THUMB = 8  # pixels a side
_LOOK = 256  # pixels; larger JPEGs are decoded smaller
_DRAWN = RasterSpec(64, 64, "antialias", 2.0)
_SOFT = np.array([1, 4, 6, 4, 1], np.float32) / 16
_ROWS = 512  # items compared at a time with all others

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class PhotoPrints:
    """Of N photos: names, SHA-256 of the files, hash bits as -1 and 1 [N, 64], and thumbnails [N, 192] of mean 0 and length 1."""

    names: list[str]
    sha256: list[str]
    bits: Float32
    thumbs: Float32

    @classmethod
    def of(cls, files: dict[str, Path]) -> tuple[PhotoPrints, list[str]]:
        """Read and decode every file; what cannot be read is left out and named in the second result."""
        names, digests, bits, thumbs, problems = [], [], [], [], []
        for name, path in files.items():
            try:
                data = read_start(path, ImageBudget().max_bytes)
                print_ = photo_print(open_image(data, wanted=_LOOK))
            except FgsbirError as error:
                problems.append(f"{name}: {error}")
                continue
            names.append(name)
            digests.append(hashlib.sha256(data).hexdigest())
            bits.append(print_[0])
            thumbs.append(print_[1])
        rows = (np.array(table, np.float32).reshape(-1, width) for table, width in ((bits, BITS), (thumbs, 3 * _THUMB**2)))
        return cls(names, digests, *rows), problems


def photo_print(image: Image) -> tuple[Float32, Float32]:
    """Hash bits [64] and thumbnail [192] of an image in any mode."""
    from PIL.Image import Resampling

    whole = flattened(image)
    found = content_box(whole)
    content = whole if found is None else whole.crop(found[0])
    grey = np.asarray(content.convert("L").resize((9, 8), Resampling.LANCZOS), np.int16)
    bits = np.where(np.diff(grey, axis=1) > 0, 1, -1).astype(np.float32).ravel()
    small = np.asarray(content.resize((_THUMB, _THUMB), Resampling.BOX), np.float32)
    return bits, _centred(small)


def near_photos(a: PhotoPrints, b: PhotoPrints | None, distance: int) -> Iterator[tuple[int, int, int, float]]:
    """Pairs whose hashes differ in at most `distance` bits: row in `a`, row in `b`, bits, likeness; by rows.

    `b` None: pairs within `a`, each once. The work is 64 multiplications a pair: about ten seconds for 50,000 photos.
    """
    for row, column, product in _close(a.bits, None if b is None else b.bits, BITS - 2 * distance):
        likeness = float(a.thumbs[row] @ (a if b is None else b).thumbs[column])
        yield row, column, round((BITS - product) / 2), likeness


def sketch_print(sketch: Sketch | Drawing) -> Float32:
    """The softened picture [1024] of mean 0 and length 1. Raises EmptySketchError for a sketch without extent."""
    ink = rasterize(sketch.centred(), _DRAWN)[0] if isinstance(sketch, Sketch) else drawing_pixels(sketch, _DRAWN.height)
    padded = np.pad(ink.astype(np.float32), 2)
    tall = sum(weight * padded[i : i + 64] for i, weight in enumerate(_SOFT))
    soft = sum(weight * tall[:, i : i + 64] for i, weight in enumerate(_SOFT))
    return _centred(np.asarray(soft).reshape(32, 2, 32, 2).mean(axis=(1, 3)))


def equal_sketches(a: Float32, b: Float32 | None, likeness: float) -> Iterator[tuple[int, int, float]]:
    """Pairs of prints [N, 1024] and [M, 1024] at least so alike: row in `a`, row in `b`, likeness; `b` None: within `a`."""
    return _close(a, b, likeness)


def _centred(pixels: Float32) -> Float32:
    """Flat, with mean 0 and length 1; of one flat colour all zeros, which is like nothing."""
    values: Float32 = (pixels - pixels.mean()).ravel().astype(np.float32)
    length = np.float32(np.linalg.norm(values))
    return values / length if length > 0 else values


def _close(a: Float32, b: Float32 | None, least: float) -> Iterator[tuple[int, int, float]]:
    """Pairs of rows whose product is at least `least`, by rows; within `a` each once, if `b` is None."""
    other = a if b is None else b
    for start in range(0, len(a), _ROWS):
        products = a[start : start + _ROWS] @ other.T
        for row, column in np.argwhere(products >= least).tolist():
            if b is not None or column > start + row:
                yield start + row, column, float(products[row, column])


def stacked(prints: Sequence[Float32]) -> Float32:
    """Sketch prints as one array [N, 1024]; N may be 0."""
    return np.array(prints, np.float32).reshape(-1, 32 * 32)
