"""MobileNetV3 small and large (Howard et al., ICCV 2019, tables 1 and 2), under torchvision's names."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from training.models.backbone import DEFAULTS, Backbone, BackboneInfo, BackboneOptions, Shape, Stage, initialise

SOURCE = "Howard et al., ICCV 2019"
SMALL_INFO = BackboneInfo(
    "mobilenetv3_small",
    SOURCE,
    stages=(
        Stage("block1", 16, 4),
        Stage("block3", 24, 8),
        Stage("block8", 48, 16),
        Stage("block11", 96, 32),
        Stage("expansion", 576, 32),
    ),
    default=("block8", "block11"),
    grids=(5, 3),
    weights=("torchvision",),
    normalised=True,
    published=2_542_856,
)
LARGE_INFO = BackboneInfo(
    "mobilenetv3_large",
    SOURCE,
    stages=(
        Stage("block1", 16, 2),
        Stage("block3", 24, 4),
        Stage("block6", 40, 8),
        Stage("block12", 112, 16),
        Stage("block15", 160, 32),
        Stage("expansion", 960, 32),
    ),
    default=("block12", "block15"),
    grids=(5, 3),
    weights=("torchvision",),
    normalised=True,
    published=5_483_032,
)


class Row(NamedTuple):
    """One row of the paper's tables."""

    kernel: int
    hidden: int
    outputs: int
    squeeze: bool
    hard: bool  # h-swish, else ReLU
    stride: int


SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)
LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)


def _rounded(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of 8, never more than a tenth below."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _unit(inputs: int, outputs: int, kernel: int, stride: int, groups: int, activation: nn.Module | None) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=0.001, momentum=0.01),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation]))


class SqueezeExcitation(nn.Module):
    """Scale channels by what their means say: [B,C,H,W] -> [B,C,H,W]."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return x * scale


class Block(nn.Module):
    """Expand, depthwise, squeeze and excite, project; a residual where shapes allow."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        activation = nn.Hardswish if row.hard else nn.ReLU
        layers: list[nn.Module] = []
        if row.hidden != inputs:
            layers.append(_unit(inputs, row.hidden, 1, 1, 1, activation()))
        layers.append(_unit(row.hidden, row.hidden, row.kernel, row.stride, row.hidden, activation()))
        if row.squeeze:
            layers.append(SqueezeExcitation(row.hidden, _rounded(row.hidden / 4)))
        layers.append(_unit(row.hidden, row.outputs, 1, 1, 1, None))
        self.block = nn.Sequential(*layers)
        self.residual = row.stride == 1 and inputs == row.outputs

    def forward(self, x: Tensor) -> Tensor:  # [B,inputs,H,W] -> [B,outputs,H/stride,W/stride]
        y: Tensor = self.block(x)
        return x + y if self.residual else y


class MobileNetV3(Backbone):
    """Stem, blocks, and the last 1x1 expansion as a stage of its own; block outputs are linear."""

    def __init__(self, info: BackboneInfo, rows: tuple[Row, ...], options: BackboneOptions) -> None:
        super().__init__(info, options)
        layers: list[nn.Module] = [_unit(options.inputs, 16, 3, 2, 1, nn.Hardswish())]
        inputs = 16
        for row in rows:
            layers.append(Block(inputs, row))
            inputs = row.outputs
        layers.append(_unit(inputs, 6 * inputs, 1, 1, 1, nn.Hardswish()))
        self.features = nn.Sequential(*layers)
        ends = {stage.name for stage in info.stages}
        initialise(self)
        steps = [("features.0", ""), *((f"features.{number}", f"block{number}") for number in range(1, len(rows) + 1))]
        steps.append((f"features.{len(rows) + 1}", "expansion"))
        self.finish([(path, stage if stage in ends else "") for path, stage in steps])


class MobileNetV3Small(MobileNetV3):
    """11 blocks."""

    LEFT_OUT: dict[str, Shape] = {  # noqa: RUF012
        "classifier.0.weight": (1024, 576),
        "classifier.0.bias": (1024,),
        "classifier.3.weight": (1000, 1024),
        "classifier.3.bias": (1000,),
    }

    def __init__(self, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(SMALL_INFO, SMALL, options)


class MobileNetV3Large(MobileNetV3):
    """15 blocks."""

    LEFT_OUT: dict[str, Shape] = {  # noqa: RUF012
        "classifier.0.weight": (1280, 960),
        "classifier.0.bias": (1280,),
        "classifier.3.weight": (1000, 1280),
        "classifier.3.bias": (1000,),
    }

    def __init__(self, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(LARGE_INFO, LARGE, options)
