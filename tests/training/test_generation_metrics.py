"""Figures of generated sketches: against closed forms, SciPy's matrix root, and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from fgsbir_edge.errors import NonFiniteError, ShapeError
from training.evaluate_retrieval import Bootstrap
from training.generation import metrics
from training.generation.metrics import class_ranks, distance_figures, frechet_distance, half_distance, recognition_figures

pytestmark = pytest.mark.torch


def gaussian(count: int, mean: np.ndarray, deviation: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rows [count, C] whose sample mean and diagonal sample covariance are exactly these."""
    rows = np.random.default_rng(seed).standard_normal((count, len(mean)))
    rows -= rows.mean(0)
    unit = np.linalg.qr(rows)[0] * np.sqrt(count - 1)
    exact: np.ndarray = unit * deviation + mean
    return exact


@pytest.mark.parametrize("count", [9, 40])  # fewer and more rows than a triangle has
def test_diagonal_gaussians_have_their_closed_form(count: int) -> None:
    means = np.array([0.0, 1.0, -2.0, 3.0]), np.array([0.5, 1.0, 2.0, 3.0])
    deviations = np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 2.0, 1.5, 0.1])
    first, second = (gaussian(count, means[side], deviations[side], side) for side in (0, 1))
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((deviations[0] - deviations[1]) ** 2)
    assert frechet_distance(first, second) == pytest.approx(expected)
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((4, 4)))[0]
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(expected)


def test_a_shift_counts_squared_and_nothing_else() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    shift = np.arange(6, dtype=np.float32)
    assert frechet_distance(rows, rows) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(rows, rows + shift) == pytest.approx(float(np.sum(shift**2)), rel=1e-5)


@pytest.mark.parametrize(("first", "second", "width"), [(50, 70, 8), (5, 6, 8), (5, 70, 8)])
def test_the_trace_is_that_of_the_matrix_root(first: int, second: int, width: int) -> None:
    rng = np.random.default_rng(1)
    one, two = rng.standard_normal((first, width)) @ rng.standard_normal((width, width)), rng.standard_normal((second, width)) + 1
    covariances = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    if min(first, second) > width:
        root = float(np.trace(sqrtm(covariances[0] @ covariances[1])).real)
    else:  # a root of a singular matrix need not exist; its eigenvalues do
        root = float(np.sqrt(np.clip(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0, None)).sum())
    expected = np.sum((one.mean(0) - two.mean(0)) ** 2) + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
    assert frechet_distance(one, two) == pytest.approx(float(expected), rel=1e-6)
    assert frechet_distance(two, one) == pytest.approx(float(expected), rel=1e-6)


def test_few_rows_are_biased_upwards_and_the_halves_show_it() -> None:
    rows = np.random.default_rng(0).standard_normal((800, 10))
    small, large = frechet_distance(rows[:20], rows[20:40]), frechet_distance(rows[:400], rows[400:])
    assert small > 5 * large > 0  # the same distribution on both sides
    assert half_distance(rows[:40]) == pytest.approx(small, rel=0.5)
    assert half_distance(rows[:40], seed=3) == half_distance(rows[:40], seed=3) != half_distance(rows[:40], seed=4)


def test_fid_says_how_many_and_warns_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    real, drawn = rng.standard_normal((12, 3)), rng.standard_normal((30, 3)) + 2
    found = distance_figures(real, drawn)
    assert {"real": 12, "drawn": 30, "dimensions": 3}.items() <= found.items()
    assert found["fid"] == round(frechet_distance(real, drawn), 4) > found["fid_real_halves"]
    assert "biased upwards" in found["note"]
    monkeypatch.setattr(metrics, "FEW", 12)
    assert "note" not in distance_figures(real, drawn)


def test_rows_that_do_not_fit() -> None:
    rows = np.zeros((5, 3))
    for first, second in ((rows, np.zeros((5, 4))), (rows[:1], rows), (rows[0], rows)):
        with pytest.raises(ShapeError, match="expected"):
            frechet_distance(first, second)
    with pytest.raises(NonFiniteError, match="NaN"):
        frechet_distance(rows, rows + np.nan)
    with pytest.raises(ShapeError, match="too few to halve"):
        half_distance(rows[:3])


def test_ranks_of_categories_count_ties_and_nan_against() -> None:
    logits = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0], [np.nan, 2.0, 1.0], [3.0, np.nan, 2.0]])
    assert class_ranks(logits, np.array([2, 0, 1, 1])).tolist() == [2, 3, 2, 3]


def test_recognition_by_hand() -> None:
    categories = ("bird", "chair", "dog")
    logits = np.eye(3)[[1, 1, 0, 2, 0]] + np.array([0.0, 0.1, 0.2])
    truth = ["chair", "chair", "chair", "chair", "dog"]
    found = recognition_figures(logits, truth, categories, ["a", "a", "b", "b", "c"], Bootstrap(draws=50))
    assert (found["sketches"], found["categories"]) == (5, 3)
    assert found["acc@1"] == 40.0
    assert found["acc@10"] == 100.0
    low, high = found["acc@1_interval"]
    assert low <= 40.0 <= high
    assert found["mean_by_category"] == {"categories": 2, "acc@1": 25.0}  # half of the chairs, no dog
    assert found["taken_for"] == {"bird": 40.0, "dog": 20.0}
    alone = recognition_figures(logits[:2], truth[:2], categories, ["a", "a"], Bootstrap())
    assert alone["acc@1_interval"] is None  # one photo: nothing to resample
