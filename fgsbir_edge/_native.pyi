from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def rasterize(
    points: NDArray[np.float32],
    stroke_offsets: NDArray[np.int64],
    sketch_offsets: NDArray[np.int64],
    out: NDArray[Any],
    style: int,
    line_width: float,
    dark: bool,
    mean: Sequence[float],
    std: Sequence[float],
    threads: int,
) -> None: ...
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
