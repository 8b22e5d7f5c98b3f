"""Strokes to features on a GPU: points go up, features come back, and the images in between never leave the device.

One stream: copy of the points (none where GPU and host share their memory), the rasteriser into the encoder's own input, the
network, copy of the features. From the second time on all of it is one replayed CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import Float32, finite_features
from fgsbir_edge.encoder import DeviceEncoder
from fgsbir_edge.encoder.cuda_graph import Replay
from fgsbir_edge.gpu_stream import GpuBuffer
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.raster import RasterSpec
from fgsbir_edge.raster_cuda import rasterize_cuda
from fgsbir_edge.sketch import Sketch, SketchBatch, pack

_LEAST = 256  # points and strokes that there is room for at least


class StrokesEncoder:
    """A device encoder with the rasteriser in front of it. Use from one thread, and not while its encoder runs something else.

    ``replay`` tells how often work was recorded, and why it is not any more.
    """

    def __init__(self, encoder: DeviceEncoder, spec: InputSpec, *, record: bool = True) -> None:
        """``record`` False starts every kernel by itself each time. Raises DeviceError."""
        self.encoder, self._stream = encoder, encoder.stream
        dtype: Literal["float32", "float16"] = "float16" if encoder.input(1).dtype == np.float16 else "float32"
        self._spec = RasterSpec(spec.size, spec.size, spec.style, spec.line_width, spec.ink, spec.mean, spec.std, dtype)
        self.replay = Replay(self._stream) if record and encoder.recordable else None
        self._room = _Room(self, _LEAST, _LEAST)

    def encode(self, sketches: Sequence[Sketch]) -> Float32:
        """Features float32 [B, C] of vector sketches, which are centred first; waits for them.

        Raises what ``Sketch.centred`` raises, NonFiniteError and DeviceError.
        """
        rows = np.empty((len(sketches), self.encoder.features), np.float32)
        for start in range(0, len(sketches), self.encoder.max_batch):
            part = pack_pixels([sketch.centred() for sketch in sketches[start : start + self.encoder.max_batch]], self._spec)
            rows[start : start + part.num_sketches] = self._run(part)
        return finite_features(rows)

    def draw(self, sketches: Sequence[Sketch]) -> GpuBuffer:
        """Put the drawing of at most ``max_batch`` sketches into the stream; returns where the images will be.

        The stream has to be waited for before the next call of anything here.
        """
        batch = pack_pixels([sketch.centred() for sketch in sketches], self._spec)
        room = self._filled(batch)
        room.upload()
        return room.rasterize(batch.num_sketches)

    def _run(self, batch: SketchBatch) -> NDArray[np.floating]:
        count, encoder = batch.num_sketches, self.encoder
        room = self._filled(batch)

        def work() -> None:
            room.upload()
            room.rasterize(count)
            encoder.enqueue(count)
            encoder.fetch(count)

        if self.replay is None:
            work()
        else:
            self.replay.run((count, room.points, room.strokes), work)
        self._stream.synchronize()
        return encoder.rows[:count]

    def _filled(self, batch: SketchBatch) -> _Room:
        """Room for the batch with the batch in it; what was recorded over smaller room is forgotten."""
        points, strokes = len(batch.points), len(batch.stroke_offsets) - 1
        if points > self._room.points or strokes > self._room.strokes:
            if self.replay is not None:
                self.replay.forget()
            self._room = _Room(self, max(self._room.points, _power(points)), max(self._room.strokes, _power(strokes)))
        self._room.fill(batch)
        return self._room

    @property
    def raster(self) -> RasterSpec:
        """How sketches are drawn."""
        return self._spec


class _Room:
    """Memory for a packed batch, in one block so that one copy takes it up; offsets first, since they have the larger items."""

    def __init__(self, owner: StrokesEncoder, points: int, strokes: int) -> None:
        self.points, self.strokes = points, strokes
        self._stream, self._encoder, self._spec = owner._stream, owner.encoder, owner.raster
        self._parts: tuple[tuple[int, tuple[int, ...], type], ...] = (
            (0, (owner.encoder.max_batch + 1,), np.int64),
            (8 * (owner.encoder.max_batch + 1), (strokes + 1,), np.int64),
            (8 * (owner.encoder.max_batch + 1 + strokes + 1), (points, 2), np.float32),
        )
        size = self._parts[2][0] + 8 * points
        host, self._up = self._stream.mapped((size,), np.uint8)
        self._there = self._up if self._stream.integrated else self._stream.buffer((size,), np.uint8)
        self._ends, self._strokes, self._points = (
            np.ndarray(shape, dtype, host.data, offset) for offset, shape, dtype in self._parts
        )

    def fill(self, batch: SketchBatch) -> None:
        """Put a batch in; room for strokes that is left over is empty strokes."""
        self._points[: len(batch.points)] = batch.points
        strokes = len(batch.stroke_offsets)
        self._strokes[:strokes] = batch.stroke_offsets
        self._strokes[strokes:] = batch.stroke_offsets[-1]
        self._ends[: len(batch.sketch_offsets)] = batch.sketch_offsets

    def upload(self) -> None:
        """Put the copy to the GPU into the stream, where one is needed at all."""
        if self._there is not self._up:
            self._stream.copy(self._there, self._up)

    def rasterize(self, count: int) -> GpuBuffer:
        """Put the drawing into the encoder's input into the stream."""
        ends, strokes, points = (self._there.part(*part) for part in self._parts)
        out = self._encoder.input(count)
        rasterize_cuda(points, strokes, ends.first(count + 1), self._spec, out, stream=self._stream.handle)
        return out


def pack_pixels(sketches: Sequence[Sketch], spec: RasterSpec) -> SketchBatch:
    """A batch in pixels as ``rasterize_cuda`` takes it: scaled, and for bresenham rounded, in float64 as the CPU does."""
    scale = spec.scale(True)
    return pack([sketch.scaled(*scale) for sketch in sketches], round_points=spec.style == "bresenham")


def _power(count: int) -> int:
    """The next power of two."""
    return 1 << max(0, count - 1).bit_length()
