"""Depthwise convolutions against PyTorch's own, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training.models.backbone import BackboneOptions
from training.models.depthwise import DepthwiseConv2d, convolve, input_gradient, weight_gradient
from training.models.registry import build_backbone

pytestmark = pytest.mark.torch

SHAPES = [(kernel, stride, side, padding) for kernel in (3, 5) for stride in (1, 2) for side in (11, 14) for padding in (0, 1, 2)]


@pytest.mark.parametrize(("kernel", "stride", "side", "padding"), SHAPES)
def test_gradients_are_those_of_autograd(kernel: int, stride: int, side: int, padding: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    y = F.conv2d(x, weight, None, stride, padding, groups=3)
    gradient = torch.randn_like(y)
    expected = torch.autograd.grad(y, (x, weight), gradient)
    torch.testing.assert_close(input_gradient(gradient, weight.detach(), side, stride, padding), expected[0])
    torch.testing.assert_close(weight_gradient(gradient, x.detach(), kernel, stride, padding), expected[1])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_in_autocast_the_fast_path_is_taken_and_agrees(kernel: int, stride: int) -> None:
    torch.manual_seed(1)
    layer = DepthwiseConv2d(8, kernel, stride, kernel // 2)
    plain = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=8)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(3, 8, 12, 12)
    rows = []
    for module in (layer, plain):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=module is layer):
            y = module(given)
        if module is layer:
            assert "Depthwise" in type(y.grad_fn).__name__
        y.float().square().sum().backward()
        rows.append((y.float(), given.grad, module.weight.grad, module.bias.grad))
    for fast, slow in zip(*rows, strict=True):
        assert fast is not None
        assert slow is not None
        assert (fast - slow).norm() < 0.02 * slow.norm()  # bfloat16 has 8 bits


@pytest.mark.parametrize(("kernel", "stride"), [(7, 1), (3, 3)])
def test_other_shapes_are_refused(kernel: int, stride: int) -> None:
    with pytest.raises(ValueError, match="expected 3 or 5, and 1 or 2"):
        DepthwiseConv2d(4, kernel, stride, 1)


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet_lite0"])
def test_fresh_norms_stand_behind_depthwise_convolutions_too(name: str) -> None:
    fresh = build_backbone(name, BackboneOptions(norm="fresh"))
    assert all(
        isinstance(getattr(module, "norm", None), nn.BatchNorm2d) for module in fresh.modules() if isinstance(module, nn.Conv2d)
    )


def test_kernels_beyond_those_known_take_pytorchs_own_path() -> None:
    torch.manual_seed(2)
    layer = nn.Conv2d(4, 4, 7, 2, 3, groups=4)
    x = torch.randn(2, 4, 12, 12, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, plain = convolve(layer, x), layer(x)
    assert torch.equal(ours, plain)
    assert "Depthwise" not in type(ours.grad_fn).__name__
