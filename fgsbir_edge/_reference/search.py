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


def adapted_products(
    embeddings: ArrayLike, lengths: ArrayLike, features: ArrayLike, support: ArrayLike, coefficients: ArrayLike, query: ArrayLike
) -> Float64:
    """u · query / ||u||, u = e l + A (X f + 1): e [n, D], l [n], f [n, C], X [m, C], A [D, m], query [D] -> [n]."""
    inner = np.asarray(features, np.float64) @ np.asarray(support, np.float64).T + 1.0
    outputs = np.asarray(embeddings, np.float64) * np.asarray(lengths, np.float64)[:, None] + inner @ np.asarray(coefficients).T
    products: Float64 = outputs @ np.asarray(query, np.float64) / np.maximum(np.linalg.norm(outputs, axis=1), 1e-12)
    return products


def embed_rows(weight: ArrayLike, bias: ArrayLike, features: ArrayLike) -> Float64:
    """(W f + b) / ||W f + b||: weight [D, C], bias [D], features [N, C] -> [N, D]."""
    outputs = np.asarray(features, np.float64) @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)
    unit: Float64 = outputs / np.maximum(np.linalg.norm(outputs, axis=1, keepdims=True), 1e-12)
    return unit
