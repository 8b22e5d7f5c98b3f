"""The competitors of benchmarks/raster.py: peers and this project's rasteriser, drawing the same sketches in the same memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks import limits
from benchmarks.raster_gate import Gate
from benchmarks.raster_peers import LINE_WIDTH, Kind, Peer
from benchmarks.rounds import Competitor, Verdict
from benchmarks.sketches import SIDE, SketchSet
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.sketch import SketchBatch

Source = Literal["prepared", "tuples", "arrays"]
Style = Literal["bresenham", "antialias"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BYTES = SIDE * SIDE
OURS: dict[Style, str] = {"bresenham": "ours, bresenham", "antialias": "ours, antialias width 2"}
KINDS: dict[Style, Kind] = {"bresenham": "dilated", "antialias": "antialias 2"}

BLOCK = 64  # sketches in a call
GROUPS: dict[tuple[Source, int], str] = {
    ("prepared", BLOCK): "prepared input, blocks of 64",
    ("prepared", 1): "prepared input, a sketch a call",
    ("tuples", BLOCK): "lists of (x, y) tuples, blocks of 64",
    ("tuples", 1): "lists of (x, y) tuples, a sketch a call",
    ("arrays", BLOCK): "lists of NumPy arrays, blocks of 64",
    ("arrays", 1): "lists of NumPy arrays, a sketch a call",
}
ALL = "prepared input, all in one call"
FLOATS: dict[str, type[np.generic]] = {
    "normalised float32 output, blocks of 64": np.float32,
    "normalised float16 output, blocks of 64": np.float16,
}


@dataclass(frozen=True, eq=False)
class Field:
    """A sketch set cut into blocks that one call draws, in one form of input, and the memory that everyone draws into.

    Call number n draws block n modulo the number of blocks; where the last block would be short it overlaps the one before.
    """

    sketches: SketchSet
    gate: Gate
    size: int  # sketches in a call
    source: Source = "prepared"

    @cached_property
    def blocks(self) -> list[range]:
        """Which sketches each call draws."""
        count, size = len(self.sketches), min(self.size, len(self.sketches))
        return [range(min(start, count - size), min(start, count - size) + size) for start in range(0, count, size)]

    @cached_property
    def out(self) -> NDArray[np.uint8]:
        """[block, 256, 256] uint8, touched and aligned."""
        return limits.aligned((len(self.blocks[0]), SIDE, SIDE), np.uint8)

    def limits(self, out: NDArray[Any] | None = None) -> list[Competitor]:
        """Nothing but the writing of the same bytes (``out``, or the field's own), by one thread and by two."""
        images = self.out if out is None else out
        size, count = images[0].nbytes, len(images)
        repeats, shared = limits.shared_writers(images, 2)
        alone = [(name, way, count, 1) for name, way in limits.writers(images).items()]
        together = [(name, way, count * repeats, 2) for name, way in shared.items()]
        return [
            Competitor(f"writing alone: {name}", way, items, None, size, threads, True)
            for name, way, items, threads in (*alone, *together)
        ]

    def peer(self, peer: Peer) -> Competitor:
        """A peer, drawing the sketches of a block one after the other."""
        sketches, blocks, out, draw = self.sketches, self.blocks, self.out, peer.draw
        if self.source == "prepared":
            prepared = [peer.prepare(strokes) for strokes in sketches.arrays]

            def run(call: int) -> None:
                for image, index in zip(out, blocks[call % len(blocks)], strict=True):
                    draw(prepared[index], image)

        else:
            held: Sequence[Any] = sketches.tuples if self.source == "tuples" else sketches.arrays
            convert: Callable[[Any], Any] = peer.convert if self.source == "tuples" else peer.prepare

            def run(call: int) -> None:
                for image, index in zip(out, blocks[call % len(blocks)], strict=True):
                    draw(convert(held[index]), image)

        def check() -> Verdict:
            return self.gate.verdict(peer.kind, same=peer.same, answers=self._answers(run))

        return Competitor(peer.name, run, len(blocks[0]), check, BYTES)

    def ours(self, style: Style, threads: int = 1) -> Competitor:
        """This project's rasteriser: one call a block, bytes out."""
        spec = RasterSpec(SIDE, SIDE, style, LINE_WIDTH)
        run = self._rasterizing(spec, threads, self.out)

        def check() -> Verdict:
            if style == "bresenham":
                return self.gate.verdict("dilated", same=True, answers=self._answers(run))
            return self.gate.within_a_level("antialias 2", self._answers(run))

        return Competitor(named(style, threads), run, len(self.blocks[0]), check, BYTES, threads)

    def blank(self) -> Competitor:
        """This project's rasteriser given sketches without a point: what it takes to write images, whatever is on them."""
        count = len(self.blocks[0])
        batch = SketchBatch(np.empty((0, 2), np.float32), np.zeros(1, np.int64), np.zeros(count + 1, np.int64))
        spec = RasterSpec(SIDE, SIDE)

        def run(call: int) -> None:
            rasterize(batch, spec, scale=False, out=self.out)

        def check() -> Verdict:
            self.out.fill(7)
            run(0)
            return Verdict(not self.out.any(), "blank images" if not self.out.any() else "blank sketches leave ink")

        return Competitor("ours, blank sketches", run, count, check, BYTES)

    def ours_normalised(self, style: Style, out: NDArray[Any], threads: int = 1) -> Competitor:
        """The same, written as the encoder's normalised input: ``out`` [block, 3, 256, 256] float32 or float16."""
        dtype: Literal["float32", "float16"] = "float16" if out.dtype == np.float16 else "float32"
        spec = RasterSpec(SIDE, SIDE, style, LINE_WIDTH, mean=MEAN, std=STD, dtype=dtype)
        run = self._rasterizing(spec, threads, out)
        check = self._normalised_check(KINDS[style], run, out)
        return Competitor(named(style, threads), run, len(self.blocks[0]), check, out[0].nbytes, threads)

    def peer_normalised(self, peer: Peer, out: NDArray[Any]) -> Competitor:
        """A peer, its bytes then put through a table of 256 values for each channel."""
        bytes_only, images, blocks = self.peer(peer), self.out, self.blocks
        tables = [normalise(np.arange(256, dtype=np.uint8)[None])[channel, 0].astype(out.dtype) for channel in range(3)]

        def run(call: int) -> None:
            bytes_only.run(call)
            for channel, table in enumerate(tables):
                for image, target in zip(images, out, strict=True):
                    np.take(table, image, out=target[channel], mode="clip")

        check = self._normalised_check(peer.kind, run, out)
        return Competitor(f"{peer.name}, normalised by NumPy", run, len(blocks[0]), check, out[0].nbytes)

    def _normalised_check(self, kind: Kind, run: Callable[[int], None], out: NDArray[Any]) -> Callable[[], Verdict]:
        bound = 2e-6 if out.dtype == np.float32 else 2e-3
        return lambda: self.gate.normalised(kind, self._answers(run, out), normalise, bound)

    def _rasterizing(self, spec: RasterSpec, threads: int, out: NDArray[Any]) -> Callable[[int], None]:
        blocks = self.blocks
        if self.source == "prepared":
            whole = self.sketches.rounded if spec.style == "bresenham" else self.sketches.packed
            batches = [cut(whole, block) for block in blocks]

            def run(call: int) -> None:
                rasterize(batches[call % len(batches)], spec, scale=False, threads=threads, out=out)

            return run
        held: Sequence[Any] = self.sketches.tuples if self.source == "tuples" else self.sketches.arrays

        def run_from_objects(call: int) -> None:
            rasterize([held[index] for index in blocks[call % len(blocks)]], spec, scale=False, threads=threads, out=out)

        return run_from_objects

    def _answers(self, run: Callable[[int], None], out: NDArray[Any] | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """Every sketch's number and image, drawn block by block."""
        images, done = self.out if out is None else out, 0
        for call, block in enumerate(self.blocks):
            images.fill(7)  # what the call before left behind must not pass for an answer
            run(call)
            yield from ((index, image) for index, image in zip(block, images, strict=True) if index >= done)
            done = block.stop


def named(style: Style, threads: int) -> str:
    """What tables call this project's rasteriser."""
    return OURS[style] + (f", {threads} threads" if threads > 1 else "")


def normalise(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Bytes [H, W] to (v/255 - mean) / std [3, H, W]."""
    channels: NDArray[np.float64] = (image / 255.0 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    return channels


def cut(batch: SketchBatch, block: range) -> SketchBatch:
    """The sketches of a range, as a batch of their own."""
    strokes = batch.sketch_offsets[block.start : block.stop + 1]
    points = batch.stroke_offsets[strokes[0] : strokes[-1] + 1]
    return replace(
        batch,
        points=np.ascontiguousarray(batch.points[points[0] : points[-1]]),
        stroke_offsets=points - points[0],
        sketch_offsets=strokes - strokes[0],
    )
