"""A stand-in for CuPy's arrays over NumPy: what search asks of them, strict about what CuPy refuses."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest


class ndarray(np.ndarray):  # noqa: N801 - CuPy's name
    """An array that claims to lie on a GPU: it meets others of its kind and scalars only, and leaves by ``get`` alone."""

    def get(self) -> np.ndarray:
        """A copy "on the host"."""
        return np.array(self.view(np.ndarray))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        for one in (*inputs, *out):
            if isinstance(one, np.ndarray) and not isinstance(one, ndarray):
                raise TypeError(f"Unsupported type {type(one)}")
        plain = [one.view(np.ndarray) if isinstance(one, ndarray) else one for one in inputs]
        if out:
            options["out"] = tuple(one.view(np.ndarray) for one in out)
        result = getattr(ufunc, method)(*plain, **options)
        return out[0] if out else on_gpu(result)

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(f"NumPy's {function.__name__} was called with an array of CuPy")

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and not isinstance(value, ndarray):
            raise TypeError("a NumPy array is put into one of CuPy")
        super().__setitem__(key, value)

    def __float__(self) -> float:
        raise AssertionError("a copy to the host that nobody asked for")


def on_gpu(values: Any) -> ndarray:
    """A copy "on the GPU"."""
    return np.array(values).view(ndarray)


def install_cupy(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let ``import cupy`` find the stand-in; the sizes of what is copied to the GPU are noted in the list."""
    copied: list[int] = []

    def asarray(values: Any) -> ndarray:
        copied.append(values.nbytes)
        return on_gpu(values)

    def plainly(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            found = function(*(one.view(np.ndarray) if isinstance(one, ndarray) else one for one in arguments), **options)
            return tuple(map(on_gpu, found)) if isinstance(found, tuple) else on_gpu(found)

        return call

    def concatenate(parts: Any, axis: int) -> ndarray:
        return on_gpu(np.concatenate([one.view(np.ndarray) for one in parts], axis=axis))

    module = ModuleType("cupy")
    vars(module).update(
        asarray=asarray,
        zeros=lambda shape, dtype: on_gpu(np.zeros(shape, dtype)),
        maximum=np.maximum,
        sqrt=np.sqrt,
        partition=plainly(np.partition),
        nonzero=plainly(np.nonzero),
        concatenate=concatenate,
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    return copied
