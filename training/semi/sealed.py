"""Modules called through Fabric with arguments as they are.

In mixed precision Fabric turns every floating-point argument into bfloat16. Pixels do not mind; offsets of strokes, rewards and a
teacher's embeddings would lose two thirds of their digits.
"""

from __future__ import annotations

from typing import Any

from torch import nn


class Sealed:
    """Arguments of a call. No kind of collection that Fabric or DDP looks into."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


class Unsealing(nn.Module):
    """A module to be set up by Fabric and called with Sealed arguments."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, call: Sealed) -> Any:
        return self.module(*call.arguments)
