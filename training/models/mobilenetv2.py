"""MobileNetV2 with batch norm folded into its convolutions (Sandler et al., CVPR 2018, table 2).

There are no running statistics, so the network trains as it infers and exports without a rewrite; norm "fresh" puts batch norms
back. Loads the npz of folded convolutions, and torchvision's files, whose batch norms are folded on the way (norm "own") or kept
(norm "fresh").
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from training.models.backbone import DEFAULTS, Backbone, BackboneInfo, BackboneOptions, Kind, Shape, Stage
from training.models.depthwise import DepthwiseConv2d
from training.models.folding import unit_shapes, unit_state

# expansion, output channels, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
MIDDLE = 5  # stages to stride 16; the others are `last`
NORM_EPS = 1e-5  # of torchvision's batch norms

INFO = BackboneInfo(
    "mobilenetv2",
    "Sandler et al., CVPR 2018",
    stages=(
        Stage("bottleneck1", 16, 2),
        Stage("bottleneck2", 24, 4),
        Stage("bottleneck3", 32, 8),
        Stage("bottleneck4", 64, 16),
        Stage("bottleneck5", 96, 16),
        Stage("bottleneck6", 160, 32),
        Stage("bottleneck7", 320, 32),
        Stage("expansion", 1280, 32),
    ),
    default=("bottleneck5", "bottleneck7"),
    grids=(5, 3),
    weights=("npz", "torchvision"),
    normalised=False,
    published=3_504_872,
)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1, with a residual where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [_conv(inputs, hidden, 1), nn.ReLU6()]
        layers += [DepthwiseConv2d(hidden, 3, stride, 1), nn.ReLU6(), _conv(hidden, outputs, 1)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:  # [B,inputs,H,W] -> [B,outputs,H/stride,W/stride]
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(Backbone):
    """The network up to its last bottleneck, tapped by default at stride 16 (96 channels) and stride 32 (320 channels).

    The final 320 -> 1280 expansion is a stage that is built only if tapped: it keeps no more space than the map before it and
    costs 0.4 M parameters.
    """

    LEFT_OUT: dict[str, Shape] = {"classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}  # noqa: RUF012

    def __init__(self, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(INFO, options)
        self.stem = nn.Sequential(_conv(options.inputs, 32, 3, 2), nn.ReLU6())
        stages: list[nn.Module] = []
        steps = [("stem", "")]
        inputs = 32
        for number, (expansion, outputs, count, stride) in enumerate(STAGES):
            blocks = []
            for index in range(count):
                blocks.append(InvertedResidual(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
            path = f"middle.{number}" if number < MIDDLE else f"last.{number - MIDDLE}"
            steps.append((path, f"bottleneck{number + 1}"))
        self.middle = nn.Sequential(*stages[:MIDDLE])
        self.last = nn.Sequential(*stages[MIDDLE:])
        if self.taps[-1].name == "expansion":
            self.expansion = nn.Sequential(_conv(inputs, 1280, 1), nn.ReLU6())
            steps.append(("expansion", "expansion"))
        self.finish(steps)

    def names(self, kind: Kind) -> dict[str, str]:
        """npz: convolutions are numbered by graph node; every rectifier and every residual sum is a node too."""
        if kind != "npz":
            return super().names(kind)
        found: dict[str, str] = {}
        node = pending = 0
        for path, module in self.named_modules():
            if isinstance(module, InvertedResidual):
                node, pending = node + pending, int(module.residual)  # the sum of the block before, then this one's
            elif isinstance(module, nn.Conv2d):
                found |= {f"{path}.{field}": f"conv_{node}_{field}" for field in ("weight", "bias")}
                node += 1
            elif isinstance(module, nn.ReLU6):
                node += 1
        return found

    def left_out(self, kind: Kind) -> dict[str, Shape]:
        return {"gemm_104_bias": (1000,)} if kind == "npz" else super().left_out(kind)

    def layout(self, kind: Kind) -> dict[str, Shape]:
        if kind != "torchvision":
            return super().layout(kind)
        return unit_shapes(self, self._torchvision_units())

    def convert(self, kind: Kind, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As in Backbone; torchvision's batch norms go into the fresh ones where there are any, else into the convolutions."""
        if kind != "torchvision":
            return super().convert(kind, arrays)
        return unit_state(arrays, self._torchvision_units(), NORM_EPS, keep=self.options.norm == "fresh")

    def _torchvision_units(self) -> dict[str, tuple[str, str]]:
        """Path of a convolution here -> torchvision's names of it and of its batch norm."""
        found: dict[str, tuple[str, str]] = {}
        block, within = 0, 0
        for path, module in self.named_modules():
            if isinstance(module, InvertedResidual):
                block, within = block + 1, 0
                convolutions = sum(isinstance(layer, nn.Conv2d) for layer in module.layers)
            elif isinstance(module, nn.Conv2d):
                if ".layers." not in path:
                    base = "features.0" if path.startswith("stem") else f"features.{block + 1}"
                    found[path] = f"{base}.0", f"{base}.1"
                else:
                    base = f"features.{block}.conv"
                    last = within == convolutions - 1  # the projection has no rectifier, hence no unit of its own
                    found[path] = (
                        (f"{base}.{within}", f"{base}.{within + 1}") if last else (f"{base}.{within}.0", f"{base}.{within}.1")
                    )
                    within += 1
        return found
