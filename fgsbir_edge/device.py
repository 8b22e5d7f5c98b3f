"""Arrays in a GPU's memory, as other libraries hold them, without a copy and without importing these libraries.

An array tells where it lies by ``__cuda_array_interface__`` (CuPy, PyCUDA, Numba, PyTorch) or by DLPack (``__dlpack__``: JAX and
most others); a DLPack capsule is taken too. Work goes into one stream: the caller's, or the one that is current in the library an
array comes from.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from fgsbir_edge.errors import DeviceError, ShapeError
from fgsbir_edge.inner import native

_HOST = (1, 3)  # DLPack's kDLCPU, kDLCUDAHost
_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged
_LEGACY = 1  # the default stream's number in both protocols, where 0 would be ambiguous


@dataclass(frozen=True)
class DeviceArray:
    """Where a C-contiguous array lies. It is valid as long as ``owner`` is.

    Args:
        name: for messages.
        pointer: address of the first element; may be 0 for an empty array.
        shape, dtype: as in NumPy.
        device: number of the GPU; None where the protocol does not tell, until :func:`on_one_device` has asked CUDA.
        stream: handle of the stream that the array may still be written in; None: the protocol has seen to it.
        read_only: whether it must not be written to.
        owner: what keeps the memory.
    """

    name: str
    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int | None
    stream: int | None
    read_only: bool
    owner: object

    def expect(self, dtype: Any, shape: Sequence[int | None], *, writeable: bool = False) -> DeviceArray:
        """Itself. Raises ShapeError unless it has this dtype and shape (None: any length), and can be written to if it must."""
        fits = len(shape) == len(self.shape) and all(w is None or w == s for w, s in zip(shape, self.shape, strict=True))
        if self.dtype != np.dtype(dtype) or not fits:
            wanted = ", ".join("n" if length is None else str(length) for length in shape)
            raise ShapeError(f"{self.name} is {self.dtype} {list(self.shape)}, expected {np.dtype(dtype)} [{wanted}]")
        if writeable and self.read_only:
            raise ShapeError(f"{self.name} is read-only: pass an array that can be written to")
        return self


def device_array(name: str, value: Any, stream: int = 0) -> DeviceArray:
    """Where ``value`` lies; nothing is copied, and nothing of CUDA is called.

    Args:
        name: for messages.
        value: an array with ``__cuda_array_interface__`` or ``__dlpack__``, or a DLPack capsule (which is used up).
        stream: handle of the stream that the array is going to be used in; a library that hands it out by DLPack makes this
            stream wait for what it is still writing.

    Raises:
        DeviceError: host memory, a device that is no NVIDIA GPU, no protocol at all, or a library that refuses.
        ShapeError: not C-contiguous, or a dtype that NumPy lacks.
    """
    interface = getattr(value, "__cuda_array_interface__", None)
    if isinstance(interface, dict):
        return _from_interface(name, value, interface)
    if type(value).__name__ == "PyCapsule":
        return _from_dlpack(name, value, value)
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        _check_kind(name, value, int(value.__dlpack_device__()[0]))
        try:
            return _from_dlpack(name, value, _capsule(value, stream or _LEGACY))
        except (BufferError, RuntimeError, TypeError) as error:
            raise DeviceError(f"{name}: {_kind(value)} does not hand its memory out: {error}") from error
    raise DeviceError(
        f"{name} is {_kind(value)}, expected an array on a GPU (CuPy, PyCUDA, PyTorch, or any with __cuda_array_interface__ or "
        "__dlpack__); arrays of NumPy belong to the functions without _cuda in their name"
    )


def stream_handle(stream: Any, arrays: Sequence[Any] = ()) -> int:
    """The cudaStream_t of a stream, as a number; 0 is the default stream.

    Args:
        stream: a handle, or an object with ``__cuda_stream__``, ``cuda_stream`` (PyTorch), ``ptr`` (CuPy) or ``handle`` (PyCUDA,
            Numba). None takes the stream that is current in the library of the first of ``arrays`` that has one (PyTorch, CuPy),
            otherwise the default stream.

    Raises:
        DeviceError: none of these.
    """
    if stream is None:
        return next((found for found in map(_current_stream, arrays) if found is not None), 0)
    handle = stream
    if hasattr(stream, "__cuda_stream__"):
        handle = stream.__cuda_stream__()[1]
    else:
        for attribute in ("cuda_stream", "ptr", "handle"):
            if hasattr(stream, attribute):
                handle = getattr(stream, attribute)
                break
    if hasattr(handle, "value"):  # a ctypes pointer, as Numba has it
        handle = handle.value or 0
    if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0:
        raise DeviceError(f"stream is {stream!r}, expected a handle, or a stream of PyTorch, CuPy, PyCUDA or Numba")
    return handle


@cache  # of success alone: asking about devices can take a millisecond
def cuda() -> Any:
    """The native core, if it holds device code and there is a GPU for it. Raises DeviceError that says what is missing."""
    core = native()
    found = core.cuda_devices()
    if isinstance(found, str):
        raise DeviceError(f"no GPU can be used: {found}")
    return core


def on_one_device(core: Any, arrays: Sequence[DeviceArray], stream: int) -> int:
    """The number of the GPU that all arrays lie on, after making ``stream`` wait for the streams they may still be written in.

    Raises DeviceError when they lie on several, in host memory, or nowhere that CUDA knows.
    """
    placed = [_placed(core, array) for array in arrays]
    first = next((array for array in placed if array.device is not None), None)
    if first is None or first.device is None:
        return 0  # all are empty
    for array in placed:
        if array.device not in (None, first.device):
            raise DeviceError(
                f"{first.name} lies on GPU {first.device} and {array.name} on GPU {array.device}: copy them to the same one"
            )
    for other in sorted({array.stream or _LEGACY for array in placed if array.stream is not None} - {stream or _LEGACY}):
        call(core.cuda_order_streams, first.device, other, stream)
    return first.device


def call(function: Any, *arguments: Any) -> Any:
    """``function(*arguments)`` of the native core, with CUDA's refusals as DeviceError."""
    try:
        return function(*arguments)
    except RuntimeError as error:
        raise DeviceError(str(error)) from error


def _placed(core: Any, array: DeviceArray) -> DeviceArray:
    if array.device is not None or array.pointer == 0:
        return array
    device = call(core.cuda_device_of, array.pointer)
    if device < 0:
        raise DeviceError(f"{array.name} lies in host memory although it claims to be on a GPU: copy it there first")
    return replace(array, device=device)


def _from_interface(name: str, value: Any, interface: dict[str, Any]) -> DeviceArray:
    """Version 3 of the protocol, and older ones, which lack the stream."""
    shape = tuple(int(length) for length in interface["shape"])
    dtype = _dtype(name, str(interface["typestr"]))
    if interface.get("mask") is not None:
        raise ShapeError(f"{name} has a mask: pass a plain array")
    pointer, read_only = interface["data"]
    stream = interface.get("stream")
    if stream == 0:
        raise DeviceError(f"{name}: {_kind(value)} names stream 0, which the protocol forbids; expected 1, 2 or a handle")
    array = DeviceArray(name, int(pointer or 0), shape, dtype, None, stream, bool(read_only), value)
    return _contiguous(array, interface.get("strides"))


def _from_dlpack(name: str, value: Any, capsule: Any) -> DeviceArray:
    try:
        tensor = native().DlpackTensor(capsule)
    except ValueError as error:
        raise DeviceError(f"{name}: {error}") from error
    kind, device = tensor.device
    _check_kind(name, value, kind)
    array = DeviceArray(name, tensor.pointer, tensor.shape, _dtype(name, tensor.typestr), device, None, tensor.read_only, tensor)
    return _contiguous(array, tensor.strides)


def _capsule(value: Any, stream: int) -> Any:
    try:
        return value.__dlpack__(stream=stream, max_version=(1, 0))
    except TypeError:  # of a library from before versions
        return value.__dlpack__(stream=stream)


def _check_kind(name: str, value: Any, kind: int) -> None:
    if kind in _HOST:
        raise DeviceError(f"{name} ({_kind(value)}) lies in host memory: copy it to the GPU, or use the function without _cuda")
    if kind not in _CUDA:
        raise DeviceError(f"{name} ({_kind(value)}) lies on a device of DLPack's kind {kind}, expected an NVIDIA GPU (2)")


def _dtype(name: str, typestr: str) -> np.dtype[Any]:
    if not typestr.startswith("?"):  # the native core's mark; NumPy would read it as bool
        with suppress(TypeError):
            return np.dtype(typestr)
    raise ShapeError(f"{name} is of a type that NumPy lacks ({typestr.removeprefix('?')}): convert it first")


def _contiguous(array: DeviceArray, strides: Sequence[int] | None) -> DeviceArray:
    """Itself. Raises ShapeError unless strides (bytes; None: C order) are those of C order, where they matter at all."""
    if strides is None or 0 in array.shape:
        return array
    step = array.dtype.itemsize
    for length, stride in zip(reversed(array.shape), reversed(tuple(strides)), strict=True):
        if length != 1 and stride != step:
            raise ShapeError(f"{array.name} has strides {list(strides)} bytes, expected C order: make it contiguous first")
        step *= length
    return array


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _current_stream(value: Any) -> int | None:
    """Of the library that an array comes from; only a library that is loaded already can have made it."""
    library = type(value).__module__.partition(".")[0]
    module = sys.modules.get(library)
    if library == "torch" and module is not None and getattr(value, "is_cuda", False):
        return int(module.cuda.current_stream(value.device).cuda_stream)
    if library == "cupy" and module is not None:
        with value.device:  # streams are current for a device
            return int(module.cuda.get_current_stream().ptr)
    return None
