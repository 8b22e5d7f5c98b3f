"""Depthwise convolutions whose gradients are fast on a CPU in bfloat16.

oneDNN has no bfloat16 kernels for two gradients of a depthwise convolution: that of the input where the stride is 2, and that of
weights larger than 3x3; its reference loops take most of a training step. Both are said here in operations that it does have: a
convolution of the gradient with zeros between its pixels, and four 3x3 gradients, one for each corner of a 5x5 kernel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

KERNELS, STRIDES = (3, 5), (1, 2)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution, kernel 3 or 5, stride 1 or 2; computes what ``nn.Conv2d`` does, to rounding."""

    def __init__(self, channels: int, kernel: int, stride: int, padding: int) -> None:
        if kernel not in KERNELS or stride not in STRIDES:
            raise ValueError(f"depthwise kernel {kernel} and stride {stride}: expected 3 or 5, and 1 or 2")
        super().__init__(channels, channels, kernel, stride, padding, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self, x)


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """What `conv` computes of x [B,C,H,W]; with the fast gradients where it is depthwise and trains in autocast on a CPU."""
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    known = conv.kernel_size[0] in KERNELS and conv.stride[0] in STRIDES
    if depthwise and known and torch.is_grad_enabled() and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        bias = None if conv.bias is None else conv.bias.to(dtype)
        geometry = conv.stride[0], int(conv.padding[0])
        out: Tensor = _Depthwise.apply(x.to(dtype), conv.weight.to(dtype), bias, *geometry)  # type: ignore[no-untyped-call]
        return out
    plain: Tensor = conv._conv_forward(x, conv.weight, conv.bias)
    return plain


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.biased = stride, padding, bias is not None
        return F.conv2d(x, weight, bias, stride, padding, groups=x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            input_gradient(gradient, weight, x.shape[-1], ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None,
            weight_gradient(gradient, x, weight.shape[-1], ctx.stride, ctx.padding) if ctx.needs_input_grad[1] else None,
            gradient.sum((0, 2, 3)) if ctx.biased and ctx.needs_input_grad[2] else None,
            None,
            None,
        )


def input_gradient(gradient: Tensor, weight: Tensor, side: int, stride: int, padding: int) -> Tensor:
    """Gradient [B,C,side,side] of the input from that of the output [B,C,h,h] and the weights [C,1,k,k]."""
    kernel, channels = weight.shape[-1], weight.shape[0]
    if stride == 2:
        shape = (len(gradient), channels, 2 * gradient.shape[2] - 1, 2 * gradient.shape[3] - 1)
        spread = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
        spread[:, :, ::2, ::2] = gradient
        gradient = spread
    before = kernel - 1 - padding
    after = side + padding - gradient.shape[-1]  # so that the result has `side` pixels
    if before == after:
        return F.conv2d(gradient, weight.flip(2, 3), padding=before, groups=channels)
    padded = F.pad(gradient, (before, after, before, after)).contiguous(memory_format=torch.channels_last)
    return F.conv2d(padded, weight.flip(2, 3), groups=channels)


def weight_gradient(gradient: Tensor, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Gradient [C,1,kernel,kernel] of the weights from that of the output [B,C,h,h] and the input [B,C,H,H]."""
    if kernel == 3:
        return _weight_gradient(gradient, x, 3, stride, padding)
    if padding:
        x = F.pad(x, (padding,) * 4).contiguous(memory_format=torch.channels_last)
    reach = (gradient.shape[-1] - 1) * stride + 3  # pixels that a 3x3 kernel sees a side
    whole = torch.empty(x.shape[1], 1, kernel, kernel, dtype=x.dtype)
    for top in (0, 2):
        for left in (0, 2):
            window = x[:, :, top : top + reach, left : left + reach].contiguous(memory_format=torch.channels_last)
            whole[:, :, top : top + 3, left : left + 3] = _weight_gradient(gradient, window, 3, stride, 0)
    return whole


def _weight_gradient(gradient: Tensor, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    like = x.new_empty(x.shape[1], 1, kernel, kernel)
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, like, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], x.shape[1], [False, True, False]
    )[1]
    return result
