"""A pytest plugin for ``make emulate``: the installation's device code runs on the CPU emulator, and this stands in for CuPy.

"Device memory" is NumPy's; every operation has happened when it returns, in whatever stream.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge import _native


class ndarray(np.ndarray):  # noqa: N801 - CuPy's name
    """An array that claims to lie on GPU 0."""

    device: AbstractContextManager[None] = nullcontext()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = {**self.__array_interface__, "version": 3, "stream": 1}
        interface.pop("descr", None)
        return interface

    def get(self) -> NDArray[Any]:
        """A copy "on the host"."""
        return np.array(self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        from tests.fake_device import capsule_on_gpu

        return capsule_on_gpu(self)


class Stream(AbstractContextManager["Stream"]):
    """The default stream."""

    ptr = 0

    def __init__(self, non_blocking: bool = False) -> None:
        del non_blocking

    def __exit__(self, *_: object) -> None: ...

    def synchronize(self) -> None:
        """Nothing is ever pending."""


def pytest_configure() -> None:
    """Puts the stand-in where ``import cupy`` finds it."""
    assert _native.build_info()["cuda_toolkit"] == "emulated", "build with FGSBIR_CUDA=EMULATED"
    ndarray.__module__ = "cupy"
    device = SimpleNamespace(synchronize=lambda: None)
    cupy = ModuleType("cupy")
    vars(cupy)["asarray"] = lambda values: np.array(values).view(ndarray)
    vars(cupy)["cuda"] = SimpleNamespace(Stream=Stream, get_current_stream=Stream, Device=lambda: device)
    sys.modules["cupy"] = cupy
