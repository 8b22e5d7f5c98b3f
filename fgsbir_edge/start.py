"""Where a category starts before anybody has drawn it: what its photos have in common says what its sketches will have.

    c = -r (mean over the category's photos of W f + b  -  o)

All sketches of a category share what makes it that category, which says nothing about which photo is meant; adapting to pairs
takes it from them (``inner.py``). Its photos share it too. ``o`` [D] is the mean of the mean photo outputs of the categories that
it was fitted on, so that what all photos have in common stays out of it; ``r`` is the share of the photos' part that is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgsbir_edge.arrays import Float32, frozen

REFERENCE = "start.reference"  # the tensor's name in head.safetensors


@dataclass(frozen=True, eq=False)
class Start:
    """The constants of the zero-sketch start, fitted by ``python -m training.zero_sketch``.

    Raises ValueError on a reference that is no vector of finite numbers and on a negative or infinite share.
    """

    reference: Float32  # o [D]
    share: float  # r

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference", frozen(self.reference))
        if self.reference.ndim != 1 or not np.isfinite(self.reference).all():
            raise ValueError(f"{REFERENCE} has shape {list(self.reference.shape)}, expected [D] of finite numbers")
        if not (np.isfinite(self.share) and self.share >= 0):
            raise ValueError(f"start_share is {self.share}, expected a finite number, 0 or more")

    def shift(self, common: Float32) -> Float32:
        """c [D], to be added to the outputs of sketches, from the mean output [D] of a category's photos."""
        change: Float32 = np.float32(-self.share) * (common - self.reference)
        return change
