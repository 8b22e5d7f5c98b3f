"""Streams by the package itself, by CuPy and by PyCUDA, over stand-ins: the same promises, kept by each in its own way."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from fgsbir_edge import device
from fgsbir_edge.errors import DeviceError
from fgsbir_edge.gpu_stream import GpuStream, open_stream
from tests import fake_gpu_libraries
from tests.fake_cuda import FakeCore


@pytest.fixture(autouse=True)
def libraries(core: FakeCore, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu_libraries.install_cupy(monkeypatch, core)
    fake_gpu_libraries.install_pycuda(monkeypatch, core)


@pytest.fixture(params=["core", "cupy", "pycuda"])
def stream(request: pytest.FixtureRequest, core: FakeCore) -> GpuStream:
    opened = open_stream(request.param)
    assert opened.library == request.param
    assert opened.device == 0
    assert not opened.integrated
    return opened


def test_bytes_go_up_and_come_back(stream: GpuStream, core: FakeCore) -> None:
    host, there = stream.mapped((4, 3), np.float32)
    back, back_there = stream.mapped((4, 3), np.float32)
    memory = stream.buffer((4, 3), np.float32)
    host[...] = np.arange(12).reshape(4, 3)
    stream.copy(memory, there)
    stream.copy(back_there.first(2), memory.part(24, (2, 3), np.float32))  # the last two rows
    stream.synchronize()
    np.testing.assert_array_equal(back[:2], host[2:])
    assert core.calls == ["copy", "copy", "synchronize"]


def test_memory_lives_as_long_as_it_is_used(stream: GpuStream, core: FakeCore) -> None:
    host, there = stream.mapped((3,), np.int64)
    row = there.first(2)
    del there
    gc.collect()
    assert core.held == 1
    del row
    host[...] = 5
    gc.collect()
    assert core.held == 1
    del host
    gc.collect()
    assert core.held == 0


def test_what_is_recorded_runs_when_it_is_replayed(stream: GpuStream, core: FakeCore) -> None:
    host, there = stream.mapped((4,), np.uint8)
    back, back_there = stream.mapped((4,), np.uint8)
    host[...], back[...] = 1, 0
    if stream.library == "pycuda":
        with pytest.raises(DeviceError, match="not recorded"):
            stream.record(lambda: stream.copy(back_there, there))
        return
    recording = stream.record(lambda: stream.copy(back_there, there))
    assert (back == 0).all()
    recording.replay()
    assert (back == 1).all()

    def fail() -> None:
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        stream.record(fail)
    stream.record(lambda: None).replay()  # the failed one is not still being recorded


def test_streams_wait_for_each_other(stream: GpuStream, core: FakeCore) -> None:
    stream.order(11, stream.handle)
    wanted = {"core": ["order"], "cupy": ["event 7 in 11", f"{stream.handle} waits for 7"], "pycuda": ["context waits"]}
    assert core.calls == wanted[stream.library]


def test_pycuda_needs_the_application_s_context(monkeypatch: pytest.MonkeyPatch, core: FakeCore) -> None:
    fake_gpu_libraries.install_pycuda(monkeypatch, core, context=False)
    with pytest.raises(DeviceError, match="no CUDA context is current"):
        open_stream("pycuda")


def test_cupy_serves_where_there_is_no_device_code(monkeypatch: pytest.MonkeyPatch, core: FakeCore) -> None:
    def none(**_: Any) -> str:
        return "built without device code"

    monkeypatch.setattr(core, "cuda_devices", none)
    device.cuda.cache_clear()
    assert open_stream().library == "cupy"


def test_what_a_library_raises_is_one_error(core: FakeCore, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = open_stream("cupy")

    def refuse(*_: Any) -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr("cupy.cuda.alloc", refuse)
    with pytest.raises(DeviceError, match="CUDA refused: out of memory"):
        stream.buffer((3,), np.float32)
