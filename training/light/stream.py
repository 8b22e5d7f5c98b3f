"""The same augmented drawings at two sizes: what the teacher sees and what the light encoder sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from fgsbir_edge.preprocess import InputSpec
from training.data.augment import Augmentation
from training.data.composite import composed
from training.data.sources import Source, SourceConfig, open_sources

_STREAM = 5  # keeps these draws apart from others of the same seed
_MIX = 6


@dataclass(frozen=True)
class Side:
    """One size of the stream: its sources, and the augmentation with line widths in its own pixels."""

    sources: tuple[Source, ...]
    augmentation: Augmentation

    @classmethod
    def open(
        cls, configs: Sequence[SourceConfig], data: Path, spec: InputSpec, augmentation: Augmentation, cache: Path | None
    ) -> Side:
        """Widths of `augmentation` are those of a line 2 pixels wide, scaled by the spec's. Raises what ``open_sources`` does."""
        factor = spec.line_width / InputSpec.line_width
        drawn = replace(augmentation, width_min=augmentation.width_min * factor, width_max=augmentation.width_max * factor)
        return cls(open_sources(configs, data, spec, cache), drawn)


class DrawingStream:
    """Numbered batches of drawings, each a pure function of seed and number, `count` of one source or fewer if it has no more.

    Both sides draw the same sketches through the same maps. Where lines are worn by whole pixels (raster sketches) they differ
    by that.
    """

    def __init__(self, teacher: Side, light: Side, count: int, seed: int) -> None:
        """Raises ValueError for fewer than two sketches a batch."""
        if count < 2 or seed < 0:
            raise ValueError(f"{count} sketches a step with seed {seed}: expected at least 2 and 0")
        self.teacher, self.light, self.count, self.seed = teacher, light, count, seed
        shares = np.array([source.share for source in teacher.sources])
        self._shares = shares / shares.sum()

    def draw(self, side: Side, number: int) -> Tensor:
        """Batch `number` for one side: float32 [B,3,S,S]. Raises what reading a sketch raises."""
        rng = np.random.default_rng([self.seed, _STREAM, number])
        source = side.sources[int(rng.choice(len(side.sources), p=self._shares))]
        pairs = source.sample(rng, self.count)
        flips = rng.random(len(pairs)) < side.augmentation.flip
        pixels = source.store.sketch_batch(pairs, rng, flips, side.augmentation)
        mix = np.random.default_rng([self.seed, _MIX, number])
        if mix.random() < side.augmentation.composite:
            pixels = composed(pixels, pixels, mix)[0]
        return pixels
