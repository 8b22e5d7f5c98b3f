"""A category's start from drawings that a generator makes of its photos on the device (part two's G, weighted by its D_C)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import AdapterMismatchError, EmptyGalleryError, EmptySketchError, NoStartError
from fgsbir_edge.head import Adapter
from fgsbir_edge.photo import load_photo
from fgsbir_edge.preprocess import InputSpec, photo_batch, sketch_pixels
from fgsbir_edge.sketch import Sketch
from fgsbir_edge.zero_sketch import shifted_start
from fgsbir_edge.zero_sketch_artist import ARTIST, OnnxArtist, Sampling, pair_spec

if TYPE_CHECKING:
    from fgsbir_edge.engine import Engine

BATCH = 8  # photos drawn at a time


def drawn_start(
    engine: Engine,
    artist: OnnxArtist,
    photos: Sequence[str | os.PathLike[str]],
    *,
    category: str | None = None,
    options: Sampling | None = None,
    seed: int = 0,
) -> Adapter:
    """The start of a category from drawings of its photo files, each weighted by D_C where the artist has one.

    Take all photos that will be searched. Drawing costs many times what encoding does (docs/zero_sketch.md): do it once and keep
    the adapter. Raises NoStartError (no constants), AdapterMismatchError (another head's), EmptyGalleryError (no photos),
    EmptySketchError (nothing was drawn), and what reading photos and ``OnnxArtist.draw`` raise.
    """
    head, chance = engine.head, np.random.default_rng(seed)
    if artist.start is None:
        raise NoStartError(f"{artist.folder / ARTIST}: has no start; export the generator with --start")
    if artist.start_head != head.digest or artist.start.reference.shape != head.bias.shape:
        raise AdapterMismatchError(f"{artist.folder / ARTIST}: its start is of another head; export it with this one's")
    if not photos:
        raise EmptyGalleryError("a zero-sketch start needs the category's photos and got none")
    total, weight, count = np.zeros(head.embedding, np.float64), 0.0, 0
    for first in range(0, len(photos), BATCH):
        paths = photos[first : first + BATCH]
        drawn = artist.draw(
            [load_photo(path, artist.input.size, artist.input.photo_fit) for path in paths], options or Sampling(), chance
        )
        for path, drawings in zip(paths, drawn, strict=True):
            sketches = [sketch for sketch in drawings if _visible(sketch)]
            if not sketches:
                continue
            own = _certainties(artist, engine.input, path, sketches)
            total += own @ head.outputs(engine.encode_sketches(sketches))
            weight += float(own.sum())
            count += len(sketches)
    if not weight > 0:
        raise EmptySketchError(f"{artist.folder}: drew nothing of {len(photos)} photos; raise the temperature")
    shift = artist.start.shift((total / weight).astype(np.float32))
    facts = {"photos": str(len(photos)), "drawings": str(count), "share": f"{artist.start.share:.6g}"}
    facts |= {"category": category} if category else {}
    return engine.signed(shifted_start(head, shift, facts, source="generated" if not artist.judge_size else "certain"))


def _certainties(artist: OnnxArtist, spec: InputSpec, path: str | os.PathLike[str], sketches: Sequence[Sketch]) -> Float32:
    if not artist.judge_size:
        return np.ones(len(sketches), np.float32)
    seen = pair_spec(spec, artist.judge_size)
    photo = photo_batch([load_photo(path, seen.size, seen.photo_fit)], seen)
    return artist.certainties(np.repeat(photo, len(sketches), axis=0), sketch_pixels(sketches, seen))


def _visible(sketch: Sketch) -> bool:
    """Whether a drawing has any extent; one without is a dot."""
    left, top, right, bottom = sketch.bounds
    return right > left or bottom > top
