"""What the encoder sees: sketches and photos to normalised float32 pixels. Training imports this, so that both see the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import ShapeError, SketchFormatError
from fgsbir_edge.photo import Fit, flattened, open_image

if TYPE_CHECKING:
    import os

    from PIL.Image import Image

    from fgsbir_edge.formats.drawing import Drawing
    from fgsbir_edge.sketch import Sketch

Style = Literal["bresenham", "antialias"]
Ink = Literal["light", "dark"]
Triple = tuple[float, float, float]

BRESENHAM_WIDTH = 3.0  # pixels: a line and its dilation by the 3x3 cross
MIN_SIZE, MAX_SIZE = 8, 2048  # pixels a side; a manifest that asks for more is damaged or hostile


@dataclass(frozen=True)
class InputSpec:
    """The "input" object of a bundle's manifest: pixels a side, normalisation, and how photos and sketches are drawn into them.

    Pixels p in [0, 1] become (p - mean) / std, RGB. ``photo_fit`` is that of ``photo_pixels``; ``photo_shift`` (pixels, 0 for
    none) says that a photo's features are a mean over shifted copies of it (encoder/shifts.py).
    ``style``, ``line_width`` (pixels, antialias only) and ``ink`` ("light" = white lines on black) are the sketch rasteriser's.
    Raises ValueError naming the field that is out of range.
    """

    size: int = 160
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    photo_fit: Fit = "trim"
    style: Style = "antialias"
    line_width: float = 2.0
    ink: Ink = "dark"
    photo_shift: int = 0

    def __post_init__(self) -> None:
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise ValueError(f"input size is {self.size}, expected {MIN_SIZE} to {MAX_SIZE} pixels")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"input {name} is {values}, expected three finite numbers")
        if min(self.std) <= 0 or not 0 < self.line_width <= self.size:
            raise ValueError(f"input std {self.std} and line_width {self.line_width} must be positive")
        if not 0 <= self.photo_shift < self.size:
            raise ValueError(f"input photo_shift is {self.photo_shift}, expected 0 to {self.size - 1} pixels")
        for name, allowed in (("photo_fit", get_args(Fit)), ("style", get_args(Style)), ("ink", get_args(Ink))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"input {name} is {getattr(self, name)!r}, expected one of {allowed}")

    def to_manifest(self) -> dict[str, Any]:
        """The JSON form: sketch fields in an object of their own, lists for tuples, no ``photo_shift`` where it is 0."""
        flat = asdict(self)
        if not self.photo_shift:
            del flat["photo_shift"]  # so that features of bundles from before it keep their digest
        sketch = {name: flat.pop(name) for name in ("style", "line_width", "ink")}
        return {**flat, "mean": list(self.mean), "std": list(self.std), "sketch": sketch}

    @classmethod
    def from_manifest(cls, data: Mapping[str, Any]) -> InputSpec:
        """The reverse of ``to_manifest``. Raises ValueError, KeyError or TypeError when fields are missing or wrong."""
        sketch = data["sketch"]
        return cls(
            size=int(data["size"]),
            mean=_triple(data["mean"]),
            std=_triple(data["std"]),
            photo_fit=data["photo_fit"],
            style=sketch["style"],
            line_width=float(sketch["line_width"]),
            ink=sketch["ink"],
            photo_shift=int(data.get("photo_shift", 0)),
        )


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def sketch_pixels(items: Sequence[Sketch | Drawing], spec: InputSpec, *, threads: int = 1) -> Float32:
    """Encoder input of a batch of vector sketches and raster drawings, in any mixture: float32 [B, 3, S, S].

    Vector sketches are centred (longer side 190 of 256) and rasterised straight into the normalised batch; drawings are cropped
    to their ink, placed the same way and brought to the same polarity. Raises what ``Sketch.centred`` and ``drawing_pixels`` do.
    """
    from fgsbir_edge.formats.drawing import drawing_pixels
    from fgsbir_edge.raster import RasterSpec, rasterize
    from fgsbir_edge.sketch import Sketch

    batch = np.empty((len(items), 3, spec.size, spec.size), np.float32)
    vectors = [(row, item.centred()) for row, item in enumerate(items) if isinstance(item, Sketch)]
    if vectors:
        raster = RasterSpec(spec.size, spec.size, spec.style, spec.line_width, spec.ink, spec.mean, spec.std)
        whole = len(vectors) == len(items)
        drawn = rasterize([sketch for _, sketch in vectors], raster, threads=threads, out=batch if whole else None)
        if not whole:
            batch[[row for row, _ in vectors]] = drawn
    rasters = [(row, item) for row, item in enumerate(items) if not isinstance(item, Sketch)]
    if rasters:
        width = spec.line_width if spec.style == "antialias" else BRESENHAM_WIDTH
        ink = np.stack([drawing_pixels(drawing, spec.size, line_width=width) for _, drawing in rasters])
        grey = ink if spec.ink == "light" else 255 - ink
        batch[[row for row, _ in rasters]] = _normalised(np.repeat(grey[..., None], 3, axis=-1), spec)
    return batch


def open_photo(path: str | os.PathLike[str], spec: InputSpec) -> Image:
    """A photo file as an RGB image, large JPEGs decoded no larger than ``photo_pixels`` needs, as in ``photo.load_photo``.

    Raises UnreadableImageError, TruncatedImageError, ImageTooLargeError.
    """
    wanted = 2 * spec.size if spec.photo_fit == "trim" else spec.size  # a trimmed object may fill half the photo
    return flattened(open_image(path, wanted=wanted, fit=spec.photo_fit))


def photo_batch(images: Sequence[NDArray[np.uint8]], spec: InputSpec) -> Float32:
    """Encoder input of photos already brought to size: B arrays uint8 [S, S, 3] -> float32 [B, 3, S, S]. Raises ShapeError."""
    shape = (spec.size, spec.size, 3)
    for image in images:
        if image.shape != shape or image.dtype != np.uint8:
            raise ShapeError(f"photo: got {image.dtype} {list(image.shape)}, expected uint8 {list(shape)}; use photo_pixels")
    if not images:
        return np.empty((0, 3, spec.size, spec.size), np.float32)
    return _normalised(np.stack(images), spec)


def _normalised(images: NDArray[np.uint8], spec: InputSpec) -> Float32:
    """uint8 [B, S, S, 3] -> (v / 255 - mean) / std, float32 [B, 3, S, S], as one table look-up a channel."""
    levels = np.arange(256, dtype=np.float64)[:, None] / 255.0
    table = ((levels - np.asarray(spec.mean)) / np.asarray(spec.std)).astype(np.float32)  # [256, 3]
    batch = np.empty((len(images), 3, spec.size, spec.size), np.float32)
    for channel in range(3):
        np.take(table[:, channel], images[..., channel], out=batch[:, channel], mode="clip")  # "raise" would buffer
    return batch


def as_sketch(source: object) -> Sketch | Drawing:
    """A sketch from whatever a caller has: Sketch, Drawing, path, PIL image, or an image array uint8 [H, W] or [H, W, 3 or 4].

    Raises ShapeError or SketchFormatError for anything else, and what the file readers raise.
    """
    import os

    from PIL import Image

    from fgsbir_edge.formats.drawing import Drawing
    from fgsbir_edge.sketch import Sketch

    if isinstance(source, (Sketch, Drawing)):
        return source
    if isinstance(source, (str, os.PathLike)):
        from fgsbir_edge.formats import read_sketch

        return read_sketch(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or not (source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))):
            raise ShapeError(
                f"sketch array: got {source.dtype} {list(source.shape)}, expected an image, uint8 [H, W] or [H, W, 3 or 4]; "
                "for points use Sketch.from_strokes"
            )
        source = Image.fromarray(source)
    if isinstance(source, Image.Image):
        return Drawing.from_image(source)
    raise SketchFormatError(f"sketch: got {type(source).__name__}, expected a path, Sketch, Drawing, PIL image or image array")
