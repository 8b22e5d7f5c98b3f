"""The rasteriser on a GPU against the one on the CPU, on arrays of PyTorch and CuPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fgsbir_edge import _native
from fgsbir_edge.errors import DeviceError, ShapeError
from fgsbir_edge.raster import RasterSpec
from fgsbir_edge.raster_cuda import rasterize_cuda

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(1, 1), (1, 300), (300, 1), (3, 5), (33, 31), (64, 64), (100, 225), (224, 224), (256, 256), (257, 511), (40, 1001)]
OUTPUTS: list[dict[str, Any]] = [{}, {"mean": MEAN, "std": STD}, {"mean": MEAN, "std": STD, "dtype": "float16"}]


def on_cpu(batch: tuple[NDArray[Any], ...], spec: RasterSpec) -> NDArray[Any]:
    """The same sketches by the CPU core, from the same pixels."""
    shape, dtype = spec.output(len(batch[2]) - 1)
    out = np.empty(shape, dtype)
    _native.rasterize(batch, out, spec.native, (1.0, 1.0), 1)  # type: ignore[arg-type]
    return out


def on_gpu(library: Any, batch: tuple[NDArray[Any], ...], spec: RasterSpec, **options: Any) -> NDArray[Any]:
    """The same by the GPU."""
    out = library.new(*spec.output(len(batch[2]) - 1))
    drawn: NDArray[Any] = library.to_host(rasterize_cuda(*map(library.to_gpu, batch), spec, out, **options))
    return drawn


def check(drawn: NDArray[Any], expected: NDArray[Any], spec: RasterSpec) -> None:
    """Lines bit for bit, coverage within one level of 255 (and half a float16 step)."""
    if spec.style == "bresenham":
        np.testing.assert_array_equal(drawn.view(np.uint8), expected.view(np.uint8))
    elif spec.mean is None:
        assert np.abs(drawn.astype(int) - expected.astype(int)).max(initial=0) <= 1
    else:
        level = 1 / (255 * np.array(spec.std).reshape(3, 1, 1))
        slack = 1e-5 if drawn.dtype == np.float32 else 2e-3
        assert (np.abs(drawn.astype(np.float64) - expected.astype(np.float64)) <= level + slack).all()


@pytest.mark.parametrize("style", ["bresenham", "antialias"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_same_pixels_as_the_cpu(library: Any, sketches: Callable[..., Any], size: tuple[int, int], style: Any) -> None:
    for seed, output in enumerate(OUTPUTS):
        for ink, line_width in (("light", 2.0), ("dark", 17.5)):
            spec = RasterSpec(*size, style=style, ink=ink, line_width=line_width, **output)  # type: ignore[arg-type]
            batch = sketches(5, *size, seed=seed)
            check(on_gpu(library, batch, spec), on_cpu(batch, spec), spec)


@pytest.mark.parametrize("style", ["bresenham", "antialias"])
def test_a_large_batch(library: Any, sketches: Callable[..., Any], style: Any) -> None:
    spec = RasterSpec(256, 256, style=style)
    batch = sketches(4096, 256, 256)
    drawn = on_gpu(library, batch, spec)
    check(drawn, on_cpu(batch, spec), spec)
    np.testing.assert_array_equal(on_gpu(library, batch, spec), drawn)  # the same from run to run


def test_many_segments_in_one_sketch(library: Any) -> None:
    random = np.random.default_rng(8)
    points = random.uniform(-50, 1100, (20_000, 2)).astype(np.float32)
    batch = points, np.array([0, 2047, 2048, 2049, 9_000, 20_000], np.int64), np.array([0, 5], np.int64)
    for style in ("bresenham", "antialias"):
        spec = RasterSpec(1024, 1024, style=style, line_width=1.0)  # type: ignore[arg-type]
        check(on_gpu(library, batch, spec), on_cpu(batch, spec), spec)


def test_outputs_off_a_multiple_of_16_bytes(library: Any, sketches: Callable[..., Any]) -> None:
    spec = RasterSpec(20, 37)
    batch = sketches(3, 20, 37)
    for skew in (1, 5, 15):
        memory = library.new((skew + 3 * 20 * 37 + 16,), np.uint8)
        out = memory[skew : skew + 3 * 20 * 37].reshape(3, 20, 37)
        rasterize_cuda(*map(library.to_gpu, batch), spec, out)
        host = library.to_host(memory)
        np.testing.assert_array_equal(host[skew:-16].reshape(3, 20, 37), on_cpu(batch, spec))
        assert (host[:skew] == 77).all()
        assert (host[-16:] == 77).all()


def test_current_stream_is_used(library: Any, sketches: Callable[..., Any]) -> None:
    """Points that arrive late in a stream of their own are waited for, since the work goes into the same stream."""
    spec = RasterSpec(128, 128)
    batch = sketches(64, 128, 128)
    device = [library.to_gpu(array) for array in batch]
    points = library.to_gpu(np.zeros_like(batch[0]))
    out = library.new(*spec.output(64))
    busy = library.to_gpu(np.ones((4096, 4096), np.float32))
    library.module.cuda.synchronize() if library.name == "torch" else library.module.cuda.Device().synchronize()
    stream, current = library.stream()
    with current:
        for _ in range(20):
            busy = busy @ busy * 0.0
        points[:] = device[0]
        rasterize_cuda(points, device[1], device[2], spec, out)
        drawn = library.to_host(out)
    np.testing.assert_array_equal(drawn, on_cpu(batch, spec))
    out[:] = 0
    library.module.cuda.synchronize() if library.name == "torch" else library.module.cuda.Device().synchronize()
    rasterize_cuda(*device, spec, out, stream=stream)
    stream.synchronize()
    np.testing.assert_array_equal(library.to_host(out), on_cpu(batch, spec))


def test_captured_into_a_graph(sketches: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch cannot use a GPU")
    spec = RasterSpec(64, 64)
    batch = sketches(4, 64, 64)
    device = [torch.from_numpy(array).cuda() for array in batch]
    out = torch.zeros((4, 64, 64), dtype=torch.uint8, device="cuda")
    rasterize_cuda(*device, spec, out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rasterize_cuda(*device, spec, out)
    out.zero_()
    graph.replay()
    np.testing.assert_array_equal(out.cpu().numpy(), on_cpu(batch, spec))


def test_libraries_mix(sketches: Callable[..., Any]) -> None:
    torch, cupy = pytest.importorskip("torch"), pytest.importorskip("cupy")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch cannot use a GPU")
    spec = RasterSpec(64, 64, mean=MEAN, std=STD, dtype="float16")
    batch = sketches(4, 64, 64)
    out = cupy.zeros((4, 3, 64, 64), cupy.float16)
    rasterize_cuda(torch.from_numpy(batch[0]).cuda(), cupy.asarray(batch[1]), torch.from_numpy(batch[2]).cuda(), spec, out)
    torch.cuda.synchronize()
    np.testing.assert_array_equal(out.get(), on_cpu(batch, spec))


def test_dlpack_capsules(sketches: Callable[..., Any], library: Any) -> None:
    spec = RasterSpec(64, 64)
    batch = sketches(4, 64, 64)
    out = library.new((4, 64, 64), np.uint8)
    device = [library.to_gpu(array) for array in batch]
    rasterize_cuda(*(array.__dlpack__(stream=1) for array in device), spec, out.__dlpack__(stream=1), stream=0)
    np.testing.assert_array_equal(library.to_host(out), on_cpu(batch, spec))


def test_a_checked_batch(library: Any, sketches: Callable[..., Any]) -> None:
    spec = RasterSpec(64, 64)
    batch = sketches(4, 64, 64)
    np.testing.assert_array_equal(on_gpu(library, batch, spec, check=True), on_cpu(batch, spec))
    broken = batch[0].copy()
    broken[3, 1] = np.nan
    with pytest.raises(ShapeError, match=r"points\[3\] is not finite"):
        on_gpu(library, (broken, *batch[1:]), spec, check=True)
    with pytest.raises(ShapeError, match="stroke_offsets falls at index 1"):
        on_gpu(library, (batch[0], np.array([0, -5, len(batch[0])]), np.array([0, 2])), spec, check=True)
    assert on_gpu(library, (broken, *batch[1:]), spec).shape == (4, 64, 64)  # unchecked: left out


def test_second_gpu(sketches: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    spec = RasterSpec(64, 64)
    batch = sketches(4, 64, 64)
    device = [torch.from_numpy(array).to("cuda:1") for array in batch]
    out = torch.zeros((4, 64, 64), dtype=torch.uint8, device="cuda:1")
    rasterize_cuda(*device, spec, out)
    assert torch.cuda.current_device() == 0
    np.testing.assert_array_equal(out.cpu().numpy(), on_cpu(batch, spec))
    with pytest.raises(DeviceError, match="lies on GPU 1 and out on GPU 0"):
        rasterize_cuda(*device, spec, out.to("cuda:0"))
