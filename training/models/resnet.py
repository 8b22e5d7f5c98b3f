"""ResNet-18 and ResNet-50 (He et al., CVPR 2016; stride on the 3x3 convolution of a bottleneck), under torchvision's names."""

from __future__ import annotations

from torch import Tensor, nn

from training.models.backbone import DEFAULTS, Backbone, BackboneInfo, BackboneOptions, Shape, Stage, initialise

SOURCE = "He et al., CVPR 2016"
RESNET18 = BackboneInfo(
    "resnet18",
    SOURCE,
    stages=(Stage("layer1", 64, 4), Stage("layer2", 128, 8), Stage("layer3", 256, 16), Stage("layer4", 512, 32)),
    default=("layer3", "layer4"),
    grids=(5, 3),
    weights=("torchvision",),
    normalised=True,
    published=11_689_512,
)
RESNET50 = BackboneInfo(
    "resnet50",
    SOURCE,
    stages=(Stage("layer1", 256, 4), Stage("layer2", 512, 8), Stage("layer3", 1024, 16), Stage("layer4", 2048, 32)),
    default=("layer3", "layer4"),
    grids=(3, 1),
    weights=("torchvision",),
    normalised=True,
    published=25_557_032,
)
WIDTHS = (64, 128, 256, 512)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: [B,inputs,H,W] -> [B,width,H/stride,W/stride]."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = _downsample(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(y + shortcut)
        return result


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1: [B,inputs,H,W] -> [B,4*width,H/stride,W/stride]."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(y + shortcut)
        return result


class ResNet(Backbone):
    """Stem and four stages; the maps tapped are those after a stage's last rectifier."""

    def __init__(
        self,
        info: BackboneInfo,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        options: BackboneOptions,
    ) -> None:
        super().__init__(info, options)
        self.conv1 = nn.Conv2d(options.inputs, 64, 7, 2, 3, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        steps = [("conv1", ""), ("bn1", ""), ("relu", ""), ("maxpool", "")]
        inputs = 64
        for number, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True), 1):
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(block(inputs, width, 2 if number > 1 and index == 0 else 1))
                inputs = width * block.expansion
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            steps.append((f"layer{number}", f"layer{number}"))
        initialise(self)
        self.finish(steps)


class ResNet18(ResNet):
    """Two basic blocks a stage."""

    LEFT_OUT: dict[str, Shape] = {"fc.weight": (1000, 512), "fc.bias": (1000,)}  # noqa: RUF012

    def __init__(self, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(RESNET18, BasicBlock, (2, 2, 2, 2), options)


class ResNet50(ResNet):
    """3, 4, 6 and 3 bottlenecks."""

    LEFT_OUT: dict[str, Shape] = {"fc.weight": (1000, 2048), "fc.bias": (1000,)}  # noqa: RUF012

    def __init__(self, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(RESNET50, Bottleneck, (3, 4, 6, 3), options)
