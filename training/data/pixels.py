"""Pixels of a dataset held in memory, and the batches a network trains on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fgsbir_edge.formats.drawing import drawing_pixels
from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.sketch import Sketch
from training.data.augment import PHOTO_AFFINE, SKETCH_AFFINE, augment_colour, augment_ink, augment_strokes, warp
from training.data.folder import Pair, PairsFolder

MARGIN = 1.2  # stored images are this much larger than the network's input, so that warping does not blur
LINE_WIDTHS = (1.2, 3.2)  # pixels at the network's input size


@dataclass
class PixelStore:
    """Decoded once, kept as uint8: photos [S',S',3] and ink [S',S'], or the vector sketch itself."""

    folder: PairsFolder
    spec: InputSpec
    photos: dict[str, np.ndarray] = field(default_factory=dict)
    sketches: dict[str, np.ndarray | Sketch] = field(default_factory=dict)

    @property
    def side(self) -> int:
        return round(self.spec.size * MARGIN)

    def photo(self, name: str) -> np.ndarray:
        if name not in self.photos:
            self.photos[name] = load_photo(self.folder.photo_path(name), self.side, self.spec.photo_fit)
        return self.photos[name]

    def sketch(self, key: str) -> np.ndarray | Sketch:
        if key not in self.sketches:
            item = self.folder.sketch(key)
            width = MARGIN * self.spec.line_width
            ink = item.centred() if isinstance(item, Sketch) else drawing_pixels(item, self.side, line_width=width)
            self.sketches[key] = ink
        return self.sketches[key]

    def batch(self, pairs: list[Pair], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Augmented, normalised sketches and photos of `pairs`: two float32 tensors [B,3,S,S]; a flip is shared by a pair."""
        flips = rng.random(len(pairs)) < 0.5
        return self.sketch_batch(pairs, rng, flips), self.photo_batch(pairs, rng, flips)

    def sketch_batch(self, pairs: list[Pair], rng: np.random.Generator, flips: np.ndarray | None = None) -> Tensor:
        """Augmented sketches of `pairs`, mirrored where `flips` [B] says so (None: none)."""
        flips = np.zeros(len(pairs), dtype=bool) if flips is None else flips
        size = self.spec.size
        ink = torch.empty(len(pairs), 1, size, size)
        for row, (pair, flip) in enumerate(zip(pairs, flips, strict=True)):
            item = self.sketch(pair.sketch)
            if isinstance(item, Sketch):
                spec = RasterSpec(size, size, "antialias", float(rng.uniform(*LINE_WIDTHS)), "light")
                ink[row, 0] = torch.from_numpy(rasterize(augment_strokes(item, rng, bool(flip)), spec)[0]).float() / 255.0
            else:
                source = torch.from_numpy(item).float().div_(255.0)[None, None]
                warped = warp(source, SKETCH_AFFINE.sample(rng, bool(flip))[None], size, outside=0.0)
                ink[row] = augment_ink(warped, rng)[0]
        value = 1.0 - ink if self.spec.ink == "dark" else ink
        return self._normalise(value.expand(-1, 3, -1, -1))

    def photo_batch(self, pairs: list[Pair], rng: np.random.Generator, flips: np.ndarray | None = None) -> Tensor:
        """Augmented photos of `pairs`, mirrored where `flips` [B] says so (None: none)."""
        flips = np.zeros(len(pairs), dtype=bool) if flips is None else flips
        source = torch.from_numpy(np.stack([self.photo(pair.photo) for pair in pairs])).permute(0, 3, 1, 2).float().div_(255.0)
        matrices = np.stack([PHOTO_AFFINE.sample(rng, bool(flip)) for flip in flips])
        return self._normalise(augment_colour(warp(source, matrices, self.spec.size, outside=None), rng))

    def _normalise(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.spec.mean, self.spec.std))
        return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
