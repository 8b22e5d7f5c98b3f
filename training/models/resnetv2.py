"""ResNet-50 v2 (He et al., ECCV 2016: norm and rectifier before each convolution) to the end of stage 3.

The weight file at hand ends in the middle of stage 4, and 1024 channels at stride 16 are what retrieval uses anyway. Blocks add
up raw sums that no rectifier has seen, so a stage is tapped behind the norm and rectifier that begin the next one; stage 4's
own first norm is in the file and serves stage 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from training.models.backbone import DEFAULTS, Backbone, BackboneInfo, BackboneOptions, Kind, Stage, initialise

INFO = BackboneInfo(
    "resnet50v2",
    "He et al., ECCV 2016",
    stages=(Stage("stage1", 256, 4), Stage("stage2", 512, 8), Stage("stage3", 1024, 16)),
    default=("stage3",),
    grids=(3,),
    weights=("npz",),
    normalised=True,
)
DEPTHS, OUTPUTS = (3, 4, 6), (256, 512, 1024)
PREFIX = "resnetv24_"
FIELDS = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}


class PreactivationBlock(nn.Module):
    """(norm, rectifier,) 1x1, norm, rectifier, 3x3, norm, rectifier, 1x1: [B,inputs,H,W] -> [B,outputs,H/stride,W/stride].

    The first block of a stage (`first`) gets its input activated already and sends it through a projection as well.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, first: bool) -> None:
        super().__init__()
        width = outputs // 4
        self.norm0 = None if first else nn.BatchNorm2d(inputs)
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if first else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.norm0 is None else self.relu(self.norm0(x))
        y = self.relu(self.norm1(self.conv1(y)))
        y = self.relu(self.norm2(self.conv2(y)))
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.conv3(y) + shortcut
        return result


class ResNet50V2(Backbone):
    """A norm on the pixels, stem, three stages; before each stage and after the last a norm and a rectifier."""

    def __init__(self, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(INFO, options)
        self.pixel_norm = nn.BatchNorm2d(options.inputs)
        self.conv0, self.norm1 = nn.Conv2d(options.inputs, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        steps = [("pixel_norm", ""), ("conv0", ""), ("norm1", ""), ("relu", ""), ("pool", "")]
        inputs, ended = 64, ""
        for number, (depth, outputs) in enumerate(zip(DEPTHS, OUTPUTS, strict=True), 1):
            self.add_module(f"entry{number}", nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU()))
            blocks = []
            for index in range(depth):
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(PreactivationBlock(inputs, outputs, stride, first=index == 0))
                inputs = outputs
            self.add_module(f"stage{number}", nn.Sequential(*blocks))
            steps += [(f"entry{number}", ended), (f"stage{number}", "")]
            ended = f"stage{number}"
        self.entry4 = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        initialise(self)
        self.finish([*steps, ("entry4", ended)])

    def names(self, kind: Kind) -> dict[str, str]:
        if kind != "npz":
            return super().names(kind)
        norms = {"pixel_norm": "batchnorm0", "norm1": "batchnorm1", "entry4.0": "stage4_batchnorm0"}
        convolutions = {"conv0": "conv0"}
        for number, depth in enumerate(DEPTHS, 1):
            prefix = f"stage{number}_"
            norms[f"entry{number}.0"] = f"{prefix}batchnorm0"
            for index in range(depth):
                block = f"stage{number}.{index}"
                if index:  # the first block's is the entry
                    norms[f"{block}.norm0"] = f"{prefix}batchnorm{3 * index}"
                for step in (1, 2):
                    norms[f"{block}.norm{step}"] = f"{prefix}batchnorm{3 * index + step}"
                first = 3 * index + (1 if index else 0)  # the projection is convolution 3
                for step in (1, 2, 3):
                    convolutions[f"{block}.conv{step}"] = f"{prefix}conv{first + step - 1}"
            convolutions[f"stage{number}.0.downsample"] = f"{prefix}conv3"
        found = {}
        for name in self.state_dict():
            module, _, field = name.rpartition(".")
            if module in convolutions:
                found[name] = f"{PREFIX}{convolutions[module]}_weight"
            elif field in FIELDS:  # not the count of batches, which the file lacks
                found[name] = f"{PREFIX}{norms[module]}_{FIELDS[field]}"
        return found

    def ignored(self, kind: Kind) -> str:
        """The part of stage 4 that the file has, the last norm and the classifier's bias."""
        return rf"{PREFIX}(stage4_(conv\d+|batchnorm[1-9]\d*)|batchnorm2|dense0)_\w+" if kind == "npz" else ""
