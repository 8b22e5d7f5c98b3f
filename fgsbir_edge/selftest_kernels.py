"""Checks of the package's own device code: rasteriser, adaptation, recorded streams, memory that host and GPU share; and of the
tools of a Jetson."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.bench_inputs import scribbles
from fgsbir_edge.errors import DeviceError
from fgsbir_edge.gpu_stream import LIBRARIES, GpuBuffer, GpuStream, Library, open_stream
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.selftest import Check, CheckError, SkipError
from fgsbir_edge.sketch import SketchBatch

ADAPT_BOUND = 1e-4  # of coefficients, relative to the largest; docs/cuda.md
_SKETCHES, _SIZE = 24, 160
_UNTOUCHED = 77
_WATCHED = 1.0  # seconds, for a few lines of tegrastats
_SPECS = {
    "bresenham": RasterSpec(_SIZE, _SIZE),
    "antialias": RasterSpec(_SIZE, _SIZE, style="antialias", ink="dark"),
    "antialias, normalised half precision": RasterSpec(
        _SIZE, _SIZE, style="antialias", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), dtype="float16"
    ),
}


def checks() -> list[Check]:
    """In the order in which one failure explains the next."""
    return [
        Check("driver, GPU and device code", devices),
        *(Check(f"rasteriser on the GPU, {name}", _of(drawing, spec)) for name, spec in _SPECS.items()),
        Check("adaptation on the GPU", adaptation),
        Check("replayed CUDA graph of the rasteriser", replayed),
        *(Check(f"memory without copies, {library}", _of(without_copies, library)) for library in LIBRARIES),
        Check("tools of a Jetson", tools),
    ]


def _of(check: Callable[[Any], str], argument: Any) -> Callable[[], str]:
    return lambda: check(argument)


def stream_of(library: Library = "core") -> GpuStream:
    """A stream, or SkipError with the reason why there is none."""
    try:
        return open_stream(library)
    except DeviceError as error:
        raise SkipError(str(error)) from error


def devices() -> str:
    """Whether kernels run on each GPU."""
    from fgsbir_edge.inner import native

    found = native().cuda_devices(probe=True)
    if isinstance(found, str):
        raise SkipError(found)
    if problems := [f"{gpu['name']}: {gpu['problem']}" for gpu in found if gpu["problem"]]:
        raise CheckError("; ".join(problems))
    return ", ".join(f"{gpu['name']} {gpu['compute_capability']}" for gpu in found)


def _mapped(stream: GpuStream, values: NDArray[Any]) -> GpuBuffer:
    """A copy in the host's memory, as the GPU sees it."""
    host, there = stream.mapped(values.shape, values.dtype)
    host[...] = values
    return there


def upload(stream: GpuStream, values: NDArray[Any]) -> GpuBuffer:
    """A copy on the GPU, made in the stream."""
    there = _mapped(stream, values)
    buffer = stream.buffer(values.shape, values.dtype)
    stream.copy(buffer, there)
    stream.synchronize()
    return buffer


def download(stream: GpuStream, buffer: GpuBuffer) -> NDArray[Any]:
    """A copy on the host, after all that is in the stream."""
    host, there = stream.mapped(buffer.shape, buffer.dtype)
    stream.copy(there, buffer)
    stream.synchronize()
    return np.array(host)


def _batch(spec: RasterSpec) -> SketchBatch:
    from fgsbir_edge.strokes_cuda import pack_pixels

    return pack_pixels([sketch.centred() for sketch in scribbles(_SKETCHES)], spec)


def _draw(stream: GpuStream, batch: SketchBatch, spec: RasterSpec) -> tuple[Callable[[], None], GpuBuffer]:
    """Work that draws the batch, and where."""
    from fgsbir_edge.raster_cuda import rasterize_cuda

    points, strokes, ends = (upload(stream, array) for array in (batch.points, batch.stroke_offsets, batch.sketch_offsets))
    shape, dtype = spec.output(_SKETCHES)
    out = upload(stream, np.full(shape, _UNTOUCHED, dtype))

    def work() -> None:
        rasterize_cuda(points, strokes, ends, spec, out, stream=stream.handle)

    return work, out


def drawing(spec: RasterSpec) -> str:
    """GPU against processor: bresenham bit for bit, antialias within a level of 255."""
    stream = stream_of()
    work, out = _draw(stream, _batch(spec), spec)
    work()
    drawn = download(stream, out).astype(np.float64)
    expected = rasterize([sketch.centred() for sketch in scribbles(_SKETCHES)], spec).astype(np.float64)
    level = 1.0 if spec.std is None else 1.01 / (255 * min(spec.std)) + 2e-3  # and half a step of float16
    worst = float(np.abs(drawn - expected).max())
    if worst > (0.0 if spec.style == "bresenham" else level):
        share = (drawn != expected).mean()
        raise CheckError(f"pixels differ from the processor's by up to {worst:g}, {share:.2%} of them at all")
    return f"{_SKETCHES} sketches, largest difference {worst:g}"


def replayed() -> str:
    """A recorded stream gives the same bytes as one that is not, and runs only when it is replayed."""
    stream, spec = stream_of(), _SPECS["antialias"]
    work, out = _draw(stream, _batch(spec), spec)
    recording = stream.record(work)
    if (download(stream, out) != _UNTOUCHED).any():
        raise CheckError("recording ran the work")
    work()
    plain = download(stream, out)
    for _ in range(3):
        recording.replay()
    if (download(stream, out) != plain).any():
        raise CheckError("replayed work draws other pixels")
    return "the same bytes as without"


def without_copies(library: Library) -> str:
    """The rasteriser reads points from the host's own memory and draws into it."""
    from fgsbir_edge.raster_cuda import rasterize_cuda

    stream_of()  # the rasteriser is the package's own, whoever has the memory
    stream, spec = _library_stream(library), _SPECS["bresenham"]
    batch = _batch(spec)
    points, strokes, ends = (_mapped(stream, array) for array in (batch.points, batch.stroke_offsets, batch.sketch_offsets))
    drawn, out = stream.mapped(*spec.output(_SKETCHES))
    rasterize_cuda(points, strokes, ends, spec, out, stream=stream.handle)
    stream.synchronize()
    if (drawn != rasterize([sketch.centred() for sketch in scribbles(_SKETCHES)], spec)).any():
        raise CheckError("drawing in mapped memory gives other pixels")
    return "GPU and host share their memory" if stream.integrated else "works, over the bus: this GPU has memory of its own"


def _library_stream(library: Library) -> GpuStream:
    if library == "pycuda":
        from fgsbir_edge.gpu_libraries import load

        try:
            load("pycuda.autoinit")  # makes a context, as an application would
        except DeviceError as error:
            raise SkipError(str(error)) from error
    return stream_of(library)


def adaptation() -> str:
    """The inner loop on the GPU against the one on the processor: five pairs, 64 outputs, five steps."""
    from fgsbir_edge.adapt_cuda import Pairs, Rule, TaskArrays, TaskPlan, TaskResults, Tasks, adapt_tasks_cuda
    from fgsbir_edge.inner import native

    stream = stream_of()
    pairs, width = 5, 64
    random = np.random.default_rng(0)
    features = random.normal(size=(2 * pairs, 128))
    outputs = (features @ random.normal(size=(128, width)) / 11).astype(np.float32)
    gram = (features @ features.T / 128 + 1).astype(np.float32)
    person = Pairs(tuple(range(pairs, 2 * pairs)), 2 * pairs)
    steps, margin, sharpness = np.full(5, 0.5), 0.3, 10.0
    tasks = Tasks.of_pairs([person], side="both", negatives="support", margin=margin)
    plan = TaskPlan(tasks, Rule(steps, sharpness=sharpness), width=width)
    out = TaskResults(stream.buffer((1, 6), np.float64), stream.buffer((plan.result_rows, width), np.float32))
    size = plan.workspace_bytes(stream.device)
    space = stream.buffer((size,), np.uint8) if size else None
    arrays = TaskArrays(upload(stream, outputs), upload(stream, gram))
    adapt_tasks_cuda(plan, arrays, out, workspace=space, stream=stream.handle)
    found = download(stream, out.coefficients)
    rates = steps.astype(np.float32)
    expected, _, losses = native().adapt(outputs, gram, tasks.triplets, tasks.moves, rates, margin, sharpness)
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= ADAPT_BOUND:
        raise CheckError(f"coefficients differ from the processor's by {error:.1e} of the largest, allowed is {ADAPT_BOUND:g}")
    return f"coefficients within {error:.1e} of the largest, loss {losses[0]:.3f} to {losses[-1]:.3f}"


def tools() -> str:
    """What the tools of a Jetson print is understood."""
    from fgsbir_edge import jetson
    from fgsbir_edge.jetson_watch import Watch

    state = jetson.state()
    if state is None:
        raise SkipError("this machine is no Jetson")
    with Watch() as watch:
        time.sleep(_WATCHED)
    seen = watch.summary()
    unknown = [name for name in ("l4t", "power_mode") if state[name] is None]
    if "GPU" not in state["clocks_mhz"]:
        unknown.append("GPU clock")
    if seen is None or seen["gpu_percent_mean"] is seen["gpu_mhz"] is None:
        unknown.append("tegrastats")
    if unknown:
        raise CheckError(f"not there, or not understood: {', '.join(unknown)}; a container may have to be given these tools")
    return f"{state['model']}, L4T {state['l4t']}, mode {state['power_mode']}, {seen}"
