"""Search among embeddings in NumPy float64, written for reading. ``csrc/flat_search.cpp`` must agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def top_products(
    rows: ArrayLike, queries: ArrayLike, count: int, allowed: NDArray[np.bool_] | None = None
) -> tuple[Float64, NDArray[np.int64]]:
    """The ``count`` largest inner products of each query [B, D] with rows [N, D], and whose they are: both [B, count].

    Descending, equal ones in the order of the rows; rows that are not ``allowed`` [N] are left out.
    """
    products = np.asarray(queries, np.float64) @ np.asarray(rows, np.float64).T
    if allowed is not None:
        products[:, ~allowed] = -np.inf
    places = np.argsort(-products, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(products, places, axis=1), places


def half_products(rows: NDArray[np.float16], places: ArrayLike, factors: ArrayLike) -> Float64:
    """rows[places] @ factorsᵀ: rows [N, C], places [n], factors [m, C] -> [n, m]."""
    products: Float64 = rows[np.asarray(places)].astype(np.float64) @ np.asarray(factors, np.float64).T
    return products


def embed_rows(weight: ArrayLike, bias: ArrayLike, features: ArrayLike) -> Float64:
    """(W f + b) / ||W f + b||: weight [D, C], bias [D], features [N, C] -> [N, D]."""
    outputs = np.asarray(features, np.float64) @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)
    unit: Float64 = outputs / np.maximum(np.linalg.norm(outputs, axis=1, keepdims=True), 1e-12)
    return unit
