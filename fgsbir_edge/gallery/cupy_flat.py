"""Search on an NVIDIA GPU by CuPy: features and embeddings stay in its memory, adapters embed there, only candidates come back.

Candidates are scored anew on the processor wherever the certificate of ``nearest.py`` asks for it, so that answers are those of
every other backend. It was written against a stand-in and has not been run on a GPU.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.arrays import SMALLEST_NORM, Float32
from fgsbir_edge.errors import DeviceError
from fgsbir_edge.gallery.flat import Places
from fgsbir_edge.gallery.store import Float16
from fgsbir_edge.gpu_libraries import load
from fgsbir_edge.head import Adapter, Head

ROWS = 1 << 16  # photos embedded at a time, and multiplied at a time where they are stored in float16
BLOCK = 256  # products of which the largest is looked at first; embeddings are padded to a multiple
PRODUCTS = 1 << 26  # in one go: 256 MiB
DEVICE_ROUNDING = 1e-5  # of an embedding and a product computed there against those of the processor


class CupyPhotos:
    """Features [N, C] on the current GPU, and the indexes made of them. Raises DeviceError without CuPy, GPU or memory."""

    def __init__(self, features: Float16) -> None:
        self._cupy = load("cupy")
        if os.environ.get("CUPY_TF32", "0") == "1":
            raise DeviceError("CUPY_TF32=1 makes CuPy round what it multiplies to 10 bits; unset it to search on the GPU")
        with refusals(self._cupy):
            self._features = self._cupy.asarray(features)

    def flat(self, head: Head, adapter: Adapter | None, half: bool) -> CupyFlat:
        """The index by a head, or by an adapter that moves photos; ``half``: stored in float16. Raises DeviceError."""
        cupy, count = self._cupy, len(self._features)
        with refusals(cupy):
            weight, bias = cupy.asarray(head.weight), cupy.asarray(head.bias)
            learned = None
            if adapter is not None:
                adapter.check(head)
                learned = cupy.asarray(adapter.support), cupy.asarray(adapter.coefficients)
            rows = cupy.zeros((-(-count // BLOCK) * BLOCK, head.embedding), np.float16 if half else np.float32)
            rounding = cupy.zeros((), np.float32)
            for first in range(0, count, ROWS):
                features = self._features[first : first + ROWS].astype(np.float32)
                unit = features @ weight.T + bias
                if learned is not None:
                    support, coefficients = learned
                    unit += (features @ support.T + np.float32(1.0)) @ coefficients.T
                unit /= cupy.maximum(cupy.sqrt((unit * unit).sum(axis=1, keepdims=True)), np.float32(SMALLEST_NORM))
                stored = rows[first : first + len(unit)]
                stored[...] = unit.astype(rows.dtype)
                off = stored.astype(np.float32) - unit
                rounding = cupy.maximum(rounding, cupy.sqrt((off * off).sum(axis=1).max()))
            return CupyFlat(cupy, rows, count, float(rounding.get()))


class CupyFlat:
    """N embeddings on the GPU, padded with zeros to whole blocks [P, D]; ``error`` as in ``Flat``."""

    def __init__(self, cupy: Any, rows: Any, count: int, rounding: float) -> None:
        self._cupy, self._rows, self._count = cupy, rows, count
        self.error = rounding + DEVICE_ROUNDING

    def top(self, queries: Float32, count: int, allowed: NDArray[np.bool_] | None) -> tuple[Float32, Places]:
        """See ``Flat``. Raises DeviceError."""
        scores, places = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
        batch = max(1, PRODUCTS // len(self._rows))
        with refusals(self._cupy):
            may = np.zeros(len(self._rows), np.bool_)
            may[: self._count] = True if allowed is None else allowed
            penalty = self._cupy.asarray(np.where(may, np.float32(0.0), np.float32(-np.inf)))
            for first in range(0, len(queries), batch):
                part = slice(first, first + batch)
                self._top(queries[part], penalty, scores[part], places[part])
        return scores, places

    def rows(self, places: Places) -> None:
        """What is stored may differ from the processor's embeddings: candidates are scored from their features."""
        return

    def _top(self, queries: Float32, penalty: Any, scores: Float32, places: Places) -> None:
        """One batch: products [B, P], those that can be among the largest by the maxima of blocks, and these to the host."""
        cupy, count = self._cupy, scores.shape[1]
        products = self._products(cupy.asarray(queries))
        products += penalty  # -inf where no photo is, or none that may answer
        width = BLOCK
        while width > 1 and products.shape[1] < 4 * count * width:
            width //= 2
        maxima = products.reshape(len(queries), -1, width).max(axis=2)
        least = cupy.partition(maxima, maxima.shape[1] - count, axis=1)[:, -count][:, None]
        owners, which = cupy.nonzero((products >= least) & (products > -np.inf))
        found, owner, place = products[owners, which].get(), owners.get(), which.get()
        ends = np.searchsorted(owner, np.arange(len(queries) + 1))
        for number, (begin, end) in enumerate(itertools.pairwise(ends.tolist())):
            order = np.argsort(-found[begin:end], kind="stable")[:count] + begin
            scores[number], places[number] = found[order], place[order]

    def _products(self, queries: Any) -> Any:
        """Inner products [B, P], sums in float32: float16 rows are widened first, since CuPy would round products to float16."""
        if self._rows.dtype == np.float32:
            return queries @ self._rows.T
        parts = range(0, len(self._rows), ROWS)
        return self._cupy.concatenate([queries @ self._rows[a : a + ROWS].astype(np.float32).T for a in parts], axis=1)


@contextlib.contextmanager
def refusals(cupy: Any) -> Iterator[None]:
    """CUDA's and CuPy's refusals as DeviceError; CuPy's exceptions have no common base, but a module each."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("cupy", "cupy_backends")):
            raise
        raise DeviceError(
            f"CuPy cannot search on the GPU ({' '.join(str(error).split())[:300]}); search with another backend, or with "
            "storage 'float16' where memory is short"
        ) from error
