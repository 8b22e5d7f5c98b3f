"""Arrays on a GPU as other libraries describe them, with made-up addresses; and what happens where there is no GPU."""

from __future__ import annotations

import ctypes
import gc
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fgsbir_edge import _native, device, doctor, raster_cuda
from fgsbir_edge.device import device_array, on_one_device, stream_handle
from fgsbir_edge.errors import DeviceError, ShapeError
from fgsbir_edge.raster import RasterSpec
from fgsbir_edge.raster_cuda import rasterize_cuda
from tests.fake_device import ADDRESS, Dlpack, Interface, capsule_name


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int64, np.int32, np.uint8, np.int8, np.bool_])
@pytest.mark.parametrize("version", [None, 1])
def test_dlpack_is_read_without_a_copy(dtype: Any, version: int | None) -> None:
    array = Dlpack((3, 4), dtype, device=(2, 5), offset=24, version=version)
    read = device_array("a", array, 77)
    assert (read.pointer, read.shape, read.dtype, read.device) == (ADDRESS + 24, (3, 4), np.dtype(dtype), 5)
    assert read.stream is None  # the library has made stream 77 wait
    assert array.streams == [77]
    assert not read.read_only


def test_default_stream_is_named_by_its_number() -> None:
    array = Dlpack((1,), np.float32)
    device_array("a", array, 0)
    assert array.streams == [1]


@pytest.mark.parametrize("version", [None, 1])
def test_tensor_is_given_back_once(version: int | None) -> None:
    array = Dlpack((2,), np.float32, version=version)
    capsule = array.capsule()
    tensor = _native.DlpackTensor(capsule)
    assert capsule_name(capsule).startswith("used_dltensor")
    with pytest.raises(ValueError, match="each can be taken once"):
        _native.DlpackTensor(capsule)
    assert array.freed == 0
    del tensor
    gc.collect()
    assert array.freed == 1
    del capsule
    gc.collect()
    assert array.freed == 1


def test_array_lives_as_long_as_its_description() -> None:
    array = Dlpack((2,), np.float32)
    read = device_array("a", array)
    gc.collect()
    assert array.freed == 0
    del read
    gc.collect()
    assert array.freed == 1


def test_capsule_is_taken_as_it_is() -> None:
    array = Dlpack((7,), np.int64)
    assert device_array("a", array.capsule()).shape == (7,)
    with pytest.raises(DeviceError, match="named 'something'"):
        device_array("a", array.capsule(b"something"))


def test_unknown_version_is_left_alone() -> None:
    array = Dlpack((7,), np.int64, version=2)
    capsule = array.capsule()
    with pytest.raises(DeviceError, match="expected version 1"):
        device_array("a", capsule)
    assert capsule_name(capsule) == "dltensor_versioned"
    assert array.freed == 0


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (Dlpack((2,), np.float32, device=(1, 0)), "lies in host memory"),
        (Dlpack((2,), np.float32, device=(3, 0)), "lies in host memory"),
        (Dlpack((2,), np.float32, device=(10, 0)), "DLPack's kind 10, expected an NVIDIA GPU"),
        (np.zeros(3, np.float32), "lies in host memory"),
        ([1.0, 2.0], "is builtins.list, expected an array on a GPU"),
        (None, "expected an array on a GPU"),
        (Interface((2,), np.float32, stream=0), "names stream 0"),
    ],
)
def test_what_is_not_on_a_gpu_is_refused(array: Any, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        device_array("points", array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (Dlpack((2,), np.float32, code=4), "a type that NumPy lacks .code 4, 32 bits, 1 lanes"),
        (Dlpack((2,), np.float32, lanes=4), "4 lanes"),
        (Dlpack((2, 3), np.float32, strides=(1, 2)), r"strides \[4, 8\] bytes, expected C order"),
        (Interface((2, 3), np.float32, strides=(16, 4)), r"strides \[16, 4\] bytes, expected C order"),
        (Interface((2,), np.float32, mask=object()), "has a mask"),
        (Interface((2,), np.float32, typestr="<f3"), "a type that NumPy lacks"),
    ],
)
def test_layouts_that_cannot_be_used_are_refused(array: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        device_array("points", array)


@pytest.mark.parametrize(
    "array",
    [
        Dlpack((2, 3), np.float32, strides=(3, 1)),
        Dlpack((2, 1), np.float32, strides=(1, 99)),  # a length of one never steps
        Interface((2, 3), np.float32, strides=(12, 4)),
        Interface((2, 3), np.float32, strides=None),
        Interface((0, 3), np.float32, strides=(1, 1)),
    ],
)
def test_c_order_is_recognised(array: Any) -> None:
    assert device_array("a", array).dtype == np.float32


def test_interface_is_read_without_a_copy() -> None:
    read = device_array("a", Interface((5, 2), np.float32, data=(4096, True), stream=2))
    assert (read.pointer, read.shape, read.dtype, read.device) == (4096, (5, 2), np.dtype(np.float32), None)
    assert read.read_only
    assert read.stream == 2
    assert device_array("a", Interface((5, 2), np.float32, version=2)).stream is None


def test_interface_comes_before_dlpack() -> None:
    class Both(Dlpack):
        __cuda_array_interface__ = Interface((4,), np.uint8).__cuda_array_interface__

    assert device_array("a", Both((2,), np.float32)).shape == (4,)


def test_library_may_refuse() -> None:
    class Refuses(Dlpack):
        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("it wants a gradient")

    with pytest.raises(DeviceError, match="does not hand its memory out: it wants a gradient"):
        device_array("a", Refuses((2,), np.float32))


def test_expectations() -> None:
    array = device_array("out", Interface((2, 3), np.float32, data=(64, True)))
    assert array.expect(np.float32, (None, 3)) is array
    with pytest.raises(ShapeError, match=r"out is float32 \[2, 3\], expected uint8 \[n, 3\]"):
        array.expect(np.uint8, (None, 3))
    with pytest.raises(ShapeError, match=r"expected float32 \[n\]"):
        array.expect(np.float32, (None,))
    with pytest.raises(ShapeError, match="out is read-only"):
        array.expect(np.float32, (2, 3), writeable=True)


# ---- streams ----


@pytest.mark.parametrize(
    ("stream", "handle"),
    [
        (None, 0),
        (0, 0),
        (94_000, 94_000),
        (SimpleNamespace(cuda_stream=11), 11),
        (SimpleNamespace(ptr=12), 12),
        (SimpleNamespace(handle=13), 13),
        (SimpleNamespace(handle=ctypes.c_void_p(14)), 14),
        (SimpleNamespace(handle=ctypes.c_void_p(None)), 0),
        (SimpleNamespace(__cuda_stream__=lambda: (0, 15), ptr=16), 15),
    ],
)
def test_stream_handles(stream: Any, handle: int) -> None:
    assert stream_handle(stream) == handle


@pytest.mark.parametrize("stream", ["fast", True, -1, 1.5, SimpleNamespace(ptr="x")])
def test_what_is_no_stream_is_refused(stream: Any) -> None:
    with pytest.raises(DeviceError, match="expected a handle, or a stream of PyTorch"):
        stream_handle(stream)


def test_current_stream_is_that_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    class Place:
        entered = 0

        def __enter__(self) -> None:
            Place.entered += 1

        def __exit__(self, *_: object) -> None:
            pass

    tensor_kind = type("Tensor", (), {"__module__": "torch", "is_cuda": True, "device": "cuda:1"})
    on_host_kind = type("Tensor", (), {"__module__": "torch", "is_cuda": False})
    array_kind = type("ndarray", (), {"__module__": "cupy", "device": Place()})
    torch, cupy = ModuleType("torch"), ModuleType("cupy")
    setattr(torch, "cuda", SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=len(device))))  # noqa: B010
    setattr(cupy, "cuda", SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=33)))  # noqa: B010
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert stream_handle(None, [on_host_kind(), tensor_kind(), array_kind()]) == len("cuda:1")
    assert stream_handle(None, [Interface((1,), np.uint8), array_kind()]) == 33
    assert Place.entered == 1
    assert stream_handle(44, [array_kind()]) == 44
    assert stream_handle(None, [Interface((1,), np.uint8)]) == 0


# ---- where everything comes together, with a core that records what it is told ----


class Core:
    """Stands for the native core on a machine with GPUs; addresses lie on GPU address // 2^40, those below on the host."""

    def __init__(self) -> None:
        self.drawn: list[tuple[Any, ...]] = []
        self.ordered: list[tuple[int, int, int]] = []

    def cuda_device_of(self, address: int) -> int:
        return (address >> 40) - 1

    def cuda_order_streams(self, number: int, before: int, after: int) -> None:
        self.ordered.append((number, before, after))

    def rasterize_cuda(self, *arguments: Any) -> None:
        self.drawn.append(arguments)


def at(gpu: int, shape: tuple[int, ...], dtype: Any, **entries: Any) -> Interface:
    """An array on that GPU, as :class:`Core` understands addresses."""
    return Interface(shape, dtype, data=((gpu + 1) << 40, False), **entries)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    stand_in = Core()
    monkeypatch.setattr(raster_cuda, "cuda", lambda: stand_in)
    return stand_in


NORMALISED = RasterSpec(height=32, width=48, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), dtype="float16")


def test_raster_call(core: Core) -> None:
    points, strokes, sketches = at(2, (9, 2), np.float32, stream=71), at(2, (4,), np.int64), at(2, (3,), np.int64, stream=5)
    out = at(2, (2, 3, 32, 48), np.float16)
    assert rasterize_cuda(points, strokes, sketches, NORMALISED, out, stream=5, check=True) is out
    where = 3 << 40
    settings = (0, 2.0, False, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert core.drawn == [(((where, 9), (where, 4), (where, 3)), where, 2, (32, 48), settings, (2, 5), True)]
    assert core.ordered == [(2, 71, 5)]  # the stream that points are still written in; 5 is ours


@pytest.mark.parametrize(("spec", "dtype", "code"), [(RasterSpec(32, 48), np.uint8, 0), (NORMALISED, np.float16, 2)])
def test_formats(core: Core, spec: RasterSpec, dtype: Any, code: int) -> None:
    shape, _ = spec.output(1)
    rasterize_cuda(at(0, (0, 2), np.float32), at(0, (1,), np.int64), at(0, (2,), np.int64), spec, at(0, shape, dtype))
    assert core.drawn[0][2] == code
    with pytest.raises(ShapeError, match="out is float64"):
        rasterize_cuda(at(0, (0, 2), np.float32), at(0, (1,), np.int64), at(0, (2,), np.int64), spec, at(0, shape, np.float64))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"points": at(0, (9, 3), np.float32)}, ShapeError, r"points is float32 \[9, 3\], expected float32 \[n, 2\]"),
        ({"points": at(0, (9, 2), np.float64)}, ShapeError, "points is float64"),
        ({"stroke_offsets": at(0, (4,), np.int32)}, ShapeError, "stroke_offsets is int32"),
        ({"stroke_offsets": at(0, (0,), np.int64)}, ShapeError, "stroke_offsets is empty"),
        ({"sketch_offsets": at(0, (0,), np.int64)}, ShapeError, "sketch_offsets is empty"),
        ({"out": at(0, (3, 32, 48), np.uint8)}, ShapeError, r"out is uint8 \[3, 32, 48\], expected uint8 \[2, 32, 48\]"),
        ({"out": Interface((2, 32, 48), np.uint8, data=(1 << 40, True))}, ShapeError, "out is read-only"),
        ({"out": at(1, (2, 32, 48), np.uint8)}, DeviceError, "points lies on GPU 0 and out on GPU 1"),
        ({"points": Interface((9, 2), np.float32, data=(4096, False))}, DeviceError, "points lies in host memory although"),
        ({"points": np.zeros((9, 2), np.float32)}, DeviceError, "points .numpy.ndarray. lies in host memory"),
    ],
)
def test_raster_refuses(core: Core, change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {
        "points": at(0, (9, 2), np.float32),
        "stroke_offsets": at(0, (4,), np.int64),
        "sketch_offsets": at(0, (3,), np.int64),
        "spec": RasterSpec(32, 48),
        "out": at(0, (2, 32, 48), np.uint8),
    }
    with pytest.raises(error, match=message):
        rasterize_cuda(**{**arguments, **change})
    assert not core.drawn


def test_refusals_of_cuda_are_device_errors(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> None:
        raise RuntimeError("out of memory; free device memory")

    monkeypatch.setattr(core, "rasterize_cuda", refuses)
    empty = at(0, (0, 2), np.float32), at(0, (1,), np.int64), at(0, (1,), np.int64)
    with pytest.raises(DeviceError, match="out of memory; free device memory"):
        rasterize_cuda(*empty, RasterSpec(8, 8), at(0, (0, 8, 8), np.uint8))


def test_mixed_protocols_share_a_device() -> None:
    stand_in = Core()
    by_dlpack = device_array("a", Dlpack((2,), np.float32, device=(2, 1)))
    assert on_one_device(stand_in, [device_array("b", Interface((0,), np.float32)), by_dlpack], 0) == 1
    with pytest.raises(DeviceError, match="a lies on GPU 1 and b on GPU 0"):
        on_one_device(stand_in, [by_dlpack, device_array("b", at(0, (2,), np.float32))], 0)
    assert stand_in.ordered == []


def test_legacy_stream_is_not_waited_for_twice() -> None:
    stand_in = Core()
    on_one_device(stand_in, [device_array("a", at(0, (2,), np.float32, stream=1))], 0)
    assert stand_in.ordered == []  # 1 and 0 are the same stream


# ---- this machine, as it is ----


def test_without_a_gpu_the_reason_is_told() -> None:
    found = _native.cuda_devices()
    if not isinstance(found, str):
        pytest.skip("there is a GPU")
    device.cuda.cache_clear()
    arrays = Interface((4, 2), np.float32), Interface((2,), np.int64), Interface((2,), np.int64)
    with pytest.raises(DeviceError, match="no GPU can be used: ") as caught:
        rasterize_cuda(*arrays, RasterSpec(8, 8), Interface((1, 8, 8), np.uint8))
    assert found in str(caught.value)
    if _native.build_info()["cuda"]:
        assert "driver" in found or "GPU" in found
        with pytest.raises(RuntimeError, match="looking up an array's device"):
            _native.cuda_device_of(ADDRESS)
    else:
        assert "built without device code" in found
        assert not hasattr(_native, "rasterize_cuda")


def test_build_names_toolkit_and_architectures() -> None:
    info = _native.build_info()
    assert bool(info["cuda_toolkit"]) is bool(info["cuda_architectures"]) is info["cuda"]


def test_doctor_tells_of_gpus() -> None:
    facts = doctor.examine()
    assert f"GPU           not used: {facts['gpu']}" in doctor.report(facts) or isinstance(facts["gpu"], list)
    orin = {"name": "Orin", "compute_capability": "8.7", "memory": 32 << 30, "multiprocessors": 16, "problem": ""}
    other = {**orin, "name": "Xavier", "compute_capability": "7.2", "problem": "no kernel image (cudaError): build again"}
    text = doctor.report({**facts, "gpu": [orin, other]})
    assert "GPU           Orin, compute capability 8.7, 32.0 GiB, 16 multiprocessors: kernels run\n" in text
    assert (
        "GPU           Xavier, compute capability 7.2, 32.0 GiB, 16 multiprocessors: no kernel image (cudaError): build again\n"
        in text
    )


def test_torch_tensor_of_the_host_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(DeviceError, match="lies in host memory"):
        device_array("points", torch.zeros(3))
    assert stream_handle(None, [torch.zeros(3)]) == 0


def test_torch_tensor_is_taken_over_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12, dtype=torch.int64).reshape(3, 4)
    taken = _native.DlpackTensor(tensor.__dlpack__())
    assert (taken.pointer, taken.shape, taken.typestr, taken.device) == (tensor.data_ptr(), (3, 4), "<i8", (1, 0))
    assert ctypes.c_int64.from_address(taken.pointer + 40).value == 5
    if taken.strides is not None:
        assert taken.strides == (32, 8)
