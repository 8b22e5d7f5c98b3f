"""Drawings in the loop: the generator's rows to vector sketches to what F and D_C see, through the native rasteriser.

People's sketches come to D_C by the same road: as rows of the same thinning and scale, brought back by the same uniform centre
scaling, drawn with the same line, so that neither frame, width, polarity nor detail tells real from generated (METHODS B.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.sketch import Sketch
from training.data.augment import Augmentation
from training.data.folder import Pair
from training.data.pixels import PixelStore
from training.generation.network import Encoded, Generator
from training.generation.sampling import Drawn, DrawOptions, draw
from training.generation.sequences import to_sketch


@dataclass
class DrawnStore(PixelStore):
    """A store whose sketches are vector drawings held in memory, by name: `drawn`."""

    drawn: dict[str, Sketch] = field(default_factory=dict, repr=False)

    def sketch(self, name: str, side: int) -> Sketch:
        """The drawing of this name, in whatever frame it is."""
        return self.drawn[name]


def pair_sketches(sketches: Sequence[Sketch], spec: InputSpec, threads: int = 1) -> Tensor:
    """What D_C sees of drawings that to_sketch gave: float32 [B,3,S,S]."""
    raster = RasterSpec(spec.size, spec.size, spec.style, spec.line_width, spec.ink, spec.mean, spec.std)
    return torch.from_numpy(rasterize(list(sketches), raster, threads=threads))


def sketches_of(drawn: Drawn, scale: float) -> list[Sketch]:
    """A batch of drawings as vector sketches, centred: longer side 190 of 256."""
    rows, lengths = drawn.rows.cpu().numpy(), drawn.lengths.cpu().numpy()
    return [to_sketch(row[:length], scale) for row, length in zip(rows, lengths, strict=True)]


@dataclass
class Illustrator:
    """The generator with the photos it draws. Maps of a fixed backbone are computed once for each photo and kept.

    `store` holds photos as the generator sees them, `scale` is the generator's (canvas units of an offset of 1), `temperature`
    and `pen_temperature` those of drawings that are not for the policy gradient.
    """

    generator: Generator
    store: PixelStore
    scale: float
    temperature: float = 1.0
    pen_temperature: float = 1.0
    maps: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        return self.generator.output.weight.device

    def pixels(self, names: Sequence[str]) -> Tensor:
        """float32 [B,3,S,S] on the generator's device."""
        pairs = [Pair(name, name) for name in names]
        return plain_photos(self.store, pairs).to(self.device)

    def features(self, names: Sequence[str]) -> Tensor:
        """The backbone's maps [B,c,h,w], with gradient where the backbone trains."""
        if self.generator.config.train_backbone:
            return self.generator.maps(self.pixels(names))
        if missing := [name for name in dict.fromkeys(names) if name not in self.maps]:
            for name, level in zip(missing, self.generator.maps(self.pixels(missing)), strict=True):
                self.maps[name] = level.half()  # half: what is seen once a photo is looked up for the rest of the run
        return torch.stack([self.maps[name].float() for name in names])

    @torch.no_grad()
    def encode(self, names: Sequence[str]) -> Encoded:
        """What the decoder needs of the photos."""
        return self.generator.eval().encode_maps(self.features(names))

    @torch.no_grad()
    def draw(self, photos: Encoded, rng: torch.Generator, *, policy: bool = False) -> Drawn:
        """Draw each photo once, as many rows as the generator's max_length at most.

        `policy`: for the policy gradient, at temperature 1 and with what log_likelihood needs.
        """
        options = DrawOptions(states=True) if policy else DrawOptions(self.temperature, pen_temperature=self.pen_temperature)
        return draw(self.generator.eval(), photos, options, rng)


def plain_photos(store: PixelStore, pairs: Sequence[Pair]) -> Tensor:
    """Photos as they are, normalised: float32 [B,3,S,S]."""
    return store.photo_batch(pairs, np.random.default_rng(0), None, Augmentation.none())
