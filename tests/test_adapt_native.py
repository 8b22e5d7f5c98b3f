"""The native inner loop: against the full-matrix NumPy twin, against autograd, and at its edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fgsbir_edge import _native
from fgsbir_edge._reference import adapt as twin

MARGIN = 0.3
SMOOTH = 10.0
HINGE = 0.0


@dataclass(frozen=True)
class Task:
    """k sketches and k photos (rows 0..k-1 and k..2k-1) with features of width C, a head D x C, and all k (k-1) triplets."""

    weight: np.ndarray
    bias: np.ndarray
    features: np.ndarray
    triplets: np.ndarray
    moves: np.ndarray
    step_sizes: np.ndarray

    def native(self, sharpness: float, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = self.features
        outputs, gram = (x @ self.weight.T + self.bias).astype(dtype), (x @ x.T + 1).astype(dtype)
        return _native.adapt(outputs, gram, self.triplets, self.moves, self.step_sizes.astype(dtype), MARGIN, sharpness)

    def head_after(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """W + A X and b + A 1."""
        return self.weight + coefficients.T @ self.features, self.bias + coefficients.sum(axis=0)


def task(*, pairs: int = 5, steps: int = 1, step_size: float = 0.05, side: str = "both", seed: int = 0) -> Task:
    rng = np.random.default_rng(seed)
    width, dimensions = 48, 13  # a dimension that no vector register divides
    photos = rng.normal(size=(pairs, width)) / np.sqrt(width)
    sketches = photos + 0.8 * rng.normal(size=(pairs, width)) / np.sqrt(width)
    others = [(a, p) for a in range(pairs) for p in range(pairs) if a != p]
    return Task(
        weight=rng.normal(size=(dimensions, width)),
        bias=0.1 * rng.normal(size=dimensions),
        features=np.concatenate([sketches, photos]),
        triplets=np.array([(a, pairs + a, pairs + p) for a, p in others], dtype=np.int32),
        moves=np.repeat(np.array([1, side == "both"], np.uint8), pairs),
        step_sizes=np.full(steps, step_size),
    )


@pytest.mark.parametrize("steps", [0, 1, 20])
@pytest.mark.parametrize("side", ["both", "sketch"])
@pytest.mark.parametrize("sharpness", [HINGE, SMOOTH])
def test_float64_equals_full_matrix_descent(steps, side, sharpness):
    case = task(steps=steps, side=side)
    coefficients, outputs, losses = case.native(sharpness)
    weight, bias, expected = twin.adapt(
        case.weight, case.bias, case.features, case.triplets, case.moves, case.step_sizes, (MARGIN, sharpness)
    )
    assert losses.shape == (steps + 1,)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    got_weight, got_bias = case.head_after(coefficients)
    np.testing.assert_allclose(got_weight, weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got_bias, bias, rtol=0, atol=1e-12)
    moving = case.moves.astype(bool)
    first = case.features @ case.weight.T + case.bias
    after = np.where(moving[:, None], case.features @ weight.T + bias, first)
    np.testing.assert_allclose(outputs, after, rtol=0, atol=1e-12)
    assert not coefficients[~moving].any()
    if steps:
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("sharpness", [HINGE, SMOOTH])
def test_float32_bound(sharpness):
    """Twenty steps in float32 end within 1e-5 of float64, on outputs of size up to 4."""
    case = task(steps=20)
    exact, rough = case.native(sharpness), case.native(sharpness, np.float32)
    assert rough[0].dtype == rough[1].dtype == np.float32
    assert rough[2].dtype == np.float64
    for got, expected in zip(rough, exact, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_step_sizes_act_one_after_another():
    case = task(steps=3)
    steps = np.array([0.05, 0.0, 0.02])
    losses = Task(**{**vars(case), "step_sizes": steps}).native(SMOOTH)[2]
    assert losses[1] == losses[2]
    assert losses[3] < losses[2]


def test_a_single_pair_has_the_other_photos_as_negatives():
    case = task(pairs=3)
    one = Task(**{**vars(case), "triplets": np.array([(0, 3, 4), (0, 3, 5)], np.int32)})
    coefficients, _, losses = one.native(SMOOTH)
    assert losses[1] < losses[0]
    assert not coefficients[[1, 2]].any()  # sketches that no triplet names get no gradient


@pytest.mark.torch
@pytest.mark.parametrize("side", ["both", "sketch"])
@pytest.mark.parametrize("sharpness", [HINGE, SMOOTH])
def test_gradient_equals_autograd(side, sharpness):
    torch = pytest.importorskip("torch")
    case = task(steps=1, step_size=1.0, side=side)
    coefficients, _, losses = case.native(sharpness)

    weight, bias = (torch.tensor(array, requires_grad=True) for array in (case.weight, case.bias))
    features, moving = torch.tensor(case.features), torch.tensor(case.moves).bool()[:, None]
    outputs = features @ weight.T + bias
    z = torch.nn.functional.normalize(torch.where(moving, outputs, outputs.detach()), dim=1)
    anchor, positive, negative = torch.tensor(case.triplets).long().T
    near = (z[anchor] - z[positive]).square().sum(1).clamp_min(1e-12).sqrt()
    far = (z[anchor] - z[negative]).square().sum(1).clamp_min(1e-12).sqrt()
    excess = MARGIN + near - far
    penalty = torch.relu(excess) if sharpness == HINGE else torch.nn.functional.softplus(excess, beta=sharpness, threshold=1e9)
    penalty.mean().backward()

    assert losses[0] == pytest.approx(penalty.mean().item(), rel=1e-12)
    got_weight, got_bias = case.head_after(coefficients)
    scale = weight.grad.abs().max().item()
    np.testing.assert_allclose(case.weight - got_weight, weight.grad.numpy(), rtol=1e-6, atol=1e-9 * scale)
    np.testing.assert_allclose(case.bias - got_bias, bias.grad.numpy(), rtol=1e-6, atol=1e-9 * scale)


def test_hinge_without_active_triplets_does_nothing():
    case = task(steps=5)
    outputs = case.features @ case.weight.T + case.bias
    gram = case.features @ case.features.T + 1
    coefficients, moved, losses = _native.adapt(outputs, gram, case.triplets, case.moves, case.step_sizes, -3.0, HINGE)
    assert not coefficients.any()
    np.testing.assert_array_equal(moved, outputs)
    assert not losses.any()


def test_inputs_stay_as_they_are_and_runs_repeat():
    case = task(steps=4)
    outputs = (case.features @ case.weight.T).astype(np.float32)
    gram = (case.features @ case.features.T).astype(np.float32)
    steps = case.step_sizes.astype(np.float32)
    before = outputs.copy()
    first = _native.adapt(outputs, gram, case.triplets, case.moves, steps, MARGIN, SMOOTH)
    again = _native.adapt(outputs, gram, case.triplets, case.moves, steps, MARGIN, SMOOTH)
    np.testing.assert_array_equal(outputs, before)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)


def test_steep_softplus_is_the_hinge():
    case = task(steps=10)
    for got, expected in zip(case.native(1e9), case.native(HINGE), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", ["gram", "span"])
def test_nothing_moves_when_nothing_may(form):
    case = task(steps=3)
    outputs, gram = case.features @ case.weight.T, case.features @ case.features.T + 1
    still = np.zeros(len(case.moves), np.uint8)
    coefficients, moved, losses = _native.adapt(outputs, gram, case.triplets, still, case.step_sizes, MARGIN, SMOOTH, 0.5, form)
    assert not coefficients.any()
    np.testing.assert_array_equal(moved, outputs)
    assert losses[0] > 0
    assert (losses == losses[0]).all()


def test_coinciding_items_and_zero_outputs_stay_finite():
    case = task(pairs=2, steps=3)
    same = Task(**{**vars(case), "features": np.tile(case.features[:1], (4, 1))})
    assert not same.native(SMOOTH)[0].any()  # every distance is at its floor and has no direction
    zero = Task(**{**vars(case), "weight": 0 * case.weight, "bias": 0 * case.bias})
    assert np.isfinite(zero.native(SMOOTH)[2]).all()


@pytest.mark.parametrize("sharpness", [HINGE, SMOOTH])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_reaches_the_losses(sharpness, value):
    case = task(steps=2)
    features = case.features.copy()
    features[0, 0] = value
    with np.errstate(invalid="ignore"):
        coefficients, _, losses = Task(**{**vars(case), "features": features}).native(sharpness)
    assert np.isnan(losses).all()
    assert np.isnan(coefficients).any()


GOOD = {
    "outputs": np.ones((4, 3), np.float32),
    "gram": np.ones((4, 4), np.float32),
    "triplets": np.array([[0, 1, 2]], np.int32),
    "moves": np.ones(4, np.uint8),
    "step_sizes": np.ones(2, np.float32),
    "margin": 0.3,
    "sharpness": 10.0,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": np.ones((4, 3), np.float16)}, "outputs is float16"),
        ({"outputs": np.ones(4, np.float32)}, r"outputs is float32 \[4\]"),
        ({"outputs": np.ones((3, 4), np.float32).T}, "C-contiguous"),
        ({"outputs": np.ones((4, 0), np.float32)}, "at least one item and one dimension"),
        ({"outputs": np.ones((4, 3))}, r"gram is float32 .* float64 \[m, m\]"),
        ({"gram": np.ones((4, 5), np.float32)}, r"gram .* m = 4"),
        ({"triplets": np.array([[0, 1, 2]])}, "triplets is int64"),
        ({"triplets": np.ones((1, 4), np.int32)}, r"\[t, 3\]"),
        ({"triplets": np.ones((0, 3), np.int32)}, "no triplets"),
        ({"triplets": np.array([[0, 1, 4]], np.int32)}, "names item 4, but there are 4"),
        ({"triplets": np.array([[0, -1, 2]], np.int32)}, "names item -1"),
        ({"moves": np.ones(5, np.uint8)}, "moves is uint8"),
        ({"moves": np.ones(4, np.bool_)}, "moves is bool"),
        ({"step_sizes": np.ones(2)}, "step_sizes is float64"),
        ({"sharpness": -1.0}, "sharpness is -1"),
        ({"sharpness": float("nan")}, "sharpness is nan"),
    ],
)
def test_native_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        _native.adapt(**{**GOOD, **change})


def test_build_info():
    info = _native.build_info()
    assert {"version", "compiler", "simd", "cuda", "cuda_toolkit", "cuda_architectures"} == set(info)
    assert isinstance(info["cuda"], bool)
