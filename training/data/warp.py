"""Augmentation of pixels: photos, and raster sketches, which get the nearest thing to what strokes allow."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fgsbir_edge.sketch import CANVAS
from training.data.augment import Augmentation

FloatArray = NDArray[np.float64]

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
_ERASED = (0.08, 0.22)  # side of an erased rectangle as a share of the image's


def sampling_grid(matrices: FloatArray, size: int, displacement: Tensor | None = None) -> Tensor:
    """Where in the source each pixel of a size x size result lies: float32 [B,size,size,2] in [-1,1], for grid_sample.

    `matrices` [B,2,3] map source to result. `displacement` [B,2,size,size] in canvas units moves things in the result after that:
    the point looked up is the inverse map of (pixel - displacement), which for slow displacements is what moving points gives.
    """
    linear = np.linalg.inv(matrices[:, :, :2])
    shift = -linear @ matrices[:, :, 2:]
    a = torch.from_numpy(linear.astype(np.float32))
    t = torch.from_numpy(shift.astype(np.float32))
    centres = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    across = a[:, :, :1] * centres + t  # [B,2,size]: the part that depends on x
    down = a[:, :, 1:] * centres
    grid = across[:, :, None, :] + down[:, :, :, None]  # [B,2,size,size]
    if displacement is not None:
        for axis in range(2):
            grid.addcmul_(displacement[:, axis, None], a[:, :, axis, None, None], value=-2.0 / CANVAS)
    return grid.permute(0, 2, 3, 1)


def warp(images: Tensor, grid: Tensor, *, border: bool) -> Tensor:
    """Images [B,c,H,W] looked up bilinearly at `grid` [B,S,S,2] -> [B,c,S,S]; beyond the image its border goes on, or zeros."""
    return F.grid_sample(images, grid, padding_mode="border" if border else "zeros", align_corners=False)


def worn(ink: Tensor, options: Augmentation, rng: np.random.Generator) -> Tensor:
    """Raster lines thicker or thinner, and a piece missing: ink [B,1,S,S] in [0,1] -> the same. Changes `ink`.

    An erasure that would take more than half of the ink is left out, so that a drawing stays a drawing.
    """
    count, side = len(ink), ink.shape[-1]
    draw, share = rng.random(count), rng.uniform(0.4, 1.0, count)
    for rows, change in (
        (np.flatnonzero(draw < options.thicken), grown),
        (np.flatnonzero((draw >= options.thicken) & (draw < options.thicken + options.thin)), shrunk),
    ):
        if len(rows):
            index = torch.from_numpy(rows)
            before = ink[index]
            ink[index] = before.lerp(change(before), _column(share[rows]))
    for row in np.flatnonzero(rng.random(count) < options.erase).tolist():
        height, width = (max(1, int(side * rng.uniform(*_ERASED))) for _ in range(2))
        top, left = int(rng.integers(0, side - height)), int(rng.integers(0, side - width))
        piece = ink[row, :, top : top + height, left : left + width]
        if 2 * float(piece.sum()) < float(ink[row].sum()):
            piece.zero_()
    return ink


def grown(ink: Tensor) -> Tensor:
    """The largest value of each 3 x 3 block: a pixel more on either side of a line. [B,1,S,S] -> the same."""
    wide = _largest(F.pad(ink, (1, 1)), -1)
    return _largest(F.pad(wide, (0, 0, 1, 1)), -2)


def shrunk(ink: Tensor) -> Tensor:
    """Half a pixel less on either side of a line: the smallest of each 2 x 2 block, half a pixel off. [B,1,S,S] -> the same."""
    wide = torch.minimum(ink[..., :-1], ink[..., 1:])
    both = torch.minimum(wide[..., :-1, :], wide[..., 1:, :])
    return F.pad(both, (0, 1, 0, 1))


def _largest(padded: Tensor, axis: int) -> Tensor:
    length = padded.shape[axis] - 2
    parts = [padded.narrow(axis, start, length) for start in range(3)]
    return torch.maximum(torch.maximum(parts[0], parts[1]), parts[2])


def recoloured(photos: Tensor, options: Augmentation, rng: np.random.Generator) -> Tensor:
    """Grey, contrast, channel gains and brightness, in this order: photos [B,3,S,S] in [0,1] -> the same. Changes `photos`."""
    count = len(photos)
    grey = np.flatnonzero(rng.random(count) < options.grey)
    contrast = 1.0 + rng.uniform(-options.contrast, options.contrast, (count, 1))
    gain = 1.0 + rng.uniform(-options.gain, options.gain, (count, 3))
    shift = rng.uniform(-options.brightness, options.brightness, (count, 1))
    if len(grey):
        index = torch.from_numpy(grey)
        red, green, blue = (weight * photos[index, channel] for channel, weight in enumerate(LUMINANCE))
        photos[index] = (red + green + blue)[:, None]
    factor, offset = contrast * gain, (0.5 - 0.5 * contrast) * gain + shift
    return photos.mul_(_column(factor)).add_(_column(offset)).clamp_(0.0, 1.0)


def _column(values: FloatArray) -> Tensor:
    """[B] or [B,C] numbers as float32 [B,C or 1,1,1]."""
    return torch.from_numpy(np.asarray(values, np.float32).reshape(len(values), -1, 1, 1))
