"""A stream of one GPU with the memory, copies and recordings that go with it: what the encoders on a GPU need of CUDA.

:class:`CoreStream` needs the package's own device code alone. ``gpu_libraries`` has the same over CuPy, and over PyCUDA for
applications that own a PyCUDA context; :func:`open_stream` takes what is there.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.device import call, cuda
from fgsbir_edge.errors import DeviceError

Library = Literal["core", "cupy", "pycuda"]
LIBRARIES: tuple[Library, ...] = ("core", "cupy", "pycuda")


class GpuBuffer:
    """A C-contiguous array in memory that the GPU sees; CuPy, PyTorch, Numba and ``rasterize_cuda`` take it as it is.

    Valid as long as it, or an array made from it, lives.
    """

    def __init__(self, pointer: int, shape: tuple[int, ...], dtype: Any, owner: object) -> None:
        self.pointer, self.shape, self.dtype, self.owner = pointer, shape, np.dtype(dtype), owner

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(math.prod(self.shape) * self.dtype.itemsize)

    def first(self, rows: int) -> GpuBuffer:
        """The first rows of it, in the same memory."""
        return GpuBuffer(self.pointer, (rows, *self.shape[1:]), self.dtype, self.owner)

    def part(self, offset: int, shape: tuple[int, ...], dtype: Any) -> GpuBuffer:
        """An array that begins ``offset`` bytes into it, in the same memory."""
        return GpuBuffer(self.pointer + offset, shape, dtype, self.owner)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.pointer, False), "version": 3, "strides": None}


class Recording(Protocol):
    """Work that was put into a stream once and can be run again, with the same addresses and sizes."""

    def replay(self) -> None:
        """Put it into its stream; does not wait. Raises DeviceError."""
        ...


class GpuStream(Protocol):
    """One stream; everything here happens in its order. Nothing waits but ``synchronize``. All raise DeviceError.

    ``device`` is the GPU's number, ``handle`` the cudaStream_t, ``integrated`` whether GPU and host share their memory.
    """

    library: Library
    device: int
    handle: int
    integrated: bool

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> GpuBuffer:
        """New memory of the GPU; its content is anything."""
        ...

    def mapped(self, shape: tuple[int, ...], dtype: Any) -> tuple[NDArray[Any], GpuBuffer]:
        """New page-locked memory of the host, as the host sees it and as the GPU does: no copy where they share their memory."""
        ...

    def copy(self, to: GpuBuffer, source: GpuBuffer) -> None:
        """Copy between two buffers of one size in bytes, mapped ones too."""
        ...

    def order(self, before: int, after: int) -> None:
        """What is put into stream ``after`` from now on waits for what is in ``before`` now; one of them is usually this one."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was put into the stream is done."""
        ...

    def record(self, work: Callable[[], None]) -> Recording:
        """What ``work`` puts into the stream, not run but recorded."""
        ...


def open_stream(library: Library | None = None, device: int = 0) -> GpuStream:
    """A stream of its own on a GPU.

    ``library`` None takes the package's device code, or CuPy where this installation has none. "pycuda" takes the context that is
    current in the calling thread, and its device. Raises DeviceError that says what is missing and what to do about it.
    """
    if library == "core":
        return CoreStream(device)
    from fgsbir_edge.gpu_libraries import CupyStream, PycudaStream

    if library == "cupy":
        return CupyStream(device)
    if library == "pycuda":
        return PycudaStream()
    try:
        return CoreStream(device)
    except DeviceError as error:
        try:
            return CupyStream(device)
        except DeviceError as other:
            raise DeviceError(f"{error}; nor does CuPy help: {other}") from error


class CoreStream:
    """A stream by the package's own device code, in the GPU's primary context, which PyTorch, CuPy and TensorRT use too."""

    library: Library = "core"

    def __init__(self, device: int = 0) -> None:
        self._core = core = cuda()
        self.device = device
        self.integrated: bool = call(core.cuda_is_integrated, device)
        self.handle: int = call(core.cuda_make_stream, device)
        weakref.finalize(self, _quietly, core.cuda_destroy_stream, device, self.handle)

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> GpuBuffer:
        """See GpuStream."""
        size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
        pointer: int = call(self._core.cuda_allocate, self.device, size)
        return GpuBuffer(pointer, shape, dtype, _Owner(self._core.cuda_release, self.device, pointer))

    def mapped(self, shape: tuple[int, ...], dtype: Any) -> tuple[NDArray[Any], GpuBuffer]:
        """See GpuStream."""
        size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
        host, pointer = call(self._core.cuda_allocate_mapped, self.device, size)
        owner = _Owner(self._core.cuda_release_mapped, self.device, host)
        return host_array(host, shape, dtype, owner), GpuBuffer(pointer, shape, dtype, owner)

    def copy(self, to: GpuBuffer, source: GpuBuffer) -> None:
        """See GpuStream."""
        call(self._core.cuda_copy, self.device, to.pointer, source.pointer, source.nbytes, self.handle)

    def order(self, before: int, after: int) -> None:
        """See GpuStream."""
        call(self._core.cuda_order_streams, self.device, before, after)

    def synchronize(self) -> None:
        """See GpuStream."""
        call(self._core.cuda_synchronize, self.device, self.handle)

    def record(self, work: Callable[[], None]) -> Recording:
        """See GpuStream."""
        call(self._core.cuda_begin_capture, self.device, self.handle)
        try:
            work()
        except BaseException:
            _quietly(self._core.cuda_end_capture, self.device, self.handle)
            raise
        return _CoreRecording(self, self._core, call(self._core.cuda_end_capture, self.device, self.handle))


class _CoreRecording:
    def __init__(self, stream: CoreStream, core: Any, handle: int) -> None:
        self._stream, self._core, self._handle = stream, core, handle
        weakref.finalize(self, _quietly, core.cuda_destroy_recording, stream.device, handle)

    def replay(self) -> None:
        call(self._core.cuda_launch_recording, self._stream.device, self._handle, self._stream.handle)


class _Owner:
    """Gives memory back when nobody holds it any more."""

    def __init__(self, release: Callable[..., Any], device: int, pointer: int) -> None:
        weakref.finalize(self, _quietly, release, device, pointer)


def host_array(address: int, shape: tuple[int, ...], dtype: Any, owner: object) -> NDArray[Any]:
    """Memory of the host as an array that keeps ``owner`` alive."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = (ctypes.c_uint8 * size).from_address(address)
    memory._owner = owner  # ctypes objects take attributes, and NumPy keeps the object
    return np.frombuffer(memory, dtype).reshape(shape) if size else np.empty(shape, dtype)


def _quietly(release: Callable[..., Any], *arguments: Any) -> None:
    """Give something back to CUDA, which may have gone before us at the end of the process."""
    try:
        release(*arguments)
    except RuntimeError:
        return
