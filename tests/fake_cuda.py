"""A stand-in for the native core's CUDA functions, for tests without a GPU: "device memory" is the host's.

What is put into a stream happens at once, or, while the stream is recorded, whenever the recording is replayed. ``calls`` tells
what was asked for, in order.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fgsbir_edge import _native, device

_FORMATS = (np.uint8, np.float32, np.float16)


def at(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """The memory at an address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)


class FakeCore:
    """One GPU. ``integrated``: it shares its memory with the host; ``recordable``: whether it records streams."""

    def __init__(self, *, integrated: bool = False, recordable: bool = True) -> None:
        self.calls: list[str] = []
        self.launches = 0  # recordings run
        self._integrated, self._recordable = integrated, recordable
        self._numbers = itertools.count(1000)
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._recordings: dict[int, list[Callable[[], None]]] = {}
        self._recording: tuple[int, list[Callable[[], None]]] | None = None

    def put(self, stream: int, name: str, work: Callable[[], None]) -> None:
        """Something for a stream to do."""
        self.calls.append(name)
        if self._recording is not None and self._recording[0] == stream:
            self._recording[1].append(work)
        else:
            work()

    def counts(self) -> dict[str, int]:
        """How often each thing was asked for."""
        return {name: self.calls.count(name) for name in sorted(set(self.calls))}

    def cuda_devices(self, probe: bool = False) -> list[dict[str, Any]]:
        return [{"name": "stand-in", "compute_capability": "8.7", "memory": 2**30, "multiprocessors": 8, "problem": ""}]

    def cuda_device_of(self, address: int) -> int:
        return 0

    def cuda_is_integrated(self, device: int) -> bool:
        return self._integrated

    def cuda_allocate(self, device: int, size: int) -> int:
        memory = np.full(size, 0xAB, np.uint8)
        self._memory[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def cuda_release(self, device: int, pointer: int) -> None:
        del self._memory[pointer]

    def cuda_allocate_mapped(self, device: int, size: int) -> tuple[int, int]:
        pointer = self.cuda_allocate(device, size)
        return pointer, pointer

    cuda_release_mapped = cuda_release

    @property
    def held(self) -> int:
        """Blocks of memory that were not given back."""
        return len(self._memory)

    def cuda_make_stream(self, device: int) -> int:
        return next(self._numbers)

    def cuda_destroy_stream(self, device: int, stream: int) -> None: ...

    def cuda_synchronize(self, device: int, stream: int) -> None:
        assert self._recording is None or self._recording[0] != stream, "waiting for a stream that is recorded"
        self.calls.append("synchronize")

    def cuda_order_streams(self, device: int, before: int, after: int) -> None:
        self.calls.append("order")

    def cuda_copy(self, device: int, to: int, source: int, size: int, stream: int) -> None:
        def work() -> None:
            at(to, (size,), np.uint8)[:] = at(source, (size,), np.uint8)

        self.put(stream, "copy", work)

    def cuda_begin_capture(self, device: int, stream: int) -> None:
        if not self._recordable:
            raise RuntimeError("operation not permitted when stream is capturing")
        assert self._recording is None
        self._recording = (stream, [])

    def cuda_end_capture(self, device: int, stream: int) -> int:
        assert self._recording is not None
        assert self._recording[0] == stream
        number = next(self._numbers)
        self._recordings[number], self._recording = self._recording[1], None
        self.calls.append("recorded")
        return number

    def cuda_launch_recording(self, device: int, recording: int, stream: int) -> None:
        self.launches += 1
        for work in self._recordings[recording]:
            work()

    def cuda_destroy_recording(self, device: int, recording: int) -> None:
        del self._recordings[recording]

    def rasterize_cuda(self, arrays: Any, out: int, code: int, size: Any, settings: Any, place: Any, check: bool) -> None:
        """By the CPU core, from the same memory."""
        (points, p), (strokes, s), (ends, b) = arrays
        shape = (b - 1, *size) if code == 0 else (b - 1, 3, *size)

        def work() -> None:
            offsets = at(ends, (b,), np.int64)
            cuts = at(strokes, (s,), np.int64)[: offsets[-1] + 1]
            drawn = np.empty(shape, _FORMATS[code])
            batch = (at(points, (p, 2), np.float32)[: cuts[-1]].copy(), cuts.copy(), offsets.copy())
            _native.rasterize(batch, drawn, settings, (1.0, 1.0), 1)
            at(out, shape, _FORMATS[code])[...] = drawn

        self.put(place[1], "raster", work)


def install(monkeypatch: pytest.MonkeyPatch, **options: bool) -> FakeCore:
    """Let the package take the stand-in for its native core where it looks for a GPU."""
    core = FakeCore(**options)
    monkeypatch.setattr(device, "native", lambda: core)
    monkeypatch.setattr(device.cuda, "cache_clear", device.cuda.cache_clear, raising=False)
    device.cuda.cache_clear()
    return core
