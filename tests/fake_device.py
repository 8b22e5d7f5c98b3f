"""Arrays that claim to lie on a GPU, for tests on machines without one: the addresses are made up and never followed."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

ADDRESS = 0x7F00_0000_0000

_PyCapsule_New = ctypes.pythonapi.PyCapsule_New
_PyCapsule_New.restype = ctypes.py_object
_PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_PyCapsule_GetName = ctypes.pythonapi.PyCapsule_GetName
_PyCapsule_GetName.restype = ctypes.c_char_p
_PyCapsule_GetName.argtypes = [ctypes.py_object]

_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", _Deleter))


class _ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", _Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


class Dlpack:
    """An array on GPU ``device`` that is handed out by DLPack; ``freed`` counts how often it was given back."""

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        *,
        device: tuple[int, int] = (2, 0),
        strides: tuple[int, ...] | None = None,
        offset: int = 0,
        version: int | None = 1,
        read_only: bool = False,
        lanes: int = 1,
        code: int | None = None,
        address: int = ADDRESS,
    ) -> None:
        kind = np.dtype(dtype)
        self.freed = 0
        self.streams: list[int | None] = []
        self.device, self.version = device, version
        self._shape = (ctypes.c_int64 * len(shape))(*shape)
        self._strides = None if strides is None else (ctypes.c_int64 * len(shape))(*strides)
        tensor = _Tensor(
            address,
            *device,
            len(shape),
            _CODES[kind.kind] if code is None else code,
            8 * kind.itemsize,
            lanes,
            ctypes.cast(self._shape, ctypes.POINTER(ctypes.c_int64)),
            None if self._strides is None else ctypes.cast(self._strides, ctypes.POINTER(ctypes.c_int64)),
            offset,
        )
        self._deleter = _Deleter(self._free)
        if version is None:
            self._managed: ctypes.Structure = _Managed(tensor, None, self._deleter)
        else:
            self._managed = _ManagedVersioned(version, 3, None, self._deleter, int(read_only), tensor)

    def _free(self, managed: int) -> None:
        assert managed == ctypes.addressof(self._managed)
        self.freed += 1

    def capsule(self, name: bytes | None = None) -> Any:
        """A capsule without a destructor of its own: giving back is the taker's part."""
        self._name = name or (b"dltensor" if self.version is None else b"dltensor_versioned")  # the capsule keeps the address
        return _PyCapsule_New(ctypes.addressof(self._managed), self._name, None)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None = None, max_version: tuple[int, int] | None = None) -> Any:
        if self.version is None and max_version is not None:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        self.streams.append(stream)
        return self.capsule()


def capsule_on_gpu(array: NDArray[Any]) -> Any:
    """A DLPack capsule that claims that this memory of the host lies on GPU 0."""
    described = Dlpack(array.shape, array.dtype, address=array.ctypes.data)
    _kept.append((array, described))
    return described.capsule()


_kept: list[object] = []  # what such capsules point at


def capsule_name(capsule: Any) -> str:
    """What the capsule says it holds."""
    name: bytes = _PyCapsule_GetName(capsule)
    return name.decode()


class Interface:
    """An array that tells where it lies by ``__cuda_array_interface__``."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, **entries: Any) -> None:
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "data": (ADDRESS if 0 not in shape else 0, False),
            "version": 3,
            **entries,
        }
