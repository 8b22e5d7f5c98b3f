"""Smooth random displacements: nobody draws a shape in exact proportion.

A field is the sum of a few plane waves with random direction, length, phase and strength. It is known everywhere, so strokes and
pixels are moved by the same one: points directly, images by looking up where each pixel came from. On a pixel grid the sine of a
sum splits into products of one row and one column, so that a field costs no sine per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgsbir_edge.sketch import CANVAS

WAVES = 3
WAVELENGTHS = (90.0, 320.0)  # canvas units: from a part of an object to the whole

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Waves:
    """B fields of K waves: frequency [B,K,2] in radians per canvas unit, phase [B,K,2] and strength [B,K,2] of x and y."""

    frequency: FloatArray
    phase: FloatArray
    strength: FloatArray

    @classmethod
    def sample(cls, rng: np.random.Generator, count: int, amplitude: float) -> Waves:
        """Fields whose waves have strengths of standard deviation `amplitude`, canvas units, in x and in y."""
        length, angle = rng.uniform(*WAVELENGTHS, (count, WAVES)), rng.uniform(0.0, 2 * np.pi, (count, WAVES))
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=2)
        phase = rng.uniform(0.0, 2 * np.pi, (count, WAVES, 2))
        return cls(direction * (2 * np.pi / length)[..., None], phase, rng.normal(0.0, amplitude, (count, WAVES, 2)))

    def at(self, row: int, points: FloatArray) -> FloatArray:
        """Displacement [P,2] of points [P,2] in field `row`, canvas units."""
        angle = (points @ self.frequency[row].T)[..., None] + self.phase[row]
        displacement: FloatArray = (np.sin(angle) * self.strength[row]).sum(axis=1)
        return displacement

    def on_grid(self, rows: NDArray[np.int64], size: int) -> Tensor:
        """Displacement of a size x size image's pixels in fields `rows` [n]: float32 [n,2,size,size], canvas units."""
        centres = (np.arange(size) + 0.5) * (CANVAS / size)
        frequency, phase, strength = self.frequency[rows], self.phase[rows], self.strength[rows]
        across = frequency[:, :, None, :1] * centres + phase[..., None]  # [n,K,2,size]
        down = frequency[:, :, None, 1:] * centres  # [n,K,1,size]
        tables = [strength[..., None] * np.sin(across), strength[..., None] * np.cos(across), np.cos(down), np.sin(down)]
        sin_x, cos_x, cos_y, sin_y = (torch.from_numpy(table.astype(np.float32)) for table in tables)
        field = torch.zeros(len(rows), 2, size, size)
        for wave in range(WAVES):  # not a matrix product: its rounding may depend on the number of threads
            field.addcmul_(sin_x[:, wave, :, None, :], cos_y[:, wave, :, :, None])
            field.addcmul_(cos_x[:, wave, :, None, :], sin_y[:, wave, :, :, None])
        return field
