"""An encoder and its head cut in two: modules that stay as they are, and the tail behind them, which methods change.

What the first part makes of an image is computed once and kept, so that an inner loop over the last stages costs no more than
these stages. Everything runs in evaluation mode: batch norm statistics are fixed and nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from fgsbir_edge.preprocess import InputSpec
from training.checkpoint import load_model
from training.data.folder import Pair
from training.data.pixels import PixelStore
from training.episodic.methods.protocol import Role
from training.episodic.methods.settings import Setting
from training.evaluation import photo_input, sketch_input
from training.models.encoder import EmbeddingHead, Encoder

# [B,c,h,h] each: the tapped maps of the first part, and what its last module gave unless that is the last of these
Maps = tuple[Tensor, ...]
BATCH = 32


class Tail(nn.Module):
    """The last `modules` modules of a backbone (all, where it has no more), attention, projection and head."""

    def __init__(self, encoder: Encoder, head: EmbeddingHead, modules: int) -> None:
        """Raises ValueError for a negative number of modules."""
        if modules < 0:
            raise ValueError(f"modules is {modules}, expected 0 (projection and head alone) or more")
        super().__init__()
        self.encoder, self.head = encoder, head
        steps = encoder.backbone.steps
        self.first = max(len(steps) - modules, 0)
        self._taps = {stage.name for stage in encoder.backbone.taps}
        self._ends_tapped = self.first > 0 and steps[self.first - 1][1] in self._taps
        self.eval()

    @classmethod
    def load(cls, checkpoint: Path, modules: int) -> tuple[Tail, InputSpec]:
        """The tail of a checkpoint and what its network takes. Raises what loading it raises."""
        encoder, head, meta = load_model(checkpoint)
        return cls(encoder, head, modules), replace(InputSpec.from_manifest(meta["input"]), photo_shift=0)

    @property
    def whole(self) -> bool:
        """Whether nothing stays as it is."""
        return self.first == 0

    @torch.no_grad()
    def before(self, pixels: Tensor) -> Maps:
        """What the modules that stay make of pixels [B,3,S,S]; the pixels themselves where none stays."""
        found = self._through(self.encoder.view(pixels), (), range(self.first))
        return found[:-1] if self._ends_tapped else found

    def forward(self, maps: Maps) -> Tensor:
        """Outputs [B,D] before they are normalised."""
        tapped = maps if self._ends_tapped else maps[:-1]
        levels = self._through(maps[-1], tapped, range(self.first, len(self.encoder.backbone.steps)))[:-1]
        attended = tuple(attend(level) for attend, level in zip(self.encoder.attention, levels, strict=True))
        outputs: Tensor = self.head.linear(self.encoder.project(self.encoder.pool_maps(attended)))
        return outputs

    def _through(self, x: Tensor, tapped: Maps, steps: Iterable[int]) -> Maps:
        """The maps tapped before and in these steps, and the last step's output."""
        backbone, found = self.encoder.backbone, list(tapped)
        for number in steps:
            path, stage = backbone.steps[number]
            x = backbone.get_submodule(path)(x)
            if stage in self._taps:
                found.append(x)
        return (*found, x)

    def learned(self) -> dict[str, nn.Parameter]:
        """Parameters of the tail by name; an identity head's and those of frozen layers are not among them."""
        kept = tuple(f"encoder.backbone.{path}." for path, _ in self.encoder.backbone.steps[: self.first])
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and not name.startswith(kept)
        }


@dataclass(eq=False)
class Activations:
    """What a tail takes of a setting's items, kept in memory (float32) unless the tail is the whole network.

    Version 0 of an item is the clean image; version v > 0 is one augmented version, a function of (seed, item, v) alone.
    """

    setting: Setting
    tail: Tail
    spec: InputSpec
    seed: int = 0
    known: dict[tuple[Role, int, int], Maps] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._store = PixelStore(self.setting.folder, self.spec)
        self._pairs = self.setting.pair_of

    def sketches(self, rows: np.ndarray, version: int = 0) -> Maps:
        """Maps [n,c,h,h] of sketches."""
        return self._get("sketch", rows, version)

    def photos(self, rows: np.ndarray, version: int = 0) -> Maps:
        """Maps [n,c,h,h] of photos."""
        return self._get("photo", rows, version)

    def _get(self, role: Role, rows: np.ndarray, version: int) -> Maps:
        wanted = [(role, int(row), version) for row in rows]
        known = {} if self.tail.whole else self.known
        missing = sorted(set(wanted) - set(known))
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            pixels = torch.cat([self._pixels(*key) for key in part]).contiguous(memory_format=torch.channels_last)
            levels = self.tail.before(pixels)
            known.update((key, tuple(level[index].clone() for level in levels)) for index, key in enumerate(part))
        return tuple(torch.stack(level) for level in zip(*(known[key] for key in wanted), strict=True))

    def _pixels(self, role: Role, row: int, version: int) -> Tensor:
        """[1,3,S,S]."""
        name = self.setting.sketches[row] if role == "sketch" else self.setting.photos[row]
        if version == 0:
            load = sketch_input if role == "sketch" else photo_input
            return torch.from_numpy(load(self.setting.folder, name, self.spec))
        rng = np.random.default_rng([self.seed, version, crc32(f"{role}/{name}".encode())])
        if role == "sketch":
            return self._store.sketch_batch([self._pairs[name]], rng)
        return self._store.photo_batch([Pair("", name, "")], rng)


def joined(first: Maps, second: Maps) -> Maps:
    """Rows of both."""
    return tuple(torch.cat(both) for both in zip(first, second, strict=True))


def chosen(maps: Maps, rows: Sequence[int] | Tensor) -> Maps:
    """Some rows."""
    index: Any = torch.as_tensor(rows)
    return tuple(level[index] for level in maps)
