"""Encoders on a GPU over stand-ins for CUDA and TensorRT: results, order of calls, addresses, shapes, recordings."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fgsbir_edge import device
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.encoder.tensorrt import TensorRTEncoder
from fgsbir_edge.errors import DeviceError, NonFiniteError, ShapeError
from fgsbir_edge.gpu_stream import CoreStream, GpuBuffer, open_stream
from fgsbir_edge.preprocess import sketch_pixels
from fgsbir_edge.sketch import Sketch
from fgsbir_edge.strokes_cuda import StrokesEncoder
from tests import fake_tensorrt
from tests.fake_cuda import FakeCore
from tests.toy import FEATURES, SIZE, outline, toy_encoder

PROFILES = [(1, 1), (1, 8)]


Make = Callable[..., TensorRTEncoder]


@pytest.fixture
def make(core: FakeCore, monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> Make:
    engines = fake_tensorrt.install(monkeypatch, core)

    def build(profiles: list[tuple[int, int]] = PROFILES, **changes: Any) -> TensorRTEncoder:
        engine = fake_tensorrt.engine_bytes(toy_encoder(), SIZE, FEATURES, profiles, **changes)
        encoder = TensorRTEncoder(bundle, engine, CoreStream())
        assert len(engines) == 1
        return encoder

    return build


def sketches(count: int, points: int = 1) -> list[Sketch]:
    """Different ones; ``points`` times the points of a plain outline."""
    return [Sketch.from_strokes([outline(number, 2.0)] * points) for number in range(count)]


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


def expected(bundle: Bundle, drawings: list[Sketch]) -> np.ndarray:
    return OnnxEncoder(bundle, threads=1).encode(sketch_pixels(drawings, bundle.input))


def test_batches_from_the_host(make: Make, bundle: Bundle, core: FakeCore) -> None:
    encoder, batch = make(), pixels(19)
    np.testing.assert_allclose(encoder.encode(batch), OnnxEncoder(bundle, threads=1).encode(batch), atol=1e-5)
    assert core.counts()["execute"] == 3  # 8, 8 and 3
    assert encoder.encode(batch[:0]).shape == (0, FEATURES)
    with pytest.raises(ShapeError, match="expected float32"):
        encoder.encode(batch.astype(np.float64))
    batch[0, 0, 0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="encoder output"):
        encoder.encode(batch)


def test_a_context_for_each_power_of_two_in_the_narrowest_profile(make: Make, core: FakeCore) -> None:
    encoder = make([(1, 1), (1, 6)])
    for count in (1, 5, 1, 6, 3, 2, 4):
        encoder.encode(pixels(count))
    wanted = ["profile 0", "shape 1", "profile 1", "shape 6", "profile 1", "shape 4", "profile 1", "shape 2"]
    assert [call for call in core.calls if call.startswith(("profile", "shape"))] == wanted
    with pytest.raises(DeviceError, match="a batch of 9 fits none"):
        encoder.enqueue(9)


@pytest.mark.parametrize("half", [False, True])
def test_arrays_on_the_gpu(make: Make, bundle: Bundle, core: FakeCore, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    encoder = make(half=half)
    dtype = np.float16 if half else np.float32
    batch = pixels(11)
    given, out = batch.astype(dtype), np.zeros((11, FEATURES), np.float32)
    there = GpuBuffer(given.ctypes.data, given.shape, dtype, given), GpuBuffer(out.ctypes.data, out.shape, np.float32, out)
    assert encoder.encode_device(*there) is there[1]
    np.testing.assert_allclose(out, OnnxEncoder(bundle, threads=1).encode(batch), atol=5e-3 if half else 1e-5)
    assert core.counts()["order"] == 2  # their stream before, and after
    with pytest.raises(ShapeError, match="pixels is"):
        encoder.encode_device(GpuBuffer(1, (1, 3, 4, 4), dtype, None), there[1])
    with pytest.raises(DeviceError, match="cupy cannot be imported"):
        encoder.encode_device(there[0])


@pytest.mark.parametrize("integrated", [False, True])
def test_strokes_to_features_without_the_host(make: Make, bundle: Bundle, core: FakeCore, integrated: bool) -> None:
    core._integrated = integrated
    strokes = StrokesEncoder(make(), bundle.input)
    for count in (1, 3, 1, 3, 3):
        drawings = sketches(count)
        core.calls.clear()
        np.testing.assert_allclose(strokes.encode(drawings), expected(bundle, drawings), atol=1e-5)
    assert core.launches == 3
    assert core.calls == ["synchronize"]  # the last one was nothing but a launch, and waiting for it
    np.testing.assert_allclose(strokes.encode(sketches(20)), expected(bundle, sketches(20)), atol=1e-5)
    assert strokes.encode([]).shape == (0, FEATURES)
    core.calls.clear()
    strokes.encode(sketches(5))
    work = ["raster", "execute"] if integrated else ["copy", "raster", "execute", "copy"]
    assert core.calls == [*work, "synchronize", *work, "recorded", "synchronize"]


def test_more_points_get_more_room_and_a_new_recording(make: Make, bundle: Bundle) -> None:
    strokes = StrokesEncoder(make(), bundle.input)
    assert strokes.replay is not None
    for drawings in (sketches(2), sketches(2), sketches(2, points=60), sketches(2, points=60), sketches(2)):
        np.testing.assert_allclose(strokes.encode(drawings), expected(bundle, drawings), atol=1e-5)
    assert strokes.replay.recorded == 2  # the small batch too is drawn from the larger room in the end


def test_recordings_that_are_not_used_go(make: Make, bundle: Bundle, core: FakeCore) -> None:
    strokes = StrokesEncoder(make([(1, 16)]), bundle.input)
    for count in (*range(1, 10), 2, 1, 1):
        strokes.encode(sketches(count))
    assert strokes.replay is not None
    assert strokes.replay.recorded == 10  # nine sizes; 1 was pushed out by 9, 2 was still there
    assert core.launches == 2
    gc.collect()
    assert len(core._recordings) == 8


def test_what_cannot_be_recorded_is_started_anew(
    make: Make, bundle: Bundle, core: FakeCore, caplog: pytest.LogCaptureFixture
) -> None:
    core._recordable = False
    strokes = StrokesEncoder(make(), bundle.input)
    for _ in range(3):
        np.testing.assert_allclose(strokes.encode(sketches(2)), expected(bundle, sketches(2)), atol=1e-5)
    assert strokes.replay is not None
    assert "not permitted" in str(strokes.replay.refused)
    assert [record.message[:45] for record in caplog.records] == ["the encoder's work cannot be recorded and is "]
    assert core.counts()["execute"] == 3
    plain = StrokesEncoder(strokes.encoder, bundle.input, record=False)
    assert plain.replay is None
    np.testing.assert_array_equal(plain.encode(sketches(2)), strokes.encode(sketches(2)))


def test_half_precision_input_is_drawn_as_such(make: Make, bundle: Bundle) -> None:
    strokes = StrokesEncoder(make(half=True), bundle.input)
    assert strokes.raster.dtype == "float16"
    np.testing.assert_allclose(strokes.encode(sketches(3)), expected(bundle, sketches(3)), atol=5e-3)


def test_memory_is_given_back(make: Make, bundle: Bundle, core: FakeCore) -> None:
    strokes = StrokesEncoder(make(), bundle.input)
    strokes.encode(sketches(2))
    strokes.encode(sketches(2, points=60))
    assert core.held > 0
    del strokes
    gc.collect()
    assert core.held == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"names": ["image", "rows"]}, "'features' being"), ({"names": ["image", "features", "more"]}, "the engine has tensors")],
)
def test_engines_of_another_network(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        make(**changes)


def test_an_engine_that_tensorrt_refuses(make: Make, bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match=r"does not take its own engine \(the engine was built by another release\)"):
        TensorRTEncoder(bundle, b"built elsewhere", CoreStream())


def test_without_a_gpu_the_message_names_what_is_missing() -> None:
    if not isinstance(device.native().cuda_devices(), str):
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="no GPU can be used"):
        open_stream("core")
    with pytest.raises(DeviceError, match=r"no GPU can be used: .*; nor does CuPy help"):
        open_stream()
    with pytest.raises(DeviceError, match="pycuda"):
        open_stream("pycuda")
