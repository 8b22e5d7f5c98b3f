"""The few array helpers every room above the native core shares: checks that name what is wrong, and L2 normalisation."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgsbir_edge.errors import NonFiniteError, ShapeError

Float32 = NDArray[np.float32]

ALIGNED_BYTES = 1 << 20
_LARGEST = np.finfo(np.float32).max
SMALLEST_NORM = 1e-12  # below it a vector has no direction; dividing by this keeps zero rows zero instead of NaN


def matrix(name: str, values: ArrayLike, columns: int | None = None) -> Float32:
    """A C-contiguous float32 [N, columns] array of finite numbers; a single row [columns] becomes [1, columns].

    Raises ShapeError (wrong rank or width) and NonFiniteError (NaN or infinity), both naming ``name``.
    """
    array = np.ascontiguousarray(np.atleast_2d(np.asarray(values, dtype=np.float32)))
    if array.ndim != 2 or (columns is not None and array.shape[1] != columns):
        wanted = f"[N, {'C' if columns is None else columns}]"
        raise ShapeError(f"{name}: got shape {list(array.shape)}, expected {wanted}; was it made with another encoder?")
    if not np.isfinite(array).all():
        raise NonFiniteError(f"{name}: holds NaN or infinity; check the input it was computed from")
    return array


def finite_features(rows: Float32) -> Float32:
    """What a network gave, as it is. Raises NonFiniteError for NaN or infinity."""
    if not (np.abs(rows) < _LARGEST).all():  # on AArch64 ONNX Runtime writes the largest number where infinity is meant
        raise NonFiniteError("encoder output holds NaN or infinity; the bundle is damaged, see 'fgsbir-edge doctor'")
    return rows


def frozen(values: ArrayLike) -> Float32:
    """A read-only C-contiguous float32 copy, so that what a digest was taken of cannot change afterwards."""
    array = np.array(values, dtype=np.float32, order="C")
    array.setflags(write=False)
    return array


def norms(rows: Float32) -> Float32:
    """Euclidean length of each row, at least SMALLEST_NORM: [N, D] -> [N, 1] float32."""
    lengths: Float32 = np.maximum(np.sqrt(np.einsum("nd,nd->n", rows, rows)), np.float32(SMALLEST_NORM))[:, None]
    return lengths


def normalised(rows: Float32) -> Float32:
    """Rows scaled to unit Euclidean length: [N, D] -> [N, D] float32."""
    unit: Float32 = rows / norms(rows)
    return unit


def median(values: NDArray[Any]) -> Any:
    """``numpy.median`` along the first axis of finite numbers, one at least: the same bits, without the guard against NaN.

    The guard, and ``numpy.percentile``, load ``numpy.ma``: a tenth of the time that NumPy takes to load. Columns are copied
    first, as partitioning them where they lie is slower by a multiple.
    """
    columns = np.array(values.T, order="C")
    middle = columns.shape[-1] // 2
    first = middle - (columns.shape[-1] % 2 == 0)
    columns.partition((first, middle), axis=-1)
    return columns[..., first : middle + 1].mean(axis=-1)


def percentile(values: Float32, percent: float) -> float:
    """``numpy.percentile`` of finite numbers [n], one at least: the same bits as NumPy 2 gives."""
    place = (len(values) - 1) * (percent / 100)
    first = int(place)
    second = min(first + 1, len(values) - 1)
    ordered = np.partition(values, (first, second))
    low, high, share = ordered[first], ordered[second], place - first
    step = high - low
    return float(high - step * np.float32(1 - share) if share >= 0.5 else low + step * np.float32(share))


def aligned_empty(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[np.generic]:
    """A new C-contiguous array; from ALIGNED_BYTES on it begins on a 64-byte boundary, which stores around the cache need."""
    size = prod(shape) * np.dtype(dtype).itemsize
    if size < ALIGNED_BYTES:
        return np.empty(shape, dtype)
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)
