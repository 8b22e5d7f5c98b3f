from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def rasterize(
    sketches: tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]] | list[Any],
    out: NDArray[Any],
    settings: tuple[Any, ...],
    scale: tuple[float, float],
    threads: int,
) -> None: ...
def rasterize_prefixes(
    sketches: tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]] | list[Any],
    prefixes: int | Sequence[Sequence[int]],
    out: NDArray[Any],
    settings: tuple[Any, ...],
    scale: tuple[float, float],
    threads: int,
) -> None: ...

class Canvas:
    def __init__(self, height: int, width: int, settings: tuple[Any, ...]) -> None: ...
    def add(self, points: NDArray[np.float32], continues: bool) -> None: ...
    def write(self, out: NDArray[Any]) -> None: ...
    def clear(self) -> None: ...

def adapt(
    outputs: NDArray[Any],
    gram: NDArray[Any],
    triplets: NDArray[np.int32],
    moves: NDArray[np.uint8],
    step_sizes: NDArray[Any],
    margin: float,
    sharpness: float,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]: ...
def build_info() -> dict[str, Any]: ...

class DlpackTensor:
    def __init__(self, capsule: Any) -> None: ...
    @property
    def pointer(self) -> int: ...
    @property
    def device(self) -> tuple[int, int]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...] | None: ...
    @property
    def typestr(self) -> str: ...
    @property
    def read_only(self) -> bool: ...

def cuda_devices(probe: bool = False) -> list[dict[str, Any]] | str: ...

# Only where build_info()["cuda"] is true:
def rasterize_cuda(
    sketches: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
    out: int,
    format: int,
    size: tuple[int, int],
    settings: tuple[Any, ...],
    place: tuple[int, int],
    check: bool,
) -> None: ...
def cuda_device_of(address: int) -> int: ...
def cuda_order_streams(device: int, before: int, after: int) -> None: ...
