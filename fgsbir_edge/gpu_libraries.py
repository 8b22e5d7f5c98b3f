"""The stream of ``gpu_stream`` over CuPy and over PyCUDA; both are imported when one is opened, and only then.

PyCUDA is for applications that own a PyCUDA context: nothing here makes or switches one.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import DeviceError
from fgsbir_edge.gpu_stream import GpuBuffer, Library, Recording, host_array

_REMEDIES = {
    "cupy": "pip install cupy-cuda12x (JetPack 6) or cupy-cuda13x (JetPack 7)",
    "pycuda": "pip install pycuda, which is compiled on the spot and needs the CUDA toolkit",
}


def load(name: str) -> Any:
    """Import CuPy or a module of PyCUDA. Raises DeviceError with the remedy."""
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except Exception as error:  # without its driver a library may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DeviceError(f"{package} cannot be imported ({reason}): {_REMEDIES[package]}") from error


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # each library has exceptions of its own, without a common base
        raise DeviceError(f"CUDA refused: {' '.join(str(error).split())[:300]}") from error


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return int(max(1, math.prod(shape) * np.dtype(dtype).itemsize))


class CupyStream:
    """A stream by CuPy, in the GPU's primary context; memory comes from CuPy's pool."""

    library: Library = "cupy"

    def __init__(self, device: int = 0) -> None:
        cupy = load("cupy")
        self._cuda, self._runtime = cupy.cuda, cupy.cuda.runtime
        self.device = device
        with self._on():
            attribute = _called(self._runtime.deviceGetAttribute, self._runtime.cudaDevAttrIntegrated, device)
            self.integrated = bool(attribute)
            self._stream = _called(lambda: self._cuda.Stream(non_blocking=True))
        self.handle = int(self._stream.ptr)

    def _on(self) -> Any:
        return _called(self._cuda.Device, self.device)

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> GpuBuffer:
        """See GpuStream."""
        with self._on():
            memory = _called(self._cuda.alloc, _size(shape, dtype))
        return GpuBuffer(int(memory.ptr), shape, dtype, memory)

    def mapped(self, shape: tuple[int, ...], dtype: Any) -> tuple[NDArray[Any], GpuBuffer]:
        """See GpuStream."""
        with self._on():
            memory = _called(self._cuda.PinnedMemory, _size(shape, dtype), self._runtime.hostAllocMapped)
            pointer = _called(self._runtime.pointerGetAttributes, memory.ptr).devicePointer
        return host_array(int(memory.ptr), shape, dtype, memory), GpuBuffer(int(pointer), shape, dtype, memory)

    def copy(self, to: GpuBuffer, source: GpuBuffer) -> None:
        """See GpuStream."""
        with self._on():
            default = self._runtime.memcpyDefault
            _called(self._runtime.memcpyAsync, to.pointer, source.pointer, source.nbytes, default, self.handle)

    def order(self, before: int, after: int) -> None:
        """See GpuStream."""
        with self._on():
            event = _called(self._runtime.eventCreateWithFlags, self._runtime.eventDisableTiming)
            try:
                _called(self._runtime.eventRecord, event, before)
                _called(self._runtime.streamWaitEvent, after, event)
            finally:
                _called(self._runtime.eventDestroy, event)  # goes when it has happened

    def synchronize(self) -> None:
        """See GpuStream."""
        _called(self._stream.synchronize)

    def record(self, work: Callable[[], None]) -> Recording:
        """See GpuStream."""
        with self._on(), self._stream:
            _called(self._stream.begin_capture)
            try:
                work()
            except BaseException:
                if self._stream.is_capturing():
                    self._stream.end_capture()
                raise
            return _CupyRecording(_called(self._stream.end_capture), self._stream)


class _CupyRecording:
    def __init__(self, graph: Any, stream: Any) -> None:
        self._graph, self._stream = graph, stream

    def replay(self) -> None:
        _called(self._graph.launch, self._stream)


class PycudaStream:
    """A stream of the PyCUDA context that is current in this thread; use it from threads where that context is current."""

    library: Library = "pycuda"

    def __init__(self) -> None:
        self._driver = driver = load("pycuda.driver")
        _called(driver.init)
        try:
            owner = driver.Context.get_device()
        except Exception as error:  # PyCUDA's own LogicError
            raise DeviceError(
                "no CUDA context is current in this thread: push the application's, or import pycuda.autoinit"
            ) from error
        numbers = range(_called(driver.Device.count))
        self.device = next((number for number in numbers if driver.Device(number).pci_bus_id() == owner.pci_bus_id()), 0)
        self.integrated = bool(_called(owner.get_attribute, driver.device_attribute.INTEGRATED))
        self._stream = _called(driver.Stream)
        self.handle = int(self._stream.handle)

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> GpuBuffer:
        """See GpuStream."""
        memory = _called(self._driver.mem_alloc, _size(shape, dtype))
        return GpuBuffer(int(memory), shape, dtype, memory)

    def mapped(self, shape: tuple[int, ...], dtype: Any) -> tuple[NDArray[Any], GpuBuffer]:
        """See GpuStream."""
        flags = self._driver.host_alloc_flags.DEVICEMAP
        host = _called(lambda: self._driver.pagelocked_empty(shape, dtype, mem_flags=flags))
        return host, GpuBuffer(int(_called(host.base.get_device_pointer)), shape, dtype, host)

    def copy(self, to: GpuBuffer, source: GpuBuffer) -> None:
        """See GpuStream."""
        _called(self._driver.memcpy_dtod_async, to.pointer, source.pointer, source.nbytes, self._stream)

    def order(self, before: int, after: int) -> None:
        """See GpuStream; waits for everything in the context, since PyCUDA does not take streams of others."""
        _called(self._driver.Context.synchronize)

    def synchronize(self) -> None:
        """See GpuStream."""
        _called(self._stream.synchronize)

    def record(self, work: Callable[[], None]) -> Recording:
        """Not by PyCUDA: work is put into the stream anew each time. Raises DeviceError."""
        raise DeviceError("streams of PyCUDA are not recorded")
