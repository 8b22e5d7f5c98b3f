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
    def __init__(self, height: int, width: int, settings: tuple[Any, ...], scale: tuple[float, float]) -> None: ...
    def add(self, points: Any, continues: bool) -> None: ...
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
    momentum: float = 0.0,
    form: str = "automatic",
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]: ...
def plan_triplets(photo_of: NDArray[np.int32], items: int, negatives: str) -> NDArray[np.int32]: ...
def prepare_support(
    weight: NDArray[Any],
    bias: NDArray[Any],
    sketches: NDArray[Any],
    photos: NDArray[Any],
    others: NDArray[Any],
    threads: int = 1,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.int32]]: ...
def adapt_support(
    weight: NDArray[Any],
    bias: NDArray[Any],
    support: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.int32]],
    candidates: NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None,
    side: str,
    negatives: str,
    step_sizes: NDArray[Any],
    margin: float,
    margin_net: NDArray[np.float32] | None,
    sharpness: float,
    momentum: float = 0.0,
    centre: float = ...,
    fold_pairs: int = 0,
    threads: int = 1,
    form: str = "automatic",
) -> tuple[Any, ...]: ...
def adapt_features(
    weight: NDArray[Any],
    bias: NDArray[Any],
    episodes: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    candidates: NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None,
    side: str,
    negatives: str,
    step_sizes: NDArray[Any],
    margin: float,
    margin_net: NDArray[np.float32] | None,
    sharpness: float,
    momentum: float = 0.0,
    centre: float = ...,
    fold_pairs: int = 0,
    threads: int = 1,
    form: str = "automatic",
    new_weight: NDArray[Any] | None = None,
    new_bias: NDArray[Any] | None = None,
) -> tuple[Any, ...]: ...
def form_head(
    weight: NDArray[Any],
    bias: NDArray[Any],
    coefficients: NDArray[Any],
    rows: NDArray[Any],
    new_weight: NDArray[Any],
    new_bias: NDArray[Any],
    threads: int = 1,
) -> None: ...
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

def gather_half(rows: NDArray[np.uint16], places: NDArray[np.int64]) -> NDArray[np.float32]: ...
def top_products(
    rows: NDArray[Any],
    queries: NDArray[np.float32],
    count: int,
    allowed: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
def adapted_products(
    embeddings: NDArray[np.float32],
    lengths: NDArray[np.float32],
    features: NDArray[np.uint16],
    support: NDArray[np.float32],
    coefficients: NDArray[np.float32],
    places: NDArray[np.int64],
    query: NDArray[np.float32],
) -> NDArray[np.float32]: ...
def embed_rows(weight: NDArray[np.float32], bias: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float32]: ...
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
def cuda_allocate(device: int, bytes: int) -> int: ...
def cuda_release(device: int, memory: int) -> None: ...
def cuda_allocate_mapped(device: int, bytes: int) -> tuple[int, int]: ...
def cuda_release_mapped(device: int, host: int) -> None: ...
def cuda_is_integrated(device: int) -> bool: ...
def cuda_make_stream(device: int) -> int: ...
def cuda_destroy_stream(device: int, stream: int) -> None: ...
def cuda_synchronize(device: int, stream: int) -> None: ...
def cuda_copy(device: int, to: int, source: int, bytes: int, stream: int) -> None: ...
def cuda_begin_capture(device: int, stream: int) -> None: ...
def cuda_end_capture(device: int, stream: int) -> int: ...
def cuda_launch_recording(device: int, recording: int, stream: int) -> None: ...
def cuda_destroy_recording(device: int, recording: int) -> None: ...
