"""VGG16 without batch norm (Simonyan and Zisserman, ICLR 2015, configuration D), under torchvision's names.

The retrieval baselines of the 2022 paper and the generator of the 2021 paper use `features` to the last pooling ("pool5":
512 channels, 8x8 cells for 256 pixels).
"""

from __future__ import annotations

from torch import nn

from training.models.backbone import DEFAULTS, Backbone, BackboneInfo, BackboneOptions, Shape, Stage

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions before each pooling

INFO = BackboneInfo(
    "vgg16",
    "Simonyan and Zisserman, ICLR 2015",
    stages=(
        Stage("pool1", 64, 2),
        Stage("pool2", 128, 4),
        Stage("pool3", 256, 8),
        Stage("pool4", 512, 16),
        Stage("conv5_3", 512, 16),
        Stage("pool5", 512, 32),
    ),
    default=("pool5",),
    grids=(1,),
    weights=("torchvision",),
    normalised=False,
    published=138_357_544,
)


class VGG16(Backbone):
    """`features` alone; the three fully connected layers are no use to retrieval."""

    LEFT_OUT: dict[str, Shape] = {  # noqa: RUF012
        "classifier.0.weight": (4096, 25088),
        "classifier.0.bias": (4096,),
        "classifier.3.weight": (4096, 4096),
        "classifier.3.bias": (4096,),
        "classifier.6.weight": (1000, 4096),
        "classifier.6.bias": (1000,),
    }

    def __init__(self, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(INFO, options)
        layers: list[nn.Module] = []
        ends: dict[int, str] = {}
        inputs = options.inputs
        for number, (channels, count) in enumerate(BLOCKS, 1):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = channels
            if number == len(BLOCKS):
                ends[len(layers) - 1] = "conv5_3"
            layers.append(nn.MaxPool2d(2))
            ends[len(layers) - 1] = f"pool{number}"
        for layer in layers:
            if isinstance(layer, nn.Conv2d):  # He, fan in: no norm holds the scale
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.features = nn.Sequential(*layers)
        self.finish([(f"features.{index}", ends.get(index, "")) for index in range(len(layers))])
