"""The predicted margin: a small network that looks at a task's support triplets and says how hard to push (METHODS C.5).

For each support triplet x = [β⁺, β⁻, β⁻ - β⁺], where β are distances between base embeddings; then

    h_i = ReLU(W₁ x_i + b₁)                       per triplet           [t, h]
    s   = [mean_i h_i, std_i h_i]                 whatever the order    [2h]
    μ   = sigmoid(W₃ ReLU(W₂ s + b₂) + b₃)        the task's margin, in (0, 1)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from math import exp

import numpy as np

from fgsbir_edge.arrays import Float32, frozen

VARIANCE_FLOOR = 1e-8  # inside the square root, so that a single triplet has a finite gradient in training


@dataclass(frozen=True, eq=False)
class MarginNet:
    """Weights of the margin network, float32, read-only. ``h`` is the hidden width."""

    w1: Float32  # [h, 3]
    b1: Float32  # [h]
    w2: Float32  # [h, 2h]
    b2: Float32  # [h]
    w3: Float32  # [1, h]
    b3: Float32  # [1]

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, frozen(getattr(self, field.name)))
        h = self.w1.shape[0]
        wanted = {"w1": (h, 3), "b1": (h,), "w2": (h, 2 * h), "b2": (h,), "w3": (1, h), "b3": (1,)}
        for name, shape in wanted.items():
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(f"margin.{name} has shape {list(got)}, expected {list(shape)}")

    def tensors(self) -> dict[str, Float32]:
        """The weights by their names in ``head.safetensors``: margin.w1 ... margin.b3."""
        return {f"margin.{field.name}": getattr(self, field.name) for field in fields(self)}

    @cached_property
    def packed(self) -> Float32:
        """All weights one after another, w1 to b3, as the native core takes them: [2 h h + 6 h + 1]."""
        return frozen(np.concatenate([getattr(self, field.name).ravel() for field in fields(self)]))

    def predict(self, positive: Float32, negative: Float32) -> float:
        """Margin in (0, 1) for a task with base distances ``positive`` [t] (anchor to its photo) and ``negative`` [t]; t >= 1.

        Adaptation has the native core do this; here it is for reading and for checks.
        """
        x = np.stack([positive, negative, negative - positive], axis=1).astype(np.float32)
        hidden = np.maximum(x @ self.w1.T + self.b1, 0.0)
        summary = np.concatenate([hidden.mean(axis=0), np.sqrt(hidden.var(axis=0) + VARIANCE_FLOOR)])
        logit = float((np.maximum(summary @ self.w2.T + self.b2, 0.0) @ self.w3.T + self.b3)[0])
        return 1.0 / (1.0 + exp(-logit)) if logit >= 0 else exp(logit) / (1.0 + exp(logit))  # neither form overflows
