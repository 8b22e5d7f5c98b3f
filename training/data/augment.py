"""Augmentation: vectors while they are vectors, pixels after.

Strokes allow what pixels do not: dropping a stroke, moving one alone, drawing thicker. Raster sketches get the nearest thing.
All randomness comes from the generator passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fgsbir_edge.sketch import Sketch


@dataclass(frozen=True)
class Affine:
    """Ranges of a random affine map: degrees, relative scale, shift as a share of the side, shear, independent x/y stretch."""

    degrees: float = 8.0
    scale: float = 0.12
    shift: float = 0.04
    shear: float = 0.06
    stretch: float = 0.08

    def sample(self, rng: np.random.Generator, flip: bool) -> np.ndarray:
        """A [2,3] float64 matrix that acts on coordinates in [-1,1]."""
        angle = np.deg2rad(rng.uniform(-self.degrees, self.degrees))
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        scale = np.exp(rng.uniform(-self.scale, self.scale)) * np.exp(rng.uniform(-self.stretch, self.stretch, 2))
        shear = np.array([[1.0, rng.uniform(-self.shear, self.shear)], [0.0, 1.0]])
        linear = rotation @ shear @ np.diag(scale * np.array([-1.0 if flip else 1.0, 1.0]))
        return np.concatenate([linear, rng.uniform(-2 * self.shift, 2 * self.shift, (2, 1))], axis=1)


SKETCH_AFFINE = Affine()
PHOTO_AFFINE = Affine(degrees=4.0, scale=0.08, shift=0.03, shear=0.0, stretch=0.03)


def augment_strokes(sketch: Sketch, rng: np.random.Generator, flip: bool) -> Sketch:
    """A redrawn version of a centred sketch on the 256 canvas: strokes dropped and moved, the whole warped."""
    strokes = [np.array(stroke) for stroke in sketch.strokes]
    if len(strokes) > 3:
        kept = [stroke for stroke in strokes if rng.random() > 0.1]
        strokes = kept if len(kept) >= 2 else strokes
    matrix = SKETCH_AFFINE.sample(rng, flip)
    moved = []
    for stroke in strokes:
        jitter = rng.normal(0.0, 1.5, (1, 2)) + (stroke - stroke.mean(0)) * rng.normal(0.0, 0.02)
        unit = (stroke + jitter - 128.0) / 128.0
        moved.append((unit @ matrix[:, :2].T + matrix[:, 2]) * 128.0 + 128.0)
    return Sketch.from_strokes(moved)


def warp(images: Tensor, matrices: np.ndarray, size: int, *, outside: float | None) -> Tensor:
    """Resample images [B,c,H,W] through affine maps [B,2,3] (source to target, coordinates in [-1,1]) to [B,c,size,size].

    `outside` fills what falls beyond the image; None repeats the border.
    """
    linear = np.linalg.inv(matrices[:, :, :2])
    inverse = np.concatenate([linear, -linear @ matrices[:, :, 2:]], axis=2)
    grid = F.affine_grid(torch.from_numpy(inverse).float(), [len(images), images.shape[1], size, size], align_corners=False)
    if outside is None:
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return F.grid_sample(images - outside, grid, align_corners=False) + outside


def augment_ink(ink: Tensor, rng: np.random.Generator) -> Tensor:
    """Line width and missing pieces for raster sketches: ink [B,1,S,S] in [0,1] -> the same."""
    out = ink
    for index in range(len(ink)):
        draw = rng.random()
        if draw < 0.3:
            out[index] = F.max_pool2d(ink[index], 3, 1, 1)
        elif draw < 0.45:
            out[index] = -F.max_pool2d(-F.max_pool2d(ink[index], (2, 1), 1, (1, 0))[..., :-1, :], (2, 1), 1, (1, 0))[..., 1:, :]
        if rng.random() < 0.3:
            side = ink.shape[-1]
            height, width = (int(side * rng.uniform(0.08, 0.22)) for _ in range(2))
            top, left = int(rng.integers(0, side - height)), int(rng.integers(0, side - width))
            out[index, :, top : top + height, left : left + width] = 0.0
    return out


def augment_colour(photos: Tensor, rng: np.random.Generator) -> Tensor:
    """Grey, brightness, contrast and channel gains, since no sketch has colour: photos [B,3,S,S] in [0,1] -> the same."""
    count = len(photos)
    grey = torch.from_numpy((rng.random((count, 1, 1, 1)) < 0.35).astype(np.float32))
    luminance = (photos * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    photos = photos + grey * (luminance - photos)
    contrast = torch.from_numpy(rng.uniform(0.75, 1.25, (count, 1, 1, 1)).astype(np.float32))
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (count, 3, 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-0.1, 0.1, (count, 1, 1, 1)).astype(np.float32))
    return (((photos - 0.5) * contrast + 0.5) * gain + shift).clamp(0.0, 1.0)
