"""Pixels of a dataset held in memory, and augmented batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgsbir_edge.formats.drawing import Drawing, drawing_pixels
from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import BRESENHAM_WIDTH, InputSpec
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.sketch import Sketch
from training.data.augment import Augmentation, on_canvas, redrawn
from training.data.cache import PixelCache, Pixels
from training.data.edges import edge_drawing, edge_name
from training.data.elastic import Waves
from training.data.folder import IMAGE_SUFFIXES, Pair, PairsFolder
from training.data.warp import recoloured, sampling_grid, warp, worn

MARGIN = 1.2  # stored images are this much larger than the network's input, so that warping does not blur

Flags = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass
class PixelStore:
    """Items of a dataset, decoded once and kept as uint8: photos [S',S',3] and ink [S',S'], or the vector sketch itself.

    S' is 1.2 times the network's input, or just that where nothing will be warped. With `cache`, decoded photos, raster sketches
    and edge drawings are also kept on disk (cache.py says under which key). Sketches named by edges.edge_key are drawn from
    photos.

    Pickled for a worker process, a store leaves its memory behind.
    """

    folder: PairsFolder
    spec: InputSpec
    cache: Path | None = None
    photos: dict[tuple[str, int], Pixels] = field(default_factory=dict, repr=False)
    sketches: dict[tuple[str, int], Pixels | Sketch] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "photos": {}, "sketches": {}}

    def photo(self, name: str, side: int) -> Pixels:
        """uint8 [side,side,3], framed as the runtime does. Raises what load_photo raises."""
        key = name, side
        if key not in self.photos:
            path, fit = self.folder.photo_path(name), self.spec.photo_fit
            self.photos[key] = self._kept(path, "photo", (side, fit), lambda: load_photo(path, side, fit))
        return self.photos[key]

    def sketch(self, name: str, side: int) -> Pixels | Sketch:
        """A centred vector sketch, or ink uint8 [side,side]. Raises what the folder's readers and drawing_pixels raise."""
        key = name, side
        if key not in self.sketches:
            self.sketches[key] = self._sketch(name, side)
        return self.sketches[key]

    def _sketch(self, name: str, side: int) -> Pixels | Sketch:
        spec = self.spec
        width = (spec.line_width if spec.style == "antialias" else BRESENHAM_WIDTH) * side / spec.size
        if (edge := edge_name(name)) is not None:
            scale, photo = edge
            path, settings = self.folder.photo_path(photo), (side, spec.photo_fit, round(width, 6), scale)
            return self._kept(path, "edges", settings, lambda: edge_drawing(path, spec.photo_fit, scale, side, width))
        plain = type(self.folder).sketch is PairsFolder.sketch  # else the sketch may not be a file of its own
        for part in ("sketches", "sketches_extra") if self.cache is not None and plain else ():
            path = self.folder.root / part / name
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                return self._kept(path, "ink", (side, round(width, 6)), lambda: self._placed(name, side, width))
        item = self.folder.sketch(name)
        return item.centred() if isinstance(item, Sketch) else drawing_pixels(item, side, line_width=width)

    def _placed(self, name: str, side: int, width: float) -> Pixels:
        drawing = self.folder.sketch(name)
        assert isinstance(drawing, Drawing)
        return drawing_pixels(drawing, side, line_width=width)

    def _kept(self, path: Path, kind: str, settings: tuple[object, ...], make: Any) -> Pixels:
        pixels: Pixels = make() if self.cache is None else PixelCache(self.cache).get(path, kind, settings, make)
        return pixels

    def batch(
        self, pairs: Sequence[Pair], rng: np.random.Generator, augmentation: Augmentation | None = None
    ) -> tuple[Tensor, Tensor]:
        """Augmented, normalised sketches and photos of `pairs`: two float32 tensors [B,3,S,S]; a flip is shared by a pair."""
        options = augmentation or Augmentation()
        flips = rng.random(len(pairs)) < options.flip
        return self.sketch_batch(pairs, rng, flips, options), self.photo_batch(pairs, rng, flips, options)

    def sketch_batch(
        self,
        pairs: Sequence[Pair],
        rng: np.random.Generator,
        flips: Flags | None = None,
        augmentation: Augmentation | None = None,
    ) -> Tensor:
        """Augmented sketches of `pairs`, float32 [B,3,S,S], mirrored where `flips` [B] says so (None: none)."""
        options = augmentation or Augmentation()
        flips = np.zeros(len(pairs), dtype=bool) if flips is None else flips
        size, moved = self.spec.size, options.moves_sketches or bool(flips.any())
        items = [self.sketch(pair.sketch, round(size * MARGIN) if moved else size) for pair in pairs]
        maps = options.sketch_affine.sample(rng, flips)
        waves = Waves.sample(rng, len(pairs), options.elastic) if options.elastic else None
        drawn = np.zeros((len(pairs), size, size), np.uint8)
        widths = rng.uniform(options.width_min, options.width_max, len(pairs))
        for row, item in enumerate(items):  # each with a width of its own: 24 calls cost a tenth of a millisecond more than one
            if isinstance(item, Sketch):
                sketch = redrawn(item, options, rng)
                points = on_canvas(sketch.points, maps[row])
                points = points if waves is None else points + waves.at(row, points)
                raster = RasterSpec(size, size, self.spec.style, float(widths[row]) or self.spec.line_width)
                rasterize(Sketch(points, sketch.offsets), raster, out=drawn[row : row + 1])
        ink = torch.from_numpy(drawn)[:, None].float().mul_(1 / 255)
        rasters = np.array([row for row, item in enumerate(items) if not isinstance(item, Sketch)], dtype=np.int64)
        if len(rasters):
            source = torch.from_numpy(np.stack([items[row] for row in rasters]))[:, None].float().mul_(1 / 255)
            if moved:
                field = None if waves is None else waves.on_grid(rasters, size)
                source = warp(source, sampling_grid(maps[rasters], size, field), border=False)
            ink[torch.from_numpy(rasters)] = worn(source, options, rng)
        return self._normalised(1.0 - ink if self.spec.ink == "dark" else ink)

    def photo_batch(
        self,
        pairs: Sequence[Pair],
        rng: np.random.Generator,
        flips: Flags | None = None,
        augmentation: Augmentation | None = None,
    ) -> Tensor:
        """Augmented photos of `pairs`, float32 [B,3,S,S], mirrored where `flips` [B] says so (None: none)."""
        options = augmentation or Augmentation()
        flips = np.zeros(len(pairs), dtype=bool) if flips is None else flips
        size, moved = self.spec.size, options.moves_photos or bool(flips.any())
        stored = [self.photo(pair.photo, round(size * MARGIN) if moved else size) for pair in pairs]
        photos = torch.from_numpy(np.stack(stored)).permute(0, 3, 1, 2).float().mul_(1 / 255)
        if moved:
            photos = warp(photos, sampling_grid(options.photo_affine.sample(rng, flips), size), border=True)
        return self._normalised(recoloured(photos, options, rng))

    def _normalised(self, pixels: Tensor) -> Tensor:
        """[B,1 or 3,S,S] in [0,1] -> [B,3,S,S], channels last."""
        mean, scale = torch.tensor(self.spec.mean), 1.0 / torch.tensor(self.spec.std)
        out = (pixels - mean.view(1, 3, 1, 1)).mul_(scale.view(1, 3, 1, 1))
        return out.contiguous(memory_format=torch.channels_last)
