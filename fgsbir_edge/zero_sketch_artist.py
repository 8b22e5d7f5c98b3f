"""A photo-to-sketch generator on ONNX Runtime: what ``export.generator`` wrote, sampled with NumPy.

    photos ─look.onnx─▶ values, keys, mean and log variance of z;  [h; c] = tanh(W z + b)
    each step: values, keys, state, row before ─step.onnx─▶ state, raw outputs ─sample─▶ row (dx, dy, down, lifted, end)

Rows are sampled as ``training.generation`` does, chance in the same order: with the same random numbers both draw the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import BundleFormatError, BundleHashError, BundleMissingFileError, EmptySketchError, NonFiniteError
from fgsbir_edge.files import read_bounded, unpack_tensors
from fgsbir_edge.formats.stroke3 import from_stroke5
from fgsbir_edge.preprocess import InputSpec, photo_batch
from fgsbir_edge.sketch import CANVAS, Sketch
from fgsbir_edge.start import REFERENCE, Start
from fgsbir_edge.variant import digest

ARTIST_FORMAT = "fgsbir-edge-artist-1"
LOOK, STEP, JUDGE, ARTIST = "look.onnx", "step.onnx", "judge.onnx", "artist.safetensors"
LOOKS = ("values", "keys", "latent_mean", "latent_log_variance")  # of look.onnx
STATE, NEXT = ("h", "c", "pen"), ("next_h", "next_c", "next_pen", "output")  # of step.onnx, before and after
MAX_GRAPH_BYTES = 256 * 2**20
MAX_CORRELATION = 0.999
SHRINK = 0.75  # of the drawings still going on: below it the others are dropped from the computation
PEN = 3
START_ROW, MOVE = (0.0, 0.0, 1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


class Chance(Protocol):
    """Where random numbers come from: numpy.random.Generator is one."""

    def random(self, size: tuple[int, int]) -> NDArray[Any]: ...

    def standard_normal(self, size: tuple[int, int]) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Sampling:
    """``temperature`` of components and variances, ``pen_temperature`` of pen states; 1 is what was learned, less is steadier."""

    samples: int = 2
    temperature: float = 0.3
    pen_temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.samples < 1 or not min(self.temperature, self.pen_temperature) > 0:
            raise ValueError("samples must be 1 or more, temperatures above 0")


class OnnxArtist:
    """A generator's folder, hashes checked. ``start`` is that of its drawings, for the head of digest ``start_head`` alone."""

    def __init__(self, folder: str | Path, threads: int = 1) -> None:
        """Raises BundleMissingFileError, BundleHashError and BundleFormatError."""
        self.folder = Path(folder)
        tensors, meta = self._read()
        try:
            facts = json.loads(meta["facts"])
            self.scale = float(meta["scale"])
            self.input = InputSpec.from_manifest(facts["input"])
            self._weight, self._bias = tensors["start.weight"], tensors["start.bias"]
            self._rows, self._first = int(facts["max_length"]), int(bool(facts["positions"]))
            self._least = float(facts["least_deviation"])
            self.start = Start(tensors[REFERENCE], float(meta["start_share"])) if REFERENCE in tensors else None
            self.start_head = meta.get("head", "")
            self.judge_size = int(facts.get("judge_size", 0))
        except KeyError as error:
            raise BundleFormatError(f"{self.folder / ARTIST}: {error} is missing; export the generator again") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise BundleFormatError(f"{self.folder / ARTIST}: {error}; export the generator again") from error
        names = (LOOK, STEP, JUDGE) if self.judge_size else (LOOK, STEP)
        self._graphs = {name: self._graph(name, meta.get(f"sha256.{name}", ""), threads) for name in names}

    def draw(self, photos: Sequence[NDArray[np.uint8]], options: Sampling, chance: Chance) -> list[tuple[Sketch, ...]]:
        """``options.samples`` drawings of each photo uint8 [S, S, 3], centred on the canvas; an empty one is a dot.

        Raises NonFiniteError where the network gives NaN or infinity.
        """
        seen = dict(zip(LOOKS, self._graphs[LOOK].run(list(LOOKS), {"image": photo_batch(photos, self.input)}), strict=True))
        seen = {name: np.repeat(rows, options.samples, axis=0) for name, rows in seen.items()}
        drawings = [to_sketch(rows, self.scale) for rows in self._sample(seen, options, chance)]
        return [tuple(drawings[first : first + options.samples]) for first in range(0, len(drawings), options.samples)]

    def certainties(self, photo: Float32, sketches: Float32) -> Float32:
        """D_C [B] of photos and sketches float32 [B, 3, S, S] with S = ``judge_size``, values in -1..1."""
        found: Float32 = self._graphs[JUDGE].run(["certainty"], {"photo": photo, "sketch": sketches})[0]
        return found

    def _sample(self, seen: dict[str, Float32], options: Sampling, chance: Chance) -> list[Float32]:
        """The rows [T, 5] of each drawing, its end row the last."""
        noise = chance.standard_normal(seen["latent_mean"].shape).astype(np.float32)
        latent = seen["latent_mean"] + np.exp(0.5 * seen["latent_log_variance"]) * noise
        h, c = np.split(np.tanh(latent @ self._weight.T + self._bias), 2, axis=1)
        count = len(latent)
        feed = {"values": seen["values"], "keys": seen["keys"], "h": h, "c": c, "pen": np.zeros((count, 2), np.float32)}
        last = np.tile(np.array(START_ROW, np.float32), (count, 1))
        found: list[list[Float32]] = [[] for _ in range(count)]
        going, open_ = np.arange(count), np.ones(count, np.bool_)
        for step in range(self._first + self._rows):
            *state, raw = self._graphs[STEP].run(list(NEXT), {**feed, "row": last})
            last = sampled(raw, options, chance, self._least)
            if step < self._first:
                last[:, 2:] = MOVE
            else:
                for place in np.flatnonzero(open_):
                    found[going[place]].append(last[place])
            feed |= dict(zip(STATE, state, strict=True))
            open_ &= ~(last[:, 4] > 0.5)
            if not open_.any():
                break
            if open_.sum() < SHRINK * len(going):
                feed = {name: rows[open_] for name, rows in feed.items()}
                going, last, open_ = going[open_], last[open_], open_[open_]
        return [np.array(rows, np.float32).reshape(-1, 5) for rows in found]

    def _read(self) -> tuple[dict[str, Float32], dict[str, str]]:
        path = self.folder / ARTIST
        try:
            tensors, meta = unpack_tensors(read_bounded(path))
            if meta.get("format") != ARTIST_FORMAT:
                raise ValueError(f"format is {meta.get('format')!r}, expected {ARTIST_FORMAT!r}")
        except OSError as error:
            raise BundleMissingFileError(f"{path}: cannot read ({error.strerror}); write it with export.generator") from error
        except ValueError as error:
            raise BundleFormatError(f"{path}: {error}; export the generator again") from error
        return tensors, meta

    def _graph(self, name: str, sha256: str, threads: int) -> Any:
        from fgsbir_edge.encoder.onnx import load_runtime

        onnxruntime = load_runtime()
        path = self.folder / name
        try:
            data = read_bounded(path, MAX_GRAPH_BYTES)
        except OSError as error:
            raise BundleMissingFileError(f"{path}: cannot read ({error.strerror}); export the generator again") from error
        except ValueError as error:
            raise BundleFormatError(f"{path}: {error}; export the generator again") from error
        if digest(data) != sha256:
            raise BundleHashError(f"{path}: not the file that {ARTIST} was written with; export the generator again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's exceptions share no base class of their own
            raise BundleFormatError(f"{path}: cannot be loaded ({' '.join(str(error).split())[:200]})") from error


def sampled(raw: Float32, options: Sampling, chance: Chance, least_deviation: float = 0.0) -> Float32:
    """Rows [B, 5] from raw outputs [B, 6M+3]: a component of the mixture, a point of it, a pen state (METHODS B.1, B.3).

    Raises NonFiniteError.
    """
    if not np.isfinite(raw).all():
        raise NonFiniteError("the generator gave NaN or infinity; export it again")
    logits, mu_x, mu_y, log_x, log_y, rho = np.split(raw[:, PEN:], 6, axis=1)
    chances = chance.random((len(raw), 2)).astype(np.float32)
    normal = chance.standard_normal((len(raw), 2)).astype(np.float32)
    component = chosen(logits, chances[:, 0], options.temperature)[:, None]
    pen = chosen(raw[:, :PEN], chances[:, 1], options.pen_temperature)
    picked = (np.take_along_axis(values, component, 1)[:, 0] for values in (mu_x, mu_y, log_x, log_y, rho))
    x, y, log_dx, log_dy, correlation = picked
    if least_deviation > 0:
        log_dx, log_dy = (np.logaddexp(values, np.float32(math.log(least_deviation))) for values in (log_dx, log_dy))
    correlation = np.float32(MAX_CORRELATION) * np.tanh(correlation)
    along = correlation * normal[:, 0] + np.sqrt(1 - correlation**2) * normal[:, 1]
    spread = np.float32(math.sqrt(options.temperature))
    rows = np.zeros((len(raw), 5), np.float32)
    rows[:, 0], rows[:, 1] = x + spread * np.exp(log_dx) * normal[:, 0], y + spread * np.exp(log_dy) * along
    rows[np.arange(len(rows)), 2 + pen] = 1
    return rows


def chosen(logits: Float32, chance: Float32, temperature: float) -> NDArray[np.intp]:
    """Index [B] of a category of [B, K], by where ``chance`` [B] in [0, 1) falls."""
    scaled = logits / np.float32(temperature)
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    steps = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    places: NDArray[np.intp] = np.minimum((chance[:, None] >= steps).sum(axis=1), logits.shape[1] - 1)
    return places


def to_sketch(rows: Float32, scale: float) -> Sketch:
    """Rows [n, 5] as a sketch, longer side 190 of 256 and centred; without extent, a dot in the middle of the canvas."""
    table = rows.astype(np.float64)
    table[:, :2] *= scale
    try:
        return from_stroke5(table).centred()
    except EmptySketchError:
        return Sketch(np.full((2, 2), CANVAS / 2), np.array([0, 2]))


def pair_spec(spec: InputSpec, size: int) -> InputSpec:
    """How D_C sees a pair: as the encoder by ``spec``, but ``size`` pixels a side, lines as much thinner, values in [-1, 1]."""
    width = min(max(spec.line_width * size / spec.size, 1.0), float(size))
    half = (0.5, 0.5, 0.5)  # as in pix2pix
    return replace(spec, size=size, mean=half, std=half, line_width=width, photo_shift=0)
