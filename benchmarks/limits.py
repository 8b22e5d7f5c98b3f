"""What the machine itself allows, measured beside the competitors: how fast memory takes bytes, how fast a core multiplies."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PROBE = Path(__file__).with_name("limits.c")
_LINE = 64  # bytes; streaming stores take whole cache lines
_SHARED_BYTES = 1 << 28  # that several threads write in one call


@cache
def probe() -> ctypes.CDLL | None:
    """``limits.c``, compiled for this very processor; None where there is no compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "limits.so"
        command = [compiler, "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", str(_PROBE), "-o", str(library)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        loaded = ctypes.CDLL(str(library))
    loaded.stream.argtypes, loaded.stream.restype = [ctypes.c_void_p, ctypes.c_size_t], None
    loaded.read_all.argtypes, loaded.read_all.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_ulong
    loaded.multiply_add.argtypes, loaded.multiply_add.restype = [ctypes.c_long, ctypes.c_float], ctypes.c_float
    return loaded


def aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """A zeroed array whose data starts at a cache line, every page of it touched."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.ones(size + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    array = room[start : start + size].view(dtype).reshape(shape)
    array.fill(0)
    return array


def reader(data: NDArray[Any]) -> Callable[[int], object] | None:
    """A way for one thread to read all of ``data`` (from :func:`aligned`) once; None where there is no compiler."""
    library = probe()
    if library is None:
        return None
    start, size = data.ctypes.data, data.nbytes // _LINE * _LINE
    return lambda _: library.read_all(start, size)


def writers(out: NDArray[Any]) -> dict[str, Callable[[int], object]]:
    """Ways for one thread to write all bytes of ``out`` (from :func:`aligned`): NumPy's copyto, memset, streaming stores."""
    line, start, size = out[:1].copy(), out.ctypes.data, out.nbytes
    ways: dict[str, Callable[[int], object]] = {
        "NumPy copyto from one image": lambda _: np.copyto(out, line),
        "memset": lambda _: ctypes.memset(start, 1, size),
    }
    library = probe()
    if library is not None:
        ways["streaming stores"] = lambda _: library.stream(start, size // _LINE * _LINE)
    return ways


def shared_writers(out: NDArray[Any], threads: int) -> tuple[int, dict[str, Callable[[int], object]]]:
    """The same by several threads, a part of ``out`` each, so often that handing out work is negligible: (how often, ways)."""
    repeats = max(1, _SHARED_BYTES // out.nbytes)
    share = out.nbytes // threads // _LINE * _LINE
    starts = [out.ctypes.data + part * share for part in range(threads)]
    pool, library = ThreadPoolExecutor(threads), probe()

    def by(write: Callable[[int], object]) -> Callable[[int], object]:
        def work(start: int) -> None:
            for _ in range(repeats):
                write(start)

        return lambda _: list(pool.map(work, starts))

    ways = {f"memset, {threads} threads": by(lambda start: ctypes.memset(start, 1, share))}
    if library is not None:
        ways[f"streaming stores, {threads} threads"] = by(lambda start: library.stream(start, share))
    return repeats, ways


def peak_gflops(seconds: float = 1.0) -> dict[str, float]:
    """Best float32 GFLOP/s of one thread within ``seconds`` each: multiply-adds alone, large products in NumPy and PyTorch."""
    ways: dict[str, tuple[float, Callable[[], object]]] = {}
    side = 1024
    a = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    b, c = a.T.copy(), np.empty_like(a)
    ways["NumPy matmul"] = 2.0 * side**3, lambda: np.matmul(a, b, out=c)
    try:
        import torch

        torch.set_num_threads(1)
        ta, tb, tc = (torch.from_numpy(array) for array in (a, b, c))
        ways["torch matmul"] = 2.0 * side**3, lambda: torch.mm(ta, tb, out=tc)
    except ImportError:
        pass
    library = probe()
    if library is not None:
        turns = 1_000_000
        ways["multiply-adds in registers"] = float(turns * library.operations_a_turn()), lambda: library.multiply_add(turns, 0.5)
    return {name: round(operations / _best(way, seconds) / 1e9, 1) for name, (operations, way) in ways.items()}


def _best(way: Callable[[], object], seconds: float) -> float:
    """Shortest of all runs within ``seconds``, in seconds."""
    way()
    began, best = time.perf_counter(), float("inf")
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        way()
        best = min(best, time.perf_counter() - start)
    return best
