"""Tests that need an NVIDIA GPU and an installation with device code; each is skipped by name, with the reason, without.

The arrays come from PyTorch or CuPy, whichever can use the GPU; a test runs once with each.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fgsbir_edge import _native


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test in this folder, and skips it where there is no GPU."""
    found = _native.cuda_devices(probe=True)
    reason = found if isinstance(found, str) else found[0]["problem"]
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason:
                item.add_marker(pytest.mark.skip(reason=f"no GPU can be used: {reason}"))


class Library:
    """What the tests need of PyTorch and CuPy, by one name each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module: Any = importlib.import_module(name)

    def to_gpu(self, array: NDArray[Any]) -> Any:
        """A copy on the current device, made in the current stream."""
        return self.module.from_numpy(array.copy()).cuda() if self.name == "torch" else self.module.asarray(array)

    def to_host(self, array: Any) -> NDArray[Any]:
        """A copy in host memory, after everything in the current stream."""
        copy: NDArray[Any] = array.cpu().numpy() if self.name == "torch" else array.get()
        return copy

    def new(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array filled with something that is never drawn."""
        return self.to_gpu(np.full(shape, 77, dtype))

    def stream(self) -> Any:
        """A stream of its own; a context manager that makes it current."""
        if self.name == "torch":
            stream = self.module.cuda.Stream()
            return stream, self.module.cuda.stream(stream)
        stream = self.module.cuda.Stream(non_blocking=True)
        return stream, stream


def _usable(name: str) -> str:
    """Why the library cannot be used here; empty if it can."""
    try:
        module: Any = importlib.import_module(name)
        if name == "torch":
            return "" if module.cuda.is_available() else "this PyTorch cannot use a GPU"
        module.asarray([1.0]) + 1.0
    except Exception as error:  # a library without its driver may raise anything
        return f"{name}: {error}"
    return ""


@pytest.fixture(params=["torch", "cupy"])
def library(request: pytest.FixtureRequest) -> Library:
    """PyTorch or CuPy; skipped where it cannot use the GPU."""
    problem = _usable(request.param)
    if problem:
        pytest.skip(problem)
    return Library(request.param)


Batch = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]


@pytest.fixture
def sketches() -> Callable[..., Batch]:
    """Random sketches in pixels, packed: dots, empty strokes and sketches, short and long segments, coordinates far outside."""

    def make(count: int, height: int, width: int, seed: int = 0) -> Batch:
        random = np.random.default_rng(seed)
        points, strokes, ends = [np.empty((0, 2))], [0], [0]
        for _ in range(count):
            for _ in range(int(random.integers(0, 7))):
                n = int(random.choice([0, 1, 2, 12, 90]))
                step = float(random.choice([5.0, max(height, width)]))
                line = random.uniform((-0.2 * width, -0.2 * height), (1.2 * width, 1.2 * height)) + np.cumsum(
                    random.uniform(-step, step, (n, 2)), axis=0
                )
                far = random.random((n, 2))
                line = np.where(far < 0.01, random.uniform(-1e9, 1e9, (n, 2)), np.where(far > 0.97, np.rint(line) + 0.5, line))
                points.append(line)
                strokes.append(strokes[-1] + n)
            ends.append(len(strokes) - 1)
        packed = np.clip(np.concatenate(points), -1e9, 1e9).astype(np.float32)
        return packed, np.array(strokes, np.int64), np.array(ends, np.int64)

    return make
