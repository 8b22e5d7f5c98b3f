"""Encoders on a GPU: streams of the package and of CuPy, recorded work, ONNX Runtime's CUDA provider, TensorRT, PyCUDA.

The tests of streams also run on the CPU emulator (``make emulate``), the others on a GPU alone.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from fgsbir_edge import _native, selftest_kernels
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.backends import Setting, open_encoder
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.encoder.tensorrt import TensorRTEncoder
from fgsbir_edge.errors import DeviceError, FgsbirError
from fgsbir_edge.gpu_stream import GpuStream, Library, open_stream
from fgsbir_edge.preprocess import sketch_pixels
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.raster_cuda import rasterize_cuda
from fgsbir_edge.selftest import Check, run_check
from fgsbir_edge.sketch import Sketch
from fgsbir_edge.strokes_cuda import StrokesEncoder, pack_pixels
from tests import fake_tensorrt
from tests.toy import FEATURES, SIZE, outline, toy_encoder

EMULATED = _native.build_info()["cuda_toolkit"] == "emulated"
SPEC = RasterSpec(64, 64)


def sketches(count: int) -> list[Sketch]:
    return [Sketch.from_strokes([outline(number, 2.0)]).centred() for number in range(count)]


def pycuda_context() -> None:
    """Make one current, as an application does."""
    try:
        importlib.import_module("pycuda.autoinit")
    except Exception as error:  # without its driver a library may raise anything
        pytest.skip(f"pycuda: {error}")


@pytest.fixture(params=["core", "cupy", "pycuda"])
def stream(request: pytest.FixtureRequest) -> GpuStream:
    library: Library = request.param
    if EMULATED and library != "core":
        pytest.skip(f"{library} does not run on the emulator")
    if library == "pycuda":
        pycuda_context()
    try:
        return open_stream(library)
    except DeviceError as error:
        pytest.skip(str(error))


def test_memory_that_both_sides_see(stream: GpuStream) -> None:
    host, there = stream.mapped((5, 3), np.float32)
    back, back_there = stream.mapped((5, 3), np.float32)
    memory = stream.buffer((5, 3), np.float32)
    host[...] = np.arange(15).reshape(5, 3)
    stream.copy(memory, there)
    stream.copy(back_there, memory)
    stream.synchronize()
    np.testing.assert_array_equal(back, host)
    empty, _ = stream.mapped((0, 3), np.float32)
    assert empty.shape == (0, 3)


def drawing(stream: GpuStream, count: int) -> tuple[Any, Callable[[], None], Any]:
    """Host memory to fill, work that draws what is in it, and the pixels afterwards."""
    packed = pack_pixels(sketches(count), SPEC)
    host, there = zip(
        *(stream.mapped(array.shape, array.dtype) for array in (packed.points, packed.stroke_offsets, packed.sketch_offsets)),
        strict=True,
    )
    for array, values in zip(host, (packed.points, packed.stroke_offsets, packed.sketch_offsets), strict=True):
        array[...] = values
    on_device = [stream.buffer(part.shape, part.dtype) for part in there]
    out = stream.buffer((count, 64, 64), np.uint8)
    drawn, drawn_there = stream.mapped((count, 64, 64), np.uint8)

    def work() -> None:
        for to, source in zip(on_device, there, strict=True):
            stream.copy(to, source)
        rasterize_cuda(*on_device, SPEC, out, stream=stream.handle)
        stream.copy(drawn_there, out)

    return host, work, drawn


def test_recorded_drawing_sees_new_points(stream: GpuStream) -> None:
    host, work, drawn = drawing(stream, 3)
    work()
    stream.synchronize()
    expected = rasterize(sketches(3), SPEC)
    np.testing.assert_array_equal(drawn, expected)
    if stream.library == "pycuda":
        with pytest.raises(DeviceError, match="not recorded"):
            stream.record(work)
        return
    drawn[...] = 7
    recording = stream.record(work)
    stream.synchronize()
    assert (drawn == 7).all()  # recorded, not run
    for shift in (0, 3):
        host[0][:, 0] += shift
        recording.replay()
        stream.synchronize()
        np.testing.assert_array_equal(drawn[:, :, shift:], expected[:, :, : 64 - shift])
    del recording
    gc.collect()


def test_recording_survives_an_error_meanwhile(stream: GpuStream) -> None:
    if stream.library == "pycuda":
        pytest.skip("streams of PyCUDA are not recorded")

    def fail() -> None:
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        stream.record(fail)
    stream.synchronize()
    stream.record(lambda: None).replay()


@pytest.mark.parametrize("check", selftest_kernels.checks(), ids=lambda check: check.name)
def test_the_self_test(check: Check) -> None:
    if EMULATED and check.name.endswith("cupy"):
        pytest.skip("cupy does not run on the emulator")
    outcome = run_check(check)
    assert outcome.status != "failed", outcome.note
    if outcome.status == "skipped":
        pytest.skip(outcome.note)


def test_strokes_to_features_through_a_stand_in_network(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    if not EMULATED:
        pytest.skip("a stand-in for TensorRT reads the emulator's memory alone")

    class Immediately:
        calls: ClassVar[list[str]] = []

        def put(self, stream: int, name: str, work: Callable[[], None]) -> None:
            work()

    fake_tensorrt.install(monkeypatch, Immediately())  # type: ignore[arg-type]
    plan = fake_tensorrt.engine_bytes(toy_encoder(), SIZE, FEATURES, [(1, 8)])
    strokes = StrokesEncoder(TensorRTEncoder(bundle, plan, open_stream("core")), bundle.input, record=False)
    for count in (1, 5, 11):
        drawings = sketches(count)
        expected = OnnxEncoder(bundle, 1).encode(sketch_pixels(drawings, bundle.input))
        np.testing.assert_allclose(strokes.encode(drawings), expected, atol=2e-2)  # pixels within a level of 255


@pytest.fixture(params=["onnx-cuda", "onnx-tensorrt", "tensorrt"])
def encoder(request: pytest.FixtureRequest, bundle: Bundle) -> Any:
    if EMULATED:
        pytest.skip("the emulator has no network")
    try:
        return open_encoder(bundle, Setting(request.param))
    except FgsbirError as error:
        pytest.skip(str(error))


def test_features_are_those_of_the_processor(encoder: Any, bundle: Bundle) -> None:
    drawings = sketches(11)
    expected = OnnxEncoder(bundle, 1).encode(sketch_pixels(drawings, bundle.input))
    np.testing.assert_allclose(encoder.encode(sketch_pixels(drawings, bundle.input)), expected, atol=2e-3)
    strokes = StrokesEncoder(encoder, bundle.input)
    for count in (11, 3, 3, 1, 1, 1, 11, 11):
        np.testing.assert_allclose(strokes.encode(drawings[:count]), expected[:count], atol=2e-3)
    if encoder.recordable:
        assert strokes.replay is not None
        assert strokes.replay.refused is None
        assert strokes.replay.recorded >= 3


def test_replayed_work_is_the_same_bits(encoder: Any, bundle: Bundle) -> None:
    recorded = StrokesEncoder(encoder, bundle.input)
    plain = StrokesEncoder(encoder, bundle.input, record=False)
    first = plain.encode(sketches(4))
    for _ in range(3):
        np.testing.assert_array_equal(recorded.encode(sketches(4)), first)


def test_arrays_of_the_library_go_in_and_out(encoder: Any, bundle: Bundle, library: Any) -> None:
    pixels = sketch_pixels(sketches(5), bundle.input)
    expected = OnnxEncoder(bundle, 1).encode(pixels)
    out = library.new(expected.shape, np.float32)
    np.testing.assert_allclose(library.to_host(encoder.encode_device(library.to_gpu(pixels), out)), expected, atol=2e-3)
    if library.name == "cupy":
        made = encoder.encode_device(library.to_gpu(pixels))
        np.testing.assert_array_equal(library.to_host(made), library.to_host(out))


@pytest.mark.parametrize("backend", ["onnx-cuda", "tensorrt"])
def test_a_context_that_pycuda_owns(backend: str, bundle: Bundle) -> None:
    pycuda_context()
    try:
        encoder = open_encoder(bundle, replace(Setting(backend), library="pycuda"))
    except FgsbirError as error:
        pytest.skip(str(error))
    pixels = sketch_pixels(sketches(3), bundle.input)
    np.testing.assert_allclose(encoder.encode(pixels), OnnxEncoder(bundle, 1).encode(pixels), atol=2e-3)
