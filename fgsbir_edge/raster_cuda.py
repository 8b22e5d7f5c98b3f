"""Vector sketches to pixels on a GPU, from device memory into device memory: :func:`rasterize_cuda`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fgsbir_edge.device import call, cuda, device_array, on_one_device, stream_handle
from fgsbir_edge.errors import ShapeError
from fgsbir_edge.raster import RasterSpec

_FORMATS = {np.dtype(np.uint8): 0, np.dtype(np.float32): 1, np.dtype(np.float16): 2}  # the native codes


def rasterize_cuda(
    points: Any,
    stroke_offsets: Any,
    sketch_offsets: Any,
    spec: RasterSpec,
    out: Any,
    *,
    stream: Any = None,
    check: bool = False,
) -> Any:
    """Draw B sketches, each on its own canvas, as one kernel in a stream; returns without waiting for it.

    Every array lies on one GPU, C-contiguous, and is used where it lies: a CuPy, PyCUDA, Numba, JAX or PyTorch array, anything
    with ``__cuda_array_interface__`` or ``__dlpack__``, or a DLPack capsule.

    Args:
        points: float32 [P, 2], in pixels (x right, y down; pixel (i, j) has its centre at x=i, y=j).
        stroke_offsets: int64 [S+1]; stroke s is points stroke_offsets[s] to stroke_offsets[s+1].
        sketch_offsets: int64 [B+1]; sketch b is strokes sketch_offsets[b] to sketch_offsets[b+1].
        spec: size, style, polarity, output.
        out: uint8 [B, H, W], or with mean and std float32 or float16 (as the spec says) [B, 3, H, W]. Every element is written.
        stream: where to put the work: a handle, or a stream of PyTorch, CuPy, PyCUDA or Numba. None takes the current stream of
            the library that ``out`` or ``points`` comes from (PyTorch, CuPy), otherwise the default stream. Streams that an array
            says it is still written in are waited for, on the GPU. Who reads ``out`` in another stream has to wait for this one.
        check: look at offsets and coordinates first, and wait for that. Without it offsets beyond their array are clamped, and
            segments with a coordinate that is not finite or beyond ±1e9 are left out.

    Returns:
        ``out``. Bresenham images are bit for bit those of :func:`fgsbir_edge.raster.rasterize` with ``scale=False``, antialiased
        ones within one level of 255. Float output is the same function of these levels.

    Raises:
        DeviceError: no GPU, no device code in this installation, arrays in host memory or on several GPUs, or CUDA refused.
        ShapeError: a wrong dtype, shape or layout, a read-only ``out``, or, with ``check``, wrong offsets or coordinates.
        NativeMissingError: the compiled core is not installed.
    """
    handle = stream_handle(stream, (out, points, stroke_offsets, sketch_offsets))
    batch = (
        device_array("points", points, handle).expect(np.float32, (None, 2)),
        device_array("stroke_offsets", stroke_offsets, handle).expect(np.int64, (None,)),
        device_array("sketch_offsets", sketch_offsets, handle).expect(np.int64, (None,)),
    )
    for offsets in batch[1:]:
        if offsets.shape[0] == 0:
            raise ShapeError(f"{offsets.name} is empty, expected one element more than there are strokes or sketches")
    shape, dtype = spec.output(batch[2].shape[0] - 1)
    target = device_array("out", out, handle).expect(dtype, shape, writeable=True)
    core = cuda()
    place = (on_one_device(core, (*batch, target), handle), handle)
    arrays = tuple((array.pointer, array.shape[0]) for array in batch)
    try:
        size = (spec.height, spec.width)
        call(core.rasterize_cuda, arrays, target.pointer, _FORMATS[target.dtype], size, spec.native, place, check)
    except ValueError as error:  # the settings were checked by the spec, so this is about the batch
        raise ShapeError(str(error)) from error
    return out
