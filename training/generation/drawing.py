"""Photos drawn by a generator, one after the other: what training/generate.py writes and training/evaluate_generator.py measures.

A drawing depends on the seed, the photo's name and the number of the sample, not on the photos beside it: photos are encoded in
batches, but every sample is drawn with a random generator of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from tqdm import tqdm

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import BundleFormatError, BundleMissingFileError, DeviceError, FgsbirError
from fgsbir_edge.preprocess import InputSpec, photo_batch
from fgsbir_edge.sketch import Sketch
from training.generation.checkpoint import load_generator
from training.generation.network import Encoded, Generator
from training.generation.sampling import Drawn, DrawOptions, draw
from training.generation.sequences import to_sketch

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Artist:
    """A generator in evaluation mode, the canvas units of its offsets, and how it sees photos."""

    generator: Generator
    scale: float
    input: InputSpec


@dataclass(frozen=True)
class ArtistOptions:
    """How photos are drawn.

    Args:
        samples: drawings of each photo; one where `greedy`, since all would be equal.
        temperature: of sampling (METHODS B.3); 1 is the distribution that was learned, below it drawings vary less.
        pen_temperature: of the pen states alone (sampling.DrawOptions); low ones keep a drawing from ending.
        greedy: the likeliest row at every step instead of chance.
        seed: of all chance.
        batch: photos encoded at a time.
        threads: that decode photos.
        attention: keep where each row looked.
        progress: what a progress bar on a terminal's stderr says; "" for none.

    Raises:
        ValueError: a number out of range, or several samples of a greedy drawing.
    """

    samples: int = 1
    temperature: float = 0.1
    greedy: bool = False
    seed: int = 0
    batch: int = 8
    threads: int = 1
    attention: bool = False
    progress: str = ""
    pen_temperature: float = 0.6

    def __post_init__(self) -> None:
        if (
            min(self.samples, self.batch, self.threads) < 1
            or self.seed < 0
            or not min(self.temperature, self.pen_temperature) > 0
        ):
            raise ValueError("samples, batch and threads must be 1 or more, seed not negative, temperatures above 0")
        if self.greedy and self.samples > 1:
            raise ValueError("greedy drawings of a photo are all the same: ask for one sample, or give a temperature")


@dataclass(frozen=True, eq=False)
class DrawnSketch:
    """One drawing: `ended` says whether the generator stopped by itself; `attention` [rows,h,w] where it was asked for."""

    sketch: Sketch
    ended: bool
    rows: int
    attention: Float32 | None = None


@dataclass(frozen=True, eq=False)
class DrawnPhoto:
    """A photo uint8 [S,S,3] as the generator saw it, and its drawings; or why it could not be read."""

    name: str
    photo: Pixels | None
    sketches: tuple[DrawnSketch, ...] = ()
    problem: str = ""


def open_artist(path: Path, device: str = "cpu", threads: int = 1) -> Artist:
    """A generator's checkpoint, ready to draw. Raises BundleMissingFileError, BundleFormatError, DeviceError."""
    if not path.is_file():
        raise BundleMissingFileError(f"{path}: no such file; train a generator with python -m training.generator")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError("--device cuda: PyTorch sees no GPU; leave out --device")
    torch.set_num_threads(threads)
    try:
        generator, meta = load_generator(path)
        artist = Artist(generator.to(device).eval(), float(meta["scale"]), InputSpec.from_manifest(meta["input"]))
    except FgsbirError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise BundleFormatError(f"{path}: not a generator ({reason}); give a .safetensors of training.generator") from error
    return artist


def draw_photos(
    artist: Artist, names: Sequence[str], load: Callable[[str], Pixels], options: ArtistOptions
) -> Iterator[DrawnPhoto]:
    """Draw the photos `names` in order; `load` gives their pixels uint8 [S,S,3]. What cannot be read comes with its reason."""

    def attempt(name: str) -> Pixels | str:
        try:
            return load(name)
        except FgsbirError as error:
            return str(error)

    silent = None if options.progress else True  # None: where there is no terminal
    with (
        ThreadPoolExecutor(options.threads) as pool,
        tqdm(total=len(names), desc=options.progress, unit=" photos", disable=silent) as bar,
    ):
        for start in range(0, len(names), options.batch):
            batch = names[start : start + options.batch]
            found = list(pool.map(attempt, batch))
            photos = {name: item for name, item in zip(batch, found, strict=True) if not isinstance(item, str)}
            drawn = dict(zip(photos, _drawn(artist, photos, options), strict=True)) if photos else {}
            for name, item in zip(batch, found, strict=True):
                yield DrawnPhoto(name, None, problem=item) if isinstance(item, str) else DrawnPhoto(name, item, drawn[name])
                bar.update()


@torch.no_grad()
def _drawn(artist: Artist, photos: dict[str, Pixels], options: ArtistOptions) -> list[tuple[DrawnSketch, ...]]:
    """The drawings of some photos."""
    device = next(artist.generator.parameters()).device
    pixels = torch.from_numpy(photo_batch(list(photos.values()), artist.input)).to(device)
    encoded = artist.generator.encode(pixels)
    how = DrawOptions(options.temperature, options.greedy, attention=options.attention, pen_temperature=options.pen_temperature)
    if options.greedy:
        return [(sketch,) for sketch in _sketches(draw(artist.generator, encoded, how), artist.scale)]
    drawings = []
    for row, name in enumerate(photos):
        own = encoded.rows(slice(row, row + 1))
        seeds = [drawing_seed(options.seed, name, sample) for sample in range(options.samples)]
        drawings.append(tuple(_sample(artist, own, how, seed) for seed in seeds))
    return drawings


def _sample(artist: Artist, encoded: Encoded, how: DrawOptions, seed: int) -> DrawnSketch:
    """One drawing of one photo."""
    return _sketches(draw(artist.generator, encoded, how, torch.Generator().manual_seed(seed)), artist.scale)[0]


def drawing_seed(seed: int, name: str, sample: int) -> int:
    """The seed of one drawing: a function of the run's seed, the photo's name and the number of the sample alone."""
    digest = hashlib.sha256(f"{seed}/{sample}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _sketches(drawn: Drawn, scale: float) -> list[DrawnSketch]:
    rows, attention = drawn.rows.cpu().numpy(), None if drawn.attention is None else drawn.attention.cpu().numpy()
    sketches = []
    for index, length in enumerate(drawn.lengths.tolist()):
        own = rows[index, :length]
        looked = None if attention is None else attention[index, :length]
        sketches.append(DrawnSketch(to_sketch(own, scale), bool(own[-1, 2:].argmax() == 2), length, looked))
    return sketches
