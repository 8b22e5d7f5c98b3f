"""What the generator is given of pictures: pixels, or the maps of a backbone that does not train, computed once and kept."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from training.generation.corpus import Corpus, Flags, Numbers, Pictures
from training.generation.network import Encoded, Generator

log = logging.getLogger("training.generation")

BATCH = 32  # pictures through the backbone at a time

Maps = NDArray[np.float16]


class Sights:
    """The pictures of corpora as a generator takes them.

    With a fixed backbone these are maps, float16: for EfficientNet-Lite0 at 256 pixels 40 KiB a picture, twice that with `flips`.
    """

    def __init__(self, generator: Generator, corpora: Sequence[Corpus], *, flips: bool, cache: Path | None = None) -> None:
        self.corpora, self.fixed = tuple(corpora), not generator.config.train_backbone
        self.tables = [map_table(generator, item.pictures, flips=flips, cache=cache) for item in corpora] if self.fixed else []

    def __call__(self, corpus: int, numbers: Numbers, mirrored: Flags | None = None) -> Tensor:
        """Of the drawings `numbers` [B] of a corpus: maps float32 [B,c,h,w], or pixels [B,3,S,S]; mirrored where asked for."""
        flips = np.zeros(len(numbers), dtype=np.bool_) if mirrored is None else mirrored
        which = self.corpora[corpus].picture[numbers]
        if self.fixed:
            return torch.from_numpy(self.tables[corpus][which, flips.astype(np.int64)].astype(np.float32))
        pixels = torch.from_numpy(self.corpora[corpus].pictures.pixels(which.tolist()))
        pixels[torch.from_numpy(flips)] = pixels[torch.from_numpy(flips)].flip(3)
        return pixels.contiguous(memory_format=torch.channels_last)


def encode(generator: Generator, seen: Tensor) -> Encoded:
    """What `Sights` gave, encoded."""
    return generator.encode(seen) if generator.config.train_backbone else generator.encode_maps(seen)


def map_table(generator: Generator, pictures: Pictures, *, flips: bool, cache: Path | None = None) -> Maps:
    """Maps of all pictures, float16 [N,V,c,h,w]: plain, and with `flips` mirrored.

    With `cache` from a file of that folder, named by a hash of weights, pictures and settings, which is made first where it is
    missing and then read where it lies.
    """
    config = generator.config
    shape = (len(pictures), 1 + flips, config.tap.channels, generator.side, generator.side)
    if cache is None:
        maps: Maps = np.empty(shape, np.float16)
        _fill(maps, generator, pictures)
        return maps
    key = hashlib.sha256(repr((config.backbone, config.tap, config.size, flips, pictures.digest())).encode())
    for name, tensor in sorted(generator.backbone.state_dict().items()):
        key.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    path = cache / f"maps-{key.hexdigest()[:24]}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        file = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
        _fill(file, generator, pictures)
        file.flush()
        os.replace(partial, path)
    loaded: Maps = np.load(path, mmap_mode="r", allow_pickle=False)
    return loaded


@torch.no_grad()
def _fill(maps: Maps, generator: Generator, pictures: Pictures) -> None:
    device, training = generator.output.weight.device, generator.training
    generator.eval()
    quiet = not sys.stderr.isatty()
    for start in tqdm(range(0, len(maps), BATCH), desc="maps", disable=quiet, unit="batch"):
        numbers = range(start, min(start + BATCH, len(maps)))
        pixels = torch.from_numpy(pictures.pixels(numbers)).to(device).contiguous(memory_format=torch.channels_last)
        for version in range(maps.shape[1]):
            found = generator.maps(pixels.flip(3) if version else pixels)
            maps[start : start + len(numbers), version] = found.cpu().numpy().astype(np.float16)
    generator.train(training)
    log.info("%d pictures seen by the backbone", len(maps))
