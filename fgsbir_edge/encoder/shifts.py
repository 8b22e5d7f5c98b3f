"""Photos encoded several times over, each copy shifted by a few pixels, and the mean taken.

Strides make a network's features depend on where its sampling grid falls on an object. Averaging over shifts takes that out of
the gallery's side, where it costs time once for each photo and none for a query.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fgsbir_edge.arrays import Float32

Encode = Callable[[Float32], Float32]  # pixels [B, 3, S, S] -> rows [B, C]
_PART = 6  # photos encoded at a time: bounds the memory of their copies


def encode_shifted(encode: Encode, pixels: Float32, shift: int) -> Float32:
    """Rows [B, C] of photos float32 [B, 3, S, S]: the mean over each one as it is and shifted left, right, up and down.

    A shift is by `shift` pixels (0: none, the same as ``encode``) and repeats the edge that it uncovers. The mean is scaled to
    the rows' average length, so unit rows stay unit rows. Raises what ``encode`` raises.
    """
    if not shift or not len(pixels):
        return encode(pixels)
    means = []
    for start in range(0, len(pixels), _PART):
        part = pixels[start : start + _PART]
        copies = shifted(part, shift)
        rows = encode(copies.reshape(-1, *part.shape[1:])).reshape(len(copies), len(part), -1)
        mean = rows.mean(axis=0)
        wanted = np.linalg.norm(rows, axis=-1).mean(axis=0)
        means.append(mean * (wanted / np.maximum(np.linalg.norm(mean, axis=-1), np.finfo(np.float32).tiny))[:, None])
    return np.concatenate(means).astype(np.float32, copy=False)


def shifted(pixels: Float32, shift: int) -> Float32:
    """Copies [5, B, 3, S, S] of photos [B, 3, S, S]: as they are, and moved by `shift` pixels along each axis, edges repeated."""
    size = pixels.shape[-1]
    places = np.arange(size)
    lower, upper = np.minimum(places + shift, size - 1), np.maximum(places - shift, 0)
    return np.stack([pixels, pixels[..., lower], pixels[..., upper], pixels[..., lower, :], pixels[..., upper, :]])
