"""MobileNetV2 with batch norm folded into its convolutions (Sandler et al., CVPR 2018, table 2).

There are no running statistics, so the network trains as it infers and exports without a rewrite. Pretrained arrays are named
after the original graph's nodes (``conv_<node>_weight``); in node order they are the 52 convolutions in the order used here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

# expansion, output channels, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
NUM_CONVOLUTIONS = 52


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1, with a residual where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [_conv(inputs, hidden, 1), nn.ReLU6()]
        layers += [_conv(hidden, hidden, 3, stride, hidden), nn.ReLU6(), _conv(hidden, outputs, 1)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:  # [B,inputs,H,W] -> [B,outputs,H/stride,W/stride]
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """The backbone up to its last bottleneck; returns the maps at stride 16 (96 channels) and stride 32 (320 channels).

    The final 320 -> 1280 expansion is left out: it keeps no more space than the map before it and costs 0.4 M parameters.
    """

    channels = (96, 320)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 32, 3, 2), nn.ReLU6())
        stages: list[nn.Module] = []
        inputs = 32
        for expansion, outputs, count, stride in STAGES:
            blocks = []
            for index in range(count):
                blocks.append(InvertedResidual(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.middle = nn.Sequential(*stages[:5])
        self.last = nn.Sequential(*stages[5:])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # [B,3,H,W] -> [B,96,H/16,W/16], [B,320,H/32,W/32]
        middle = self.middle(self.stem(x))
        return middle, self.last(middle)

    def load_folded(self, path: str | Path) -> None:
        """Load pretrained arrays from an npz of folded convolutions; every shape is checked.

        Raises:
            ValueError: the file does not hold the 52 convolutions of MobileNetV2 1.0 in node order.
        """
        with np.load(path, allow_pickle=False) as arrays:
            nodes = sorted(
                int(name.split("_")[1]) for name in arrays.files if name.startswith("conv_") and name.endswith("_weight")
            )
            if len(nodes) != NUM_CONVOLUTIONS:
                raise ValueError(f"{path}: {len(nodes)} convolutions, expected {NUM_CONVOLUTIONS} (MobileNetV2 1.0)")
            convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
            for module, node in zip(convolutions, nodes, strict=False):  # the 52nd is the final expansion, not used here
                for name, parameter in (("weight", module.weight), ("bias", module.bias)):
                    array = torch.from_numpy(arrays[f"conv_{node}_{name}"])
                    if parameter is None or array.shape != parameter.shape:
                        raise ValueError(f"{path}: conv_{node}_{name} is {tuple(array.shape)}, not MobileNetV2's shape")
                    with torch.no_grad():
                        parameter.copy_(array)
