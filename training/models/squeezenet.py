"""SqueezeNet 1.1 (Iandola et al., 2016; version 1.1 of its authors' repository), under torchvision's names.

The stem is not padded, so maps are a pixel or so smaller than size/stride.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.backbone import DEFAULTS, Backbone, BackboneInfo, BackboneOptions, Kind, Shape, Stage

INFO = BackboneInfo(
    "squeezenet1_1",
    "Iandola et al., arXiv 1602.07360",
    stages=(
        Stage("fire3", 128, 4),
        Stage("fire5", 256, 8),
        Stage("fire7", 384, 16),
        Stage("fire9", 512, 16),
    ),
    default=("fire7",),
    grids=(4,),
    weights=("torchvision", "npz"),
    normalised=False,
    published=1_235_496,
)
# position in `features`: (squeezed, expanded) channels of the fire modules; poolings stand at 2, 5 and 8
FIRES = {3: (16, 64), 4: (16, 64), 6: (32, 128), 7: (32, 128), 9: (48, 192), 10: (48, 192), 11: (64, 256), 12: (64, 256)}
ENDS = {4: "fire3", 7: "fire5", 10: "fire7", 12: "fire9"}


class Fire(nn.Module):
    """Squeeze 1x1, expand 1x1 and 3x3 side by side: [B,inputs,H,W] -> [B,2*expanded,H,W]."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.expand1x1(x)), self.relu(self.expand3x3(x))], dim=1)


class SqueezeNet(Backbone):
    """`features`; the classifier is one 1x1 convolution behind them."""

    LEFT_OUT: dict[str, Shape] = {"classifier.1.weight": (1000, 512, 1, 1), "classifier.1.bias": (1000,)}  # noqa: RUF012

    def __init__(self, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(INFO, options)
        layers: list[nn.Module] = [nn.Conv2d(options.inputs, 64, 3, 2), nn.ReLU(inplace=True)]
        inputs = 64
        for position in range(2, 13):
            if position in FIRES:
                squeezed, expanded = FIRES[position]
                layers.append(Fire(inputs, squeezed, expanded))
                inputs = 2 * expanded
            else:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self.finish([(f"features.{index}", ENDS.get(index, "")) for index in range(len(layers))])

    def names(self, kind: Kind) -> dict[str, str]:
        if kind != "npz":
            return super().names(kind)
        convolutions = [name for name, module in self.named_modules() if isinstance(module, nn.Conv2d)]
        return {
            f"{name}.{field}": f"squeezenet0_conv{number}_{field}"
            for number, name in enumerate(convolutions)
            for field in ("weight", "bias")
        }

    def left_out(self, kind: Kind) -> dict[str, Shape]:
        if kind != "npz":
            return super().left_out(kind)
        return {"squeezenet0_conv25_weight": (1000, 512, 1, 1), "squeezenet0_conv25_bias": (1000,)}
