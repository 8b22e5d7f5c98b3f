"""What the backends on a GPU have in common: input and output memory, batches from the host, batches from the GPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from fgsbir_edge.arrays import Float32, finite_features
from fgsbir_edge.device import DeviceArray, device_array, stream_handle
from fgsbir_edge.errors import ShapeError
from fgsbir_edge.gpu_libraries import load
from fgsbir_edge.gpu_stream import GpuBuffer, GpuStream


class OnDevice(ABC):
    """Buffers for up to ``max_batch`` images, and everything of DeviceEncoder but the network: subclasses have ``enqueue``."""

    recordable = True

    def __init__(self, name: str, stream: GpuStream, shape: tuple[int, int, int], dtypes: tuple[Any, Any]) -> None:
        """``shape`` is (max_batch, S, C); ``dtypes`` those of input and output, float32 or float16."""
        self.name, self.stream = name, stream
        self.max_batch, self.size, self.features = shape
        pixels, rows = (self.max_batch, 3, self.size, self.size), (self.max_batch, self.features)
        self._input = stream.buffer(pixels, dtypes[0])
        self._pixels, self._pixels_there = stream.mapped(pixels, dtypes[0])
        self.rows, self._rows_there = stream.mapped(rows, dtypes[1])
        self._output = self._rows_there if stream.integrated else stream.buffer(rows, dtypes[1])

    def input(self, batch: int) -> GpuBuffer:
        """See DeviceEncoder."""
        return self._input.first(batch)

    def output(self, batch: int) -> GpuBuffer:
        """See DeviceEncoder."""
        return self._output.first(batch)

    def fetch(self, batch: int) -> None:
        """See DeviceEncoder."""
        if self._output is not self._rows_there:
            self.stream.copy(self._rows_there.first(batch), self.output(batch))

    @abstractmethod
    def enqueue(self, batch: int) -> None:
        """See DeviceEncoder."""

    def encode(self, pixels: Float32) -> Float32:
        """float32 [B, 3, S, S] -> float32 [B, C], from host memory and back. Raises ShapeError, NonFiniteError, DeviceError."""
        shape = (3, self.size, self.size)
        if pixels.dtype != np.float32 or pixels.shape[1:] != shape or pixels.ndim != 4:
            raise ShapeError(f"encoder input: got {pixels.dtype} {list(pixels.shape)}, expected float32 {['B', *shape]}")
        rows = np.empty((len(pixels), self.features), np.float32)
        for start in range(0, len(pixels), self.max_batch):
            part = pixels[start : start + self.max_batch]
            batch = len(part)
            self._pixels[:batch] = part
            self.stream.copy(self.input(batch), self._pixels_there.first(batch))
            self.enqueue(batch)
            self.fetch(batch)
            self.stream.synchronize()
            rows[start : start + batch] = self.rows[:batch]
        return finite_features(rows)

    def encode_device(self, pixels: Any, out: Any = None) -> Any:
        """float32 or float16 (as ``input`` is) [B, 3, S, S] -> [B, C], both on the GPU; does not wait.

        Args:
            pixels: C-contiguous; an array of CuPy, PyTorch, PyCUDA, Numba, JAX or a DLPack capsule.
            out: where the features go, of ``output``'s dtype; None makes a CuPy array.

        Returns:
            ``out``. The library's current stream waits for the work (PyTorch, CuPy), the default stream otherwise.

        Raises:
            ShapeError: another shape, dtype or layout. DeviceError: host memory, another GPU, no CuPy, or CUDA refused.
        """
        theirs = stream_handle(None, (pixels, out))
        given = device_array("pixels", pixels, theirs).expect(self._input.dtype, (None, 3, self.size, self.size))
        count = given.shape[0]
        if out is None:
            out = load("cupy").empty((count, self.features), self._output.dtype)
        target = device_array("out", out, theirs).expect(self._output.dtype, (count, self.features), writeable=True)
        self.stream.order(theirs, self.stream.handle)
        for start in range(0, count, self.max_batch):
            batch = min(self.max_batch, count - start)
            self.stream.copy(self.input(batch), _rows_of(given, start, batch))
            self.enqueue(batch)
            self.stream.copy(_rows_of(target, start, batch), self.output(batch))
        self.stream.order(self.stream.handle, theirs)
        return out


def _rows_of(array: DeviceArray, start: int, count: int) -> GpuBuffer:
    whole = GpuBuffer(array.pointer, array.shape, array.dtype, array.owner)
    row = GpuBuffer(0, array.shape[1:], array.dtype, None).nbytes
    return whole.part(start * row, (count, *array.shape[1:]), array.dtype)
