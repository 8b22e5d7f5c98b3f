"""The PyTorch inner loop against the native one and against plain autograd on the full head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fgsbir_edge import _native
from fgsbir_edge.inner import SQUARED_DISTANCE_FLOOR
from fgsbir_edge.margin import MarginNet as RuntimeMarginNet
from training.inner_loop import DISTANCE_FLOOR, Support, adapt, adapted_outputs, triplet_loss
from training.models.margin import MarginNet

pytestmark = pytest.mark.torch

K, C, D = 4, 24, 6


@pytest.fixture
def task() -> tuple[torch.Tensor, torch.Tensor, Support]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(D, C, generator=generator, dtype=torch.float64) * 0.3
    bias = torch.randn(D, generator=generator, dtype=torch.float64) * 0.1
    features = F.normalize(torch.randn(1, 2 * K + 3, C, generator=generator, dtype=torch.float64), dim=-1)
    mask = torch.ones(1, K, K + 3, dtype=torch.float64)
    mask[0, range(K), range(K)] = 0
    return weight, bias, Support(features, mask)


def triplets(support: Support) -> np.ndarray:
    mask = support.mask[0]
    return np.array([(i, K + i, K + j) for i in range(K) for j in range(mask.shape[1]) if mask[i, j]], dtype=np.int32)


@pytest.mark.parametrize("side", ["sketch", "both"])
@pytest.mark.parametrize("sharpness", [0.0, 10.0])
def test_equals_native_op(task: tuple[torch.Tensor, torch.Tensor, Support], side: str, sharpness: float) -> None:
    weight, bias, support = task
    rates, margin = torch.tensor([0.4, 0.2, 0.1], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    ours = adapt(weight, bias, support, rates, margin, sharpness=sharpness, side=side, second_order=False)[0]
    x = support.features[0].numpy()
    moves = np.ones(len(x), np.uint8)
    if side == "sketch":
        moves[K:] = 0
    outputs = np.ascontiguousarray(x @ weight.numpy().T + bias.numpy())
    theirs, _, losses = _native.adapt(outputs, x @ x.T + 1.0, triplets(support), moves, rates.numpy(), 0.3, sharpness)
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-9, atol=1e-12)
    first = triplet_loss(torch.from_numpy(outputs)[None], support, margin, sharpness)
    np.testing.assert_allclose(first.item(), losses[0], rtol=1e-9)
    assert DISTANCE_FLOOR == SQUARED_DISTANCE_FLOOR


def test_equals_full_matrix_steps_to_second_order(task: tuple[torch.Tensor, torch.Tensor, Support]) -> None:
    """The span form is exact: adapted outputs, and their gradient for weight, rates and margin, as with W itself stepped."""
    weight, bias, support = task
    queries = F.normalize(torch.randn(1, 5, C, dtype=torch.float64, generator=torch.Generator().manual_seed(4)), dim=-1)
    target = torch.randn(1, 5, D, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def leaves() -> list[torch.Tensor]:
        rates, margin = torch.tensor([0.4, 0.2], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
        return [tensor.clone().requires_grad_() for tensor in (weight, bias, rates, margin)]

    w, b, rates, margin = leaves()
    learned = adapt(w, b, support, rates, margin, side="both")
    span_loss = (adapted_outputs(w, b, support, learned, queries) * target).sum()
    span = torch.autograd.grad(span_loss, (w, b, rates, margin))

    w, b, rates, margin = leaves()
    stepped_w, stepped_b = w, b
    for rate in rates:
        loss = triplet_loss(support.features @ stepped_w.T + stepped_b, support, margin, 10.0).sum()
        grad_w, grad_b = torch.autograd.grad(loss, (stepped_w, stepped_b), create_graph=True)
        stepped_w, stepped_b = stepped_w - rate * grad_w, stepped_b - rate * grad_b
    full_loss = ((queries @ stepped_w.T + stepped_b) * target).sum()
    full = torch.autograd.grad(full_loss, (w, b, rates, margin))
    assert span_loss.item() == pytest.approx(full_loss.item(), rel=1e-10)
    for ours, theirs in zip(span, full, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_hinge_gives_the_margin_no_gradient_and_softplus_does(task: tuple[torch.Tensor, torch.Tensor, Support]) -> None:
    weight, bias, support = task
    for sharpness, zero in ((0.0, True), (10.0, False)):
        margin = torch.tensor([1.9], dtype=torch.float64, requires_grad=True)
        learned = adapt(weight, bias, support, torch.tensor([0.3], dtype=torch.float64), margin, sharpness=sharpness)
        (gradient,) = torch.autograd.grad((learned**2).sum(), margin, allow_unused=True)
        assert (gradient is None or float(gradient.abs()) == 0.0) is zero


def test_margin_network_is_the_runtime_one() -> None:
    torch.manual_seed(0)
    net = MarginNet(8)
    positive, negative = torch.rand(1, 3, 4), torch.rand(1, 3, 4)
    mask = (torch.rand(1, 3, 4) > 0.3).float()
    runtime = RuntimeMarginNet(**{name: tensor.numpy() for name, tensor in net.arrays().items()})
    used = mask.bool()
    expected = runtime.predict(positive[used].numpy(), negative[used].numpy())
    assert net(positive, negative, mask).item() == pytest.approx(expected, rel=1e-5)


def test_first_and_second_order_differ_only_behind_the_first_gradient(task: tuple[torch.Tensor, torch.Tensor, Support]) -> None:
    """The same coefficients; the same outer gradient for one step's rate, and for the head where no step is taken."""
    weight, bias, support = task
    margin = torch.tensor([0.3], dtype=torch.float64)

    def outer(rate: float, second_order: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        w, r = weight.clone().requires_grad_(), torch.tensor([rate], dtype=torch.float64, requires_grad=True)
        learned = adapt(w, bias, support, r, margin, second_order=second_order)
        loss = (adapted_outputs(w, bias, support, learned, support.features) ** 3).sum()
        return learned.detach(), *torch.autograd.grad(loss, (w, r))

    for rate in (0.0, 0.4):
        (first, first_w, first_r), (second, second_w, second_r) = outer(rate, False), outer(rate, True)
        torch.testing.assert_close(first, second)
        torch.testing.assert_close(first_r, second_r)
        assert torch.allclose(first_w, second_w) is (rate == 0.0)


def test_step_sizes_of_rows_are_those_of_the_full_matrix(task: tuple[torch.Tensor, torch.Tensor, Support]) -> None:
    weight, bias, support = task
    margin, rates = torch.tensor([0.3], dtype=torch.float64), torch.linspace(0.1, 0.6, 2 * D, dtype=torch.float64).reshape(2, D)
    learned = adapt(weight, bias, support, rates, margin)
    w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    for rate in rates:
        loss = triplet_loss(support.features @ w.T + b, support, margin, 10.0).sum()
        grad_w, grad_b = torch.autograd.grad(loss, (w, b))
        w, b = w - rate[:, None] * grad_w, b - rate * grad_b
    torch.testing.assert_close(adapted_outputs(weight, bias, support, learned, support.features), support.features @ w.T + b)


def test_one_pair_has_no_negative_and_moves_nothing(task: tuple[torch.Tensor, torch.Tensor, Support]) -> None:
    weight, bias, support = task
    one = Support(support.features[:, [0, K]], torch.zeros(1, 1, 1, dtype=torch.float64))
    rates, margin = torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    assert not adapt(weight, bias, one, rates, margin).any()
