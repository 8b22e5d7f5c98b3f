"""Stand-ins for CuPy and PyCUDA over the stand-in for CUDA: what ``gpu_libraries`` asks of them, under their names."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fgsbir_edge.gpu_stream import GpuBuffer
from tests.fake_cuda import FakeCore, at


class Memory:
    """A block that goes when its owner does."""

    def __init__(self, core: FakeCore, size: int) -> None:
        self.core, self.ptr = core, core.cuda_allocate(0, size)

    def __int__(self) -> int:
        return self.ptr

    def __del__(self) -> None:
        self.core.cuda_release(0, self.ptr)


class Stream:
    """A stream of either library."""

    def __init__(self, core: FakeCore) -> None:
        self.core, self.ptr = core, core.cuda_make_stream(0)
        self.handle = self.ptr
        self.recording = False

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None: ...

    def synchronize(self) -> None:
        self.core.cuda_synchronize(0, self.ptr)

    def begin_capture(self) -> None:
        self.recording = True
        self.core.cuda_begin_capture(0, self.ptr)

    def is_capturing(self) -> bool:
        return self.recording

    def end_capture(self) -> Any:
        self.recording = False
        number = self.core.cuda_end_capture(0, self.ptr)
        return SimpleNamespace(launch=lambda stream: self.core.cuda_launch_recording(0, number, stream.ptr))


class Array(GpuBuffer):
    """CuPy's, over the stand-in's memory."""

    device = nullcontext()

    def get(self) -> np.ndarray:
        return at(self.pointer, self.shape, self.dtype).copy()


Array.__module__ = "cupy"


def install_cupy(monkeypatch: pytest.MonkeyPatch, core: FakeCore) -> None:
    """Let ``import cupy`` find the stand-in."""

    def asarray(values: np.ndarray) -> Array:
        copy = values.copy()
        return Array(copy.ctypes.data, copy.shape, copy.dtype, copy)

    def event_record(event: int, stream: int) -> None:
        core.calls.append(f"event {event} in {stream}")

    runtime = SimpleNamespace(
        cudaDevAttrIntegrated=18,
        hostAllocMapped=2,
        memcpyDefault=4,
        eventDisableTiming=2,
        deviceGetAttribute=lambda attribute, device: int(core.cuda_is_integrated(device)),
        pointerGetAttributes=lambda pointer: SimpleNamespace(devicePointer=pointer),
        memcpyAsync=lambda to, source, size, kind, stream: core.cuda_copy(0, to, source, size, stream),
        eventCreateWithFlags=lambda flags: 7,
        eventRecord=event_record,
        streamWaitEvent=lambda stream, event: core.calls.append(f"{stream} waits for {event}"),
        eventDestroy=lambda event: None,
    )
    cuda = SimpleNamespace(
        runtime=runtime,
        Device=lambda number: nullcontext(),
        Stream=lambda non_blocking: Stream(core),
        alloc=lambda size: Memory(core, size),
        PinnedMemory=lambda size, flags: Memory(core, size),
        get_current_stream=lambda: SimpleNamespace(ptr=5),
    )
    module = ModuleType("cupy")
    vars(module).update(cuda=cuda, asarray=asarray, empty=lambda shape, dtype: asarray(np.zeros(shape, dtype)))
    monkeypatch.setitem(sys.modules, "cupy", module)


def install_pycuda(monkeypatch: pytest.MonkeyPatch, core: FakeCore, *, context: bool = True) -> None:
    """Let ``import pycuda.driver`` find the stand-in, with a context of an application's own or without one."""
    device = SimpleNamespace(pci_bus_id=lambda: "0000:01:00.0", get_attribute=lambda _: int(core.cuda_is_integrated(0)))

    class Context:
        @staticmethod
        def get_device() -> Any:
            if not context:
                raise RuntimeError("cuCtxGetDevice failed: invalid device context")
            return device

        @staticmethod
        def synchronize() -> None:
            core.calls.append("context waits")

    class Pagelocked(np.ndarray): ...

    def pagelocked_empty(shape: tuple[int, ...], dtype: Any, mem_flags: int) -> np.ndarray:
        assert mem_flags == 2
        memory = Memory(core, max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize))
        array = at(memory.ptr, shape, dtype).view(Pagelocked)
        owner = SimpleNamespace(get_device_pointer=lambda: memory.ptr)
        return Held(array, owner)

    class Device:
        count = staticmethod(lambda: 1)

        def __new__(cls, number: int) -> Any:
            return device

    driver = ModuleType("pycuda.driver")
    vars(driver).update(
        init=lambda: None,
        Context=Context,
        Device=Device,
        device_attribute=SimpleNamespace(INTEGRATED=18),
        host_alloc_flags=SimpleNamespace(DEVICEMAP=2),
        Stream=lambda: Stream(core),
        mem_alloc=lambda size: Memory(core, size),
        pagelocked_empty=pagelocked_empty,
        memcpy_dtod_async=lambda to, source, size, stream: core.cuda_copy(0, to, source, size, stream.handle),
    )
    package = ModuleType("pycuda")
    vars(package)["driver"] = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setitem(sys.modules, "pycuda.autoinit", ModuleType("pycuda.autoinit"))


class Held(np.ndarray):
    """Page-locked memory whose ``base`` tells where the GPU sees it, as PyCUDA has it."""

    def __new__(cls, array: np.ndarray, owner: Any) -> Any:
        made = array.view(cls)
        made._owner = owner
        return made

    @property
    def base(self) -> Any:  # type: ignore[override]
        return self._owner
