"""The inner loop and its guard in NumPy float64, written for reading. ``csrc/adapt_*.cpp`` must agree.

``adapt`` takes W and b through every step and recomputes U from the features; ``adapt_in_span`` keeps only the outputs U and the
coefficients A, as the native loop does. That the two agree shows the short form to be exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgsbir_edge.margin import VARIANCE_FLOOR, MarginNet
from fgsbir_edge.ranking import rank_of

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
    momentum: float = 0.0,
    shifts: ArrayLike = 0.0,
) -> tuple[Float64, Float64, Float64]:
    """Gradient descent on W [D, C] and b [D] over support features X [m, C].

    Args:
        moves: [m]; an item with 0 keeps its first output and gives no gradient to the head.
        step_sizes: [T].
        loss: (margin, sharpness).
        momentum: beta of V = beta V + gradient.
        shifts: [m, D] that outputs have beside X W^T + b throughout.

    Returns:
        W after the last step [D, C], b [D], and the losses [T+1]: before each step and after the last.
    """
    w, b, x = (np.array(a, dtype=np.float64) for a in (weight, bias, features))
    moving = np.asarray(moves).astype(np.bool_)[:, None]
    fixed = np.asarray(shifts, dtype=np.float64)
    first = x @ w.T + b + fixed
    losses = []
    velocity = np.zeros_like(first)
    for step_size in np.asarray(step_sizes, dtype=np.float64):
        value, gradient = loss_and_gradient(np.where(moving, x @ w.T + b + fixed, first), triplets, *loss)
        losses.append(value)
        velocity = momentum * velocity + np.where(moving, gradient, 0.0)
        w -= step_size * velocity.T @ x
        b -= step_size * velocity.sum(axis=0)
    losses.append(loss_and_gradient(np.where(moving, x @ w.T + b + fixed, first), triplets, *loss)[0])
    return w, b, np.array(losses)


def adapt_in_span(
    outputs: ArrayLike,
    gram: ArrayLike,
    triplets: NDArray[Any],
    moves: ArrayLike,
    step_sizes: ArrayLike,
    loss: tuple[float, float],
    momentum: float = 0.0,
) -> tuple[Float64, Float64, Float64]:
    """The same from outputs U [m, D] and K = X X^T + 1 [m, m].

    Returns coefficients A^T [m, D], outputs after the last step [m, D], and the losses [T+1].
    """
    u, k = (np.array(a, dtype=np.float64) for a in (outputs, gram))
    moving = np.asarray(moves).astype(np.bool_)[:, None]
    coefficients, velocity, losses = np.zeros_like(u), np.zeros_like(u), []
    for step_size in np.asarray(step_sizes, dtype=np.float64):
        value, gradient = loss_and_gradient(u, triplets, *loss)
        losses.append(value)
        velocity = momentum * velocity + np.where(moving, gradient, 0.0)
        coefficients -= step_size * velocity
        u -= np.where(moving, step_size * k @ velocity, 0.0)
    losses.append(loss_and_gradient(u, triplets, *loss)[0])
    return coefficients, u, np.array(losses)


def predict_margin(net: MarginNet, outputs: ArrayLike, triplets: NDArray[Any]) -> float:
    """The margin that the network gives a task with these base outputs [m, D] and triplets [t, 3] (METHODS C.5)."""
    u = np.asarray(outputs, dtype=np.float64)
    z = u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), FLOOR)
    anchor, positive, negative = (z[rows] for rows in triplets.T)
    near, far = (np.sqrt(np.maximum(((anchor - other) ** 2).sum(axis=1), FLOOR)) for other in (positive, negative))
    w1, b1, w2, b2, w3, b3 = (np.asarray(tensor, np.float64) for tensor in net.tensors().values())
    hidden = np.maximum(np.stack([near, far, far - near], axis=1) @ w1.T + b1, 0.0)
    summary = np.concatenate([hidden.mean(axis=0), np.sqrt(hidden.var(axis=0) + VARIANCE_FLOOR)])
    return float(1.0 / (1.0 + np.exp(-(np.maximum(summary @ w2.T + b2, 0.0) @ w3.T + b3)[0])))


def centre_shift(outputs: ArrayLike, prior: float) -> Float64:
    """The shift [D] of sketches, from k sketches' first outputs [k, D]: -k / (k + prior) times their mean."""
    u = np.asarray(outputs, dtype=np.float64)
    shift: Float64 = -u.sum(axis=0) / (len(u) + prior)
    return shift


@dataclass(frozen=True)
class Descent:
    """How ``leave_one_out`` descends; ``margin`` is a number or the network to ask."""

    side: str
    negatives: str
    step_sizes: ArrayLike
    margin: float | MarginNet
    sharpness: float
    momentum: float = 0.0
    centre: float = np.inf


def leave_one_out(
    head: tuple[ArrayLike, ArrayLike],
    sketches: ArrayLike,
    photos: ArrayLike,
    others: ArrayLike,
    candidates: ArrayLike,
    how: Descent,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks [k] of each pair's photo among ``candidates`` [N, C] before, and after adapting on all other pairs, by the full head.

    head is (W [D, C], b [D]); sketches [k, C]; photos [k, C], all of them among the candidates; others [n, C] are further
    negatives for ``negatives`` "gallery", which also knows the photo of the pair left out.
    """
    weight, bias = (np.asarray(array, np.float64) for array in head)
    s, p, gallery = (np.asarray(array, np.float64) for array in (sketches, photos, candidates))
    rows, place = np.unique(np.concatenate([p, np.asarray(others, np.float64)]), axis=0, return_inverse=True)
    place = place.reshape(-1)
    own = [int(np.flatnonzero((gallery == photo).all(axis=1))[0]) for photo in p]
    k = len(s)
    x = np.concatenate([s, rows])
    moves = np.arange(len(x)) < (len(x) if how.side == "both" else k)
    base, adapted = [], []
    for left in range(k):
        rest = [pair for pair in range(k) if pair != left]
        pool = sorted({int(place[pair]) for pair in rest}) if how.negatives == "support" else range(len(rows))
        chosen = [(pair, k + place[pair], k + other) for pair in rest for other in pool if other != place[pair]]
        triplets = np.array(chosen, dtype=np.int64).reshape(-1, 3)
        base.append(_rank(weight, bias, s[left], gallery @ weight.T + bias, own[left]))
        shift = centre_shift(s[rest] @ weight.T + bias, how.centre)
        shifts = np.where(np.arange(len(x))[:, None] < k, shift, 0.0)
        w, b = weight, bias
        if len(triplets):
            margin = how.margin
            if isinstance(margin, MarginNet):
                margin = predict_margin(margin, x @ weight.T + bias + shifts, triplets)
            loss = margin, how.sharpness
            w, b, _ = adapt(weight, bias, x, triplets, moves, how.step_sizes, loss, how.momentum, shifts)
        changed = gallery @ w.T + b if how.side == "both" else gallery @ weight.T + bias
        adapted.append(_rank(w, b + shift, s[left], changed, own[left]))
    return np.array(base), np.array(adapted)


def _rank(weight: Float64, bias: Float64, sketch: Float64, outputs: Float64, own: int) -> int:
    """Rank of candidate ``own`` for a sketch [C], given the candidates' outputs [N, D]."""
    query = weight @ sketch + bias
    unit = outputs / np.maximum(np.linalg.norm(outputs, axis=1, keepdims=True), FLOOR)
    return rank_of(unit @ (query / max(float(np.linalg.norm(query)), FLOOR)), own)
