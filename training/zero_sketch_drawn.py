"""Drawings that stand in for a category's sketches: a generator's, weighted by a discriminator's certainty, and edges."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy import ndimage

from fgsbir_edge.errors import BundleFormatError, EmptySketchError, UnreadableImageError
from fgsbir_edge.formats.drawing import Drawing
from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import InputSpec, photo_batch, sketch_pixels
from fgsbir_edge.sketch import Sketch
from fgsbir_edge.zero_sketch_artist import pair_spec
from training.checkpoint import read_meta
from training.config import ConfigError, from_table
from training.data.edges import SCALES, SIDE, edges
from training.evaluation import BATCH, Encode
from training.generation.drawing import Artist, ArtistOptions, draw_photos
from training.semi.discriminator import DiscriminatorConfig, PatchDiscriminator, certainty
from training.semi.drawing import pair_sketches
from training.zero_sketch_start import StandIns

BLUR, INK = 0.8, 2.5  # of edges one pixel wide, as training.data.edges draws them


@dataclass(frozen=True)
class Photos:
    """Photos by the row that features have; `path` gives a name's file."""

    names: tuple[str, ...]
    path: Callable[[str], Path]


@dataclass(frozen=True)
class Judge:
    """A discriminator and how it sees photos: (D_C, the encoder's input)."""

    network: PatchDiscriminator
    spec: InputSpec

    @torch.no_grad()
    def certainties(self, path: Path, sketches: Sequence[Sketch]) -> np.ndarray:
        """D_C of each drawing of one photo: [n] in 0..1."""
        spec = pair_spec(self.spec, self.network.config.size)
        photo = torch.from_numpy(photo_batch([load_photo(path, spec.size, spec.photo_fit)], spec))
        logits = self.network(photo.expand(len(sketches), -1, -1, -1), pair_sketches(sketches, spec))
        found: np.ndarray = certainty(logits).numpy()
        return found


def open_judge(path: Path, spec: InputSpec) -> Judge:
    """A discriminator of training.semi_supervised. Raises BundleFormatError."""
    try:
        network = PatchDiscriminator(from_table(DiscriminatorConfig, read_meta(path)["config"], str(path)))
        network.load_state_dict(load_file(path))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BundleFormatError(f"{path}: not a discriminator ({reason}); give one of training.semi_supervised") from error
    return Judge(network.eval(), spec)


def generated(
    artist: Artist, photos: Photos, options: ArtistOptions, network: tuple[Encode, InputSpec], judge: Judge | None
) -> StandIns:
    """The generator's drawings, encoded; each weighs as much as D_C is certain of it, as in joint training (METHODS B.5).

    Without a judge all count alike. Empty drawings are left out. Raises UnreadableImageError for a photo that cannot be read, and
    EmptySketchError where nothing was drawn.
    """
    sketches: list[Sketch] = []
    rows: list[int] = []
    weights: list[np.ndarray] = []
    size, fit = artist.input.size, artist.input.photo_fit
    for row, drawn in enumerate(
        draw_photos(artist, photos.names, lambda name: load_photo(photos.path(name), size, fit), options)
    ):
        if drawn.problem:
            raise UnreadableImageError(drawn.problem)
        own = [item.sketch for item in drawn.sketches if visible(item.sketch, network[1])]
        if own:
            sketches += own
            rows += [row] * len(own)
            weights.append(np.ones(len(own)) if judge is None else judge.certainties(photos.path(drawn.name), own))
    pixels = (sketch_pixels(sketches[first : first + BATCH], network[1]) for first in range(0, len(sketches), BATCH))
    features = [network[0](batch) for batch in pixels]
    if not features:
        raise EmptySketchError("the generator drew nothing; raise --temperature, or train it further")
    return StandIns(np.concatenate(features), np.array(rows), np.concatenate(weights).astype(np.float32))


def visible(sketch: Sketch, spec: InputSpec) -> bool:
    """Whether a drawing has a line."""
    try:
        sketch_pixels([sketch], spec)
    except EmptySketchError:
        return False
    return True


def edge_drawings(photos: Photos, scales: Sequence[int], network: tuple[Encode, InputSpec]) -> StandIns:
    """The photos' edges at some scales of training.data.edges, encoded as sketches. Raises what load_photo raises."""
    encode, spec = network
    batch: list[Drawing] = []
    features: list[np.ndarray] = []
    rows: list[int] = []
    for row, name in enumerate(photos.names):
        photo = load_photo(photos.path(name), SIDE, spec.photo_fit)
        for scale in scales:
            lines = edges(photo, SCALES[scale])
            if not lines.any():
                continue
            batch.append(Drawing(np.minimum(INK * ndimage.gaussian_filter(lines.astype(np.float32), BLUR), 1.0)))
            rows.append(row)
        if len(batch) >= BATCH or (row == len(photos.names) - 1 and batch):
            features.append(encode(sketch_pixels(batch, spec)))
            batch = []
    if not features:
        raise EmptySketchError("no photo has an edge")
    return StandIns.of(np.concatenate(features), np.array(rows))


def kept(path: Path, of: object, make: Callable[[], StandIns]) -> StandIns:
    """Stand-ins from a file in the folder `path`, named by what they depend on; made and written there first where missing."""
    file = path / f"drawn-{hashlib.sha256(repr(of).encode()).hexdigest()[:16]}.npz"
    if not file.is_file():
        found = make()
        path.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".partial.npz")
        np.savez(temporary, rows=found.rows, photos=found.photos, weights=found.weights)
        os.replace(temporary, file)
    with np.load(file, allow_pickle=False) as arrays:
        return StandIns(arrays["rows"], arrays["photos"], arrays["weights"])
