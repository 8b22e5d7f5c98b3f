"""The inner loop on inner products against the span form, and its written-out second order against finite differences."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training import inner_loop
from training.episodic import fast_inner
from training.inner_loop import Support

pytestmark = pytest.mark.torch

E, K, PHOTOS, C, D = 3, 4, 6, 12, 5


def leaves(steps: int, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """W, b, support rows, rates, margins in float64, and a mask that lacks some triplets."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    rows = F.normalize(normal(E, K + PHOTOS, C), dim=-1)
    rates, margins = (torch.rand(count, generator=source, dtype=torch.float64) for count in (steps, E))
    mask = (torch.rand(E, K, PHOTOS, generator=source) > 0.2).double()
    mask[:, range(K), range(K)] = 0
    return [tensor.requires_grad_() for tensor in (normal(D, C), 0.1 * normal(D), rows, rates, margins)], mask


@pytest.mark.parametrize(
    ("side", "sharpness", "steps", "second"), [*product(("sketch", "both"), (10.0, 0.0), (1, 3), (True, False))]
)
def test_equals_the_span_form_with_its_gradients(side: str, sharpness: float, steps: int, second: bool) -> None:
    given, mask = leaves(steps)
    cotangent = torch.randn(E, K + PHOTOS, D, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    found = []
    for form in (inner_loop.adapt, fast_inner.adapt):
        weight, bias, rows, rates, margins = given
        support = Support(rows, mask)
        learned = form(weight, bias, support, rates, margins, sharpness=sharpness, side=side, second_order=second)
        gradients = torch.autograd.grad((learned * cotangent).sum(), given, allow_unused=True, materialize_grads=True)
        found.append((learned, *gradients))
    for ours, theirs in zip(*reversed(found), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=5e-9)  # torch's softplus is straight from 20 on
    assert found[1][0].abs().max() > 1e-3
    if side == "sketch":
        assert not found[1][0][:, K:].any()
    assert found[1][5].any() == (second and sharpness > 0)


@pytest.mark.parametrize(("side", "steps"), [("both", 1), ("both", 3), ("sketch", 2)])
def test_second_order_by_finite_differences(side: str, steps: int) -> None:
    given, mask = leaves(steps, seed=2)

    def adapted(weight: Tensor, bias: Tensor, rows: Tensor, rates: Tensor, margins: Tensor) -> Tensor:
        return fast_inner.adapt(weight, bias, Support(rows, mask), rates, margins, sharpness=5.0, side=side)

    assert torch.autograd.gradcheck(adapted, given, fast_mode=True)
    small = [tensor.detach()[:1].clone().requires_grad_() if tensor.shape[0] == E else tensor for tensor in given]
    mask = mask[:1]
    assert torch.autograd.gradcheck(lambda rates, margins: adapted(*small[:3], rates, margins), small[3:])


def test_no_triplets_no_step() -> None:
    given, mask = leaves(2)
    weight, bias, rows, rates, margins = given
    learned = fast_inner.adapt(weight, bias, Support(rows, torch.zeros_like(mask)), rates, margins)
    gradients = torch.autograd.grad(learned.sum(), given)
    assert not learned.any()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_a_sketch_equal_to_a_photo_stays_finite() -> None:
    """Where a distance stands at its floor it gives no gradient, in float32 too."""
    given, mask = leaves(3)
    weight, bias, rows, rates, margins = (tensor.detach().float() for tensor in given)
    rows[:, 0] = rows[:, K]
    rows.requires_grad_()
    learned = fast_inner.adapt(weight, bias, Support(rows, mask.float()), rates, margins)
    (gradient,) = torch.autograd.grad(learned.square().sum(), rows)
    assert torch.isfinite(learned).all()
    assert torch.isfinite(gradient).all()
    assert learned.abs().max() < 1e3
