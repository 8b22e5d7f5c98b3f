"""The pair discriminator D_C (METHODS B.5): how certain it is that a sketch is a person's drawing of a photo.

pix2pix's 70x70 PatchGAN (Isola et al., CVPR 2017) on photo and sketch side by side; the paper's one number for each pair is the
mean of its map of sigmoids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from training.losses.common import full_precision

SLOPE = 0.2  # of the leaky ReLU
INPUTS = 6  # photo and sketch, three channels each
WIDEST = 8  # times the width: no layer has more channels
SMALLEST = 1e-6  # keeps the logarithm of a certain 0 finite

PairNorm = Literal["instance", "batch", "none"]
Target = Literal["scalar", "patch"]
Fakes = Literal["unlabelled", "labelled", "both"]
_CHOICES = {"norm": PairNorm, "target": Target, "fakes": Fakes}


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Shape of D_C and how it is trained. The defaults are the paper's where it says anything.

    size        pixels a side of photo and sketch. The paper's 256; less is a deviation for computers without a GPU
    width       channels of the first layer, doubled by each next one. pix2pix's 64; less for computers without a GPU
    layers      of stride 2: 3 make the receptive field 70x70 pixels, 2 make it 34x34, 1 16x16
    norm        "instance", "batch" or "none". pix2pix trained with batches of one, where its batch norm is instance norm; in
                larger batches batch norm would make a pair's certainty depend on its neighbours and on whether it is training
    target      "scalar": cross-entropy of the mean of the map, the paper's one number; "patch": the mean of the map's
                cross-entropies, which is pix2pix's own and gives every patch its gradient
    rate        of Adam; the paper does not name any
    clip        largest norm of the gradient; the paper does not speak of any
    fakes       which photos the generated sketches of its training belong to. "unlabelled" is the paper's; it lets D_C tell real
                from fake by the photo alone, since every real pair has one of a few labelled photos. "labelled" takes the same
                photos for real and fake, so that only the sketch can tell; "both" mixes
    mismatched  weight, beside the drawings' 1, of people's sketches of other photos as further fakes (Reed et al., ICML 2016):
                without them nothing asks D_C whether sketch and photo belong together. 0, the paper's, for none
    smoothing   real pairs have the target 1 - smoothing (Salimans et al., 2016); 0, the paper's, for none
    flip        probability that a pair is mirrored, photo and sketch alike, real or fake

    Raises:
        ValueError: a field out of range; the message names it.
    """

    size: int = 256
    width: int = 64
    layers: int = 3
    norm: PairNorm = "instance"
    target: Target = "scalar"
    rate: float = 1e-4
    clip: float = 10.0
    fakes: Fakes = "unlabelled"
    mismatched: float = 0.0
    smoothing: float = 0.0
    flip: float = 0.5

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"discriminator {name} is {getattr(self, name)!r}, expected one of {', '.join(get_args(kind))}")
        if self.width < 1 or not 1 <= self.layers <= 5 or min(self.rate, self.clip) <= 0 or self.mismatched < 0:
            raise ValueError(
                f"discriminator width {self.width}, rate {self.rate} and clip {self.clip} must be positive, "
                f"layers {self.layers} 1 to 5, mismatched {self.mismatched} not negative"
            )
        if not (0 <= self.smoothing < 0.5 and 0 <= self.flip <= 1):
            raise ValueError(f"discriminator smoothing is {self.smoothing} and flip {self.flip}, expected [0, 0.5) and [0, 1]")
        if self.size < self.smallest:
            raise ValueError(f"discriminator size is {self.size} pixels, {self.layers} layers need at least {self.smallest}")

    @property
    def smallest(self) -> int:
        """The fewest pixels a side that leave 2x2 in the map; an instance norm needs more than one position."""
        return 4 << self.layers


class PatchDiscriminator(nn.Module):
    """Photos and sketches [B,3,S,S] each -> logits [B,h,w] of "a person drew this of that", one for each patch.

    With the defaults 2,767,809 parameters and 30x30 patches for 256 pixels; the receptive field of a patch is 70x70. Weights
    start from N(0, 0.02), biases from 0, as in pix2pix.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.Conv2d(INPUTS, config.width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        inputs = config.width
        for number in range(1, config.layers + 1):
            outputs = config.width * min(2**number, WIDEST)
            stride = 2 if number < config.layers else 1
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1))
            layers += [*_norm(config.norm, outputs), nn.LeakyReLU(SLOPE)]
            inputs = outputs
        layers.append(nn.Conv2d(inputs, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, photos: Tensor, sketches: Tensor) -> Tensor:
        logits: Tensor = self.layers(torch.cat([photos, sketches], dim=1))
        return logits[:, 0].float()


def _norm(kind: PairNorm, channels: int) -> list[nn.Module]:
    if kind == "none":
        return []
    return [nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels)]


def certainty(logits: Tensor) -> Tensor:
    """D_C(p, s) of each pair: logits [B,h,w] -> [B] in [0,1], the mean of the sigmoid map (METHODS B.5)."""
    return logits.sigmoid().mean(dim=(1, 2))


@full_precision
def certainty_loss(logits: Tensor, real: float, target: Target = "scalar") -> Tensor:
    """Binary cross-entropy of pairs that are `real` (1: all are a person's, 0: none, between: smoothed).

    `L_DC = -E log D_C(real) - E log(1 - D_C(fake))` is the sum of two of these. logits [B,h,w] -> a number.
    """
    goal = logits.new_full(logits.shape if target == "patch" else logits.shape[:1], real)
    if target == "patch":
        return nn.functional.binary_cross_entropy_with_logits(logits, goal)
    certain = certainty(logits).clamp(SMALLEST, 1.0 - SMALLEST)
    return nn.functional.binary_cross_entropy(certain, goal)
