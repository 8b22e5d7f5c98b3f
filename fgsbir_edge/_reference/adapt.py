"""The inner loop in NumPy float64, on the full weight matrix: no Gram matrix, no span. ``csrc/adapt_cpu.cpp`` must agree.

The native loop keeps only the outputs U and the coefficients A; this one takes W and b through every step and recomputes U from
the features, so that their agreement shows the short form to be exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

FLOOR = 1e-12  # of squared distances and of norms


def softplus(x: Float64, sharpness: float) -> Float64:
    """log(1 + exp(b x)) / b, or the hinge max(0, x) for b = 0 (METHODS C.5)."""
    return np.maximum(x, 0.0) if sharpness == 0 else np.logaddexp(0.0, sharpness * x) / sharpness


def softplus_slope(x: Float64, sharpness: float) -> Float64:
    """Derivative of :func:`softplus`: the sigmoid of b x, or 1 where x > 0."""
    if sharpness == 0:
        return (x > 0).astype(np.float64)
    slope: Float64 = 0.5 * (1.0 + np.tanh(0.5 * sharpness * x))
    return slope


def loss_and_gradient(outputs: ArrayLike, triplets: NDArray[Any], margin: float, sharpness: float) -> tuple[float, Float64]:
    """Triplet loss L of outputs U [m, D] over triplets [t, 3] (anchor, positive, negative), and dL/dU [m, D].

    L = mean softplus_b(margin + d(a, p) - d(a, n)), d = sqrt(max(|z - z'|^2, 1e-12)), z = u / max(|u|, 1e-12).
    """
    u = np.asarray(outputs, dtype=np.float64)
    lengths = np.linalg.norm(u, axis=1, keepdims=True)
    norms = np.maximum(lengths, FLOOR)
    z = u / norms
    anchor, positive, negative = triplets.T
    away_from_positive, away_from_negative = z[anchor] - z[positive], z[anchor] - z[negative]
    squared = np.stack([(away_from_positive**2).sum(axis=1), (away_from_negative**2).sum(axis=1)])
    distance = np.sqrt(np.maximum(squared, FLOOR))
    excess = margin + distance[0] - distance[1]

    slope = softplus_slope(excess, sharpness) / len(triplets)
    pull, push = np.where(squared < FLOOR, 0.0, slope / distance)  # a distance at its floor does not change
    dz = np.zeros_like(z)
    np.add.at(dz, anchor, pull[:, None] * away_from_positive - push[:, None] * away_from_negative)
    np.add.at(dz, positive, -pull[:, None] * away_from_positive)
    np.add.at(dz, negative, push[:, None] * away_from_negative)
    radial = np.where(lengths > FLOOR, (z * dz).sum(axis=1, keepdims=True), 0.0)
    return float(softplus(excess, sharpness).mean()), (dz - z * radial) / norms


def adapt(
    weight: ArrayLike,
    bias: ArrayLike,
    features: ArrayLike,
    triplets: NDArray[Any],
    moves: ArrayLike,
    step_sizes: ArrayLike,
    loss: tuple[float, float],
) -> tuple[Float64, Float64, Float64]:
    """Gradient descent on W [D, C] and b [D] over support features X [m, C].

    Args:
        moves: [m]; an item with 0 keeps its first output and gives no gradient to the head.
        step_sizes: [T].
        loss: (margin, sharpness).

    Returns:
        W after the last step [D, C], b [D], and the losses [T+1]: before each step and after the last.
    """
    w, b, x = (np.array(a, dtype=np.float64) for a in (weight, bias, features))
    moving = np.asarray(moves).astype(np.bool_)[:, None]
    first = x @ w.T + b
    losses = []
    for step_size in np.asarray(step_sizes, dtype=np.float64):
        value, gradient = loss_and_gradient(np.where(moving, x @ w.T + b, first), triplets, *loss)
        losses.append(value)
        gradient = np.where(moving, gradient, 0.0)
        w -= step_size * gradient.T @ x
        b -= step_size * gradient.sum(axis=0)
    losses.append(loss_and_gradient(np.where(moving, x @ w.T + b, first), triplets, *loss)[0])
    return w, b, np.array(losses)
