"""Real images of both modalities, drawn from data folders in an order that depends on names alone, for choosing int8 ranges."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import NoPairsError
from fgsbir_edge.preprocess import InputSpec
from training.data.folder import PairsFolder
from training.data.splits import ordered
from training.evaluation import photo_input, sketch_input

IMAGES = 128


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Encoder input `pixels` float32 [N,3,S,S], sketches and photos by turns, and which images they are."""

    pixels: Float32
    names: tuple[str, ...]  # FOLDER/sketch/NAME or FOLDER/photo/NAME, in the order of the pixels

    @classmethod
    def draw(
        cls, folders: Sequence[PairsFolder], spec: InputSpec, images: int = IMAGES, *, photos: bool = True
    ) -> CalibrationSet:
        """Half sketches, half photos, evenly over the folders; fewer where a folder has fewer. Without `photos` sketches alone.

        Raises:
            NoPairsError: no folder, or fewer than two images wanted.
        """
        each = images // ((1 + photos) * max(len(folders), 1))
        if not folders or not each:
            raise NoPairsError(f"{images} calibration images from {len(folders)} folders; give a folder and at least 2 for each")
        pixels, names = [], []
        for folder in folders:
            name = folder.root.resolve().name
            sketches = ordered((pair.sketch for pair in folder.pairs), "calibration-sketches")[:each]
            wanted = ordered(folder.photo_category, "calibration-photos")[: each if photos else 0]
            drawn = [(f"{name}/sketch/{key}", sketch_input(folder, key, spec)) for key in sketches]
            taken = [(f"{name}/photo/{key}", photo_input(folder, key, spec)) for key in wanted]
            for place in range(max(len(drawn), len(taken))):
                for label, image in (*drawn[place : place + 1], *taken[place : place + 1]):
                    names.append(label)
                    pixels.append(image)
        return cls(np.concatenate(pixels), tuple(names))

    @cached_property
    def sha256(self) -> str:
        """Over shape, pixels and names."""
        state = hashlib.sha256(repr(self.pixels.shape).encode())
        state.update(np.ascontiguousarray(self.pixels, dtype="<f4").tobytes())
        state.update("\n".join(self.names).encode())
        return state.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What the manifest keeps of it."""
        folders, kinds = zip(*(name.split("/")[:2] for name in self.names), strict=True)
        counts = {"sketches": kinds.count("sketch"), "photos": kinds.count("photo")}
        return {"sha256": self.sha256, "folders": sorted(set(folders)), **counts}
