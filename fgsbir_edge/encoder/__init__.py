"""Pixels to features. Every backend keeps to one small protocol, so that the engine does not know which one it holds."""

from __future__ import annotations

from typing import Protocol

from fgsbir_edge.arrays import Float32


class Encoder(Protocol):
    """A frozen network: normalised pixels in, features out."""

    @property
    def size(self) -> int:
        """S, pixels a side of the input."""
        ...

    @property
    def features(self) -> int:
        """C, the width of the output."""
        ...

    def encode(self, pixels: Float32) -> Float32:
        """float32 [B, 3, S, S] -> float32 [B, C]; any B, also 0. Raises ShapeError, NonFiniteError."""
        ...
