"""The core's search operations against their NumPy twins, with every instruction set that this processor has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge import _native
from fgsbir_edge._reference import search as twin
from fgsbir_edge.gallery.flat import BLOCK, largest


def unit(count: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("width", [1, 7, 16, 33, 64, 512])
@pytest.mark.parametrize("count", [1, 5, 1037])
def test_top_products_are_the_twins(count: int, width: int, half: bool) -> None:
    exact = unit(count, width, 0)
    rows = exact.astype(np.float16).view(np.uint16) if half else exact
    values = exact.astype(np.float16) if half else exact
    allowed = np.random.default_rng(1).random(count) < 0.7
    allowed[0] = True
    for batch, mask in ((1, None), (1, allowed), (3, None), (70, allowed)):
        queries = unit(batch, width, 2)
        left = count if mask is None else int(mask.sum())
        for best in sorted({1, min(26, left), left}):
            products, places = _native.top_products(rows, queries, best, mask)
            wanted, _ = twin.top_products(values, queries, best, mask)
            np.testing.assert_allclose(products, wanted, atol=1e-6)
            own = np.take_along_axis(queries.astype(np.float64) @ values.T.astype(np.float64), places, axis=1)
            np.testing.assert_allclose(products, own, atol=1e-6)  # places are those of the products
            assert all(len(set(row)) == best for row in places.tolist())
            assert mask is None or mask[places].all()


@pytest.mark.parametrize("batch", [1, 5])
def test_equal_products_come_in_order_and_threads_change_nothing(batch: int) -> None:
    rows = np.repeat(unit(40, 8, 0), 100, axis=0)
    queries = unit(batch, 8, 1)
    for best in (3, 150, 4000):
        one = _native.top_products(rows, queries, best)
        for products, places in zip(*one, strict=True):
            ties = np.diff(products) == 0
            assert ties.sum() >= best - 41
            assert (np.diff(places)[ties] > 0).all()
        for threads in (2, 7):
            for got, wanted in zip(_native.top_products(rows, queries, best, None, threads), one, strict=True):
                np.testing.assert_array_equal(got, wanted)


def test_rows_in_ascending_order_and_nan() -> None:
    """The worst order for a threshold: every row is better than all before it."""
    rows = np.linspace(0, 1, 5000, dtype=np.float32)[:, None]
    rows[-1] = np.nan
    products, places = _native.top_products(rows, np.ones((1, 1), np.float32), 7)
    assert places.tolist() == [list(range(4998, 4991, -1))]
    assert products[0, 0] == rows[4998, 0]
    _, places = _native.top_products(np.full((20, 3), np.nan, np.float32), np.ones((1, 3), np.float32), 20)
    assert sorted(places[0].tolist()) == list(range(20))


def test_adapted_products_and_embeddings_are_the_twins() -> None:
    rng = np.random.default_rng(0)
    for width, factors in ((3, 1), (40, 10), (1280, 33)):
        features = rng.normal(size=(200, width)).astype(np.float16)
        places, support = rng.integers(0, 200, 150), rng.normal(size=(factors, width)).astype(np.float32)
        coefficients = (rng.normal(size=(24, factors)) / width).astype(np.float32)
        embeddings, lengths = unit(200, 24, 1), rng.uniform(0.5, 2.0, 200).astype(np.float32)
        query = unit(1, 24, 2)[0]
        got = _native.adapted_products(embeddings, lengths, features.view(np.uint16), support, coefficients, places, query)
        some = embeddings[places], lengths[places], features[places]
        np.testing.assert_allclose(got, twin.adapted_products(*some, support, coefficients, query), atol=2e-6)
        weight, bias = rng.normal(size=(factors, width)).astype(np.float32), rng.normal(size=factors).astype(np.float32)
        features = rng.normal(size=(9, width)).astype(np.float32)
        unit_rows = _native.embed_rows(weight, bias, features)
        np.testing.assert_allclose(unit_rows, twin.embed_rows(weight, bias, features), atol=2e-6)
    zero = _native.embed_rows(np.zeros((4, 3), np.float32), np.zeros(4, np.float32), np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(zero, np.zeros((1, 4)))


def test_wrong_arguments_are_refused() -> None:
    rows, queries = np.zeros((4, 3), np.float32), np.zeros((1, 3), np.float32)
    for message, arguments in {
        "expected C-contiguous float32 or uint16": (rows.astype(np.float64), queries, 1),
        "3 columns": (rows, np.zeros((1, 2), np.float32), 1),
        "count is 5": (rows, queries, 5),
        "count is 0": (rows, queries, 0),
        "count is 2, expected 1 to the 1 rows": (rows, queries, 2, np.array([True, False, False, False])),
        "4 entries": (rows, queries, 1, np.ones(3, np.bool_)),
        "bool": (rows, queries, 1, np.ones(4, np.uint8)),
    }.items():
        with pytest.raises(ValueError, match=message):
            _native.top_products(*arguments)
    good = {
        "embeddings": np.zeros((4, 2), np.float32),
        "lengths": np.ones(4, np.float32),
        "features": np.zeros((4, 3), np.uint16),
        "support": np.zeros((5, 3), np.float32),
        "coefficients": np.zeros((2, 5), np.float32),
        "places": np.array([0, 3]),
        "query": np.zeros(2, np.float32),
    }
    assert _native.adapted_products(**good).tolist() == [0.0, 0.0]
    for name, bad in {
        "lengths": np.ones(3, np.float32),
        "features": np.zeros((3, 3), np.uint16),
        "support": np.zeros((5, 4), np.float32),
        "coefficients": np.zeros((3, 5), np.float32),
        "places": np.array([0, 4]),
        "query": np.zeros(3, np.float32),
    }.items():
        with pytest.raises(ValueError, match=name):
            _native.adapted_products(**{**good, name: bad})
    with pytest.raises(ValueError, match="3 columns"):
        _native.embed_rows(rows, np.zeros(4, np.float32), np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("length", [40, BLOCK * 160, BLOCK * 160 + 5])
def test_numpys_own_selection(length: int, count: int) -> None:
    rng = np.random.default_rng(length + count)
    for row in (rng.normal(size=length), np.arange(length), np.round(rng.normal(size=length), 1), np.zeros(length)):
        values = row.astype(np.float32)
        values[rng.random(length) < 0.05] = -np.inf
        assert largest(values, count).tolist() == np.argsort(-values, kind="stable")[:count].tolist()


@pytest.mark.parametrize("level", ["baseline", "avx2"])
def test_with_other_instructions(level: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "twins or order", "tests/test_search_native.py"],
        env={**os.environ, "FGSBIR_SIMD": level},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert run.returncode == 0, run.stdout
