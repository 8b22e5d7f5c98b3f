"""InceptionV3 (Szegedy et al., CVPR 2016), under torchvision's names; the 2021 paper's encoder taps its last block (Mixed_7c).

The weights in torchvision's format were trained on pixels in [-1,1]. torchvision's own model therefore remaps pixels normalised
with ImageNet's mean and deviation when it loads them (`transform_input`); the papers' code calls the blocks one by one and skips
that. Faithful, and the default here, is to skip it; to apply it suits the weights better (METHODS F.2, point 9).
The stem is not padded, so maps are smaller than size/stride: 6x6 cells at Mixed_7c for 256 pixels, 8x8 for 299.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.backbone import DEFAULTS, Backbone, BackboneInfo, BackboneOptions, Shape, Stage

INFO = BackboneInfo(
    "inception_v3",
    "Szegedy et al., CVPR 2016",
    stages=(
        Stage("Conv2d_2b_3x3", 64, 2),
        Stage("Conv2d_4a_3x3", 192, 4),
        Stage("Mixed_5d", 288, 8),
        Stage("Mixed_6e", 768, 16),
        Stage("Mixed_7c", 2048, 32),
    ),
    default=("Mixed_7c",),
    grids=(1,),
    weights=("torchvision",),
    normalised=True,
    published=27_161_264,
)
Kernel = int | tuple[int, int]


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, rectifier."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padding: Kernel = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1)


class BlockA(nn.Module):
    """[B,inputs,H,W] -> [B,224+pooled,H,W]."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = ConvNorm(inputs, 48, 1), ConvNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvNorm(inputs, 64, 1), ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, padding=1)
        self.branch_pool = ConvNorm(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_average(x)),
        ]
        return torch.cat(parts, dim=1)


class BlockB(nn.Module):
    """Halves the side: [B,inputs,H,W] -> [B,480+inputs,(H-1)//2,(W-1)//2]."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(inputs, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvNorm(inputs, 64, 1), ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], dim=1)


class BlockC(nn.Module):
    """Factorised 7x7 convolutions through `width` channels: [B,inputs,H,W] -> [B,768,H,W]."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        row, column = ((1, 7), (0, 3)), ((7, 1), (3, 0))

        def unit(before: int, after: int, shape: tuple[tuple[int, int], tuple[int, int]]) -> ConvNorm:
            return ConvNorm(before, after, shape[0], padding=shape[1])

        self.branch1x1 = ConvNorm(inputs, 192, 1)
        self.branch7x7_1 = ConvNorm(inputs, width, 1)
        self.branch7x7_2, self.branch7x7_3 = unit(width, width, row), unit(width, 192, column)
        self.branch7x7dbl_1 = ConvNorm(inputs, width, 1)
        self.branch7x7dbl_2, self.branch7x7dbl_3 = unit(width, width, column), unit(width, width, row)
        self.branch7x7dbl_4, self.branch7x7dbl_5 = unit(width, width, column), unit(width, 192, row)
        self.branch_pool = ConvNorm(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        parts = [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(_average(x)),
        ]
        return torch.cat(parts, dim=1)


class BlockD(nn.Module):
    """Halves the side: [B,inputs,H,W] -> [B,512+inputs,(H-1)//2,(W-1)//2]."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = ConvNorm(inputs, 192, 1), ConvNorm(192, 320, 3, 2)
        self.branch7x7x3_1 = ConvNorm(inputs, 192, 1)
        self.branch7x7x3_2 = ConvNorm(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], dim=1)


class BlockE(nn.Module):
    """[B,inputs,H,W] -> [B,2048,H,W]."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        row, column = ((1, 3), (0, 1)), ((3, 1), (1, 0))
        self.branch1x1 = ConvNorm(inputs, 320, 1)
        self.branch3x3_1 = ConvNorm(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = (ConvNorm(384, 384, kernel, padding=pad) for kernel, pad in (row, column))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvNorm(inputs, 448, 1), ConvNorm(448, 384, 3, padding=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = (ConvNorm(384, 384, kernel, padding=pad) for kernel, pad in (row, column))
        self.branch_pool = ConvNorm(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(_average(x)),
        ]
        return torch.cat(parts, dim=1)


class Remap(nn.Module):
    """Pixels normalised with ImageNet's mean and deviation -> pixels in [-1,1]; channels beyond RGB pass. Off: nothing."""

    def __init__(self, on: bool, inputs: int) -> None:
        super().__init__()
        scale, shift = torch.ones(inputs), torch.zeros(inputs)
        if on:
            scale[:3] = torch.tensor(INFO.std) / 0.5
            shift[:3] = (torch.tensor(INFO.mean) - 0.5) / 0.5
        self.on = on
        self.register_buffer("scale", scale.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(1, -1, 1, 1), persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift if self.on else x


def _auxiliary() -> dict[str, Shape]:
    """The auxiliary classifier of training, in most torchvision files."""
    shapes: dict[str, Shape] = {}
    for name, shape in (("conv0", (128, 768, 1, 1)), ("conv1", (768, 128, 5, 5))):
        shapes[f"AuxLogits.{name}.conv.weight"] = shape
        for field in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"AuxLogits.{name}.bn.{field}"] = shape[:1]
        shapes[f"AuxLogits.{name}.bn.num_batches_tracked"] = ()
    return {**shapes, "AuxLogits.fc.weight": (1000, 768), "AuxLogits.fc.bias": (1000,)}


class InceptionV3(Backbone):
    """Stem and Mixed blocks, without the classifiers."""

    LEFT_OUT: dict[str, Shape] = {**_auxiliary(), "fc.weight": (1000, 2048), "fc.bias": (1000,)}  # noqa: RUF012

    def __init__(self, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(INFO, options)
        layers: dict[str, nn.Module] = {
            "remap": Remap(options.transform_input, options.inputs),
            "Conv2d_1a_3x3": ConvNorm(options.inputs, 32, 3, 2),
            "Conv2d_2a_3x3": ConvNorm(32, 32, 3),
            "Conv2d_2b_3x3": ConvNorm(32, 64, 3, padding=1),
            "maxpool1": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": ConvNorm(64, 80, 1),
            "Conv2d_4a_3x3": ConvNorm(80, 192, 3),
            "maxpool2": nn.MaxPool2d(3, 2),
            "Mixed_5b": BlockA(192, 32),
            "Mixed_5c": BlockA(256, 64),
            "Mixed_5d": BlockA(288, 64),
            "Mixed_6a": BlockB(288),
            "Mixed_6b": BlockC(768, 128),
            "Mixed_6c": BlockC(768, 160),
            "Mixed_6d": BlockC(768, 160),
            "Mixed_6e": BlockC(768, 192),
            "Mixed_7a": BlockD(768),
            "Mixed_7b": BlockE(1280),
            "Mixed_7c": BlockE(2048),
        }
        for name, layer in layers.items():
            self.add_module(name, layer)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.1)
        ends = {stage.name for stage in INFO.stages}
        self.finish([(name, name if name in ends else "") for name in layers])
