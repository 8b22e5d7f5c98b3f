"""One frozen description of a photo-to-sketch generator, as it stands in a configuration file and in a checkpoint's JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.models.backbone import BackboneOptions, Stage
from training.models.registry import backbone_info

MapPooling = Literal["avg", "max"]


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of a generator (METHODS B.1). The defaults are the paper's but for `least_deviation`.

    backbone         a name of training.models.registry; the paper's is VGG16 with ImageNet weights
    stage            the map that is attended to; empty: the backbone's last (VGG16: pool5, 512 x 8 x 8 for 256 pixels)
    size             square photo, pixels
    latent           width Z of the latent vector
    hidden           width H of the LSTM's state
    attention        width A of the attention's hidden layer
    mixtures         components M of the offsets' mixture
    use_attention    False: the global vector takes the glimpse's place at every step, the paper's ablation "without 2D attention"
    pooling          of the global vector: "avg" as the paper has it, "max" as its code has it
    max_length       T_max, rows after which a drawing stops without an end token
    train_backbone   False keeps the backbone as loaded, so that a photo's map is computed once for a whole run: on a CPU the
                     backbone costs more than everything behind it. The paper trains it
    positions        True: the glimpse and the keys hold where their cells lie, two numbers in [-1,1] beside the channels; every
                     step and its query see where the pen is on the canvas; and a drawing begins with the move from the canvas'
                     middle to its first point. The paper's generator sees what is there but not where, and must count up where
                     its pen is, from a first point whose place was dropped: that takes more drawings than a small set has
    dropout          in training, of the map's channels and of the state that the output layer sees: a small data set is soon
                     known by heart. The paper has none
    least_deviation  added to every component's standard deviation, in units of the offsets' scale. The paper has none, and a
                     component that settles on an offset of exactly 0 (every upright line has them: points are rounded) takes its
                     density to infinity. 0.01 is about a third of a pixel

    Raises:
        ValueError: a number out of range, an unknown backbone, stage or pooling.
    """

    backbone: str = "vgg16"
    stage: str = ""
    size: int = 256
    latent: int = 128
    hidden: int = 512
    attention: int = 256
    mixtures: int = 20
    use_attention: bool = True
    pooling: MapPooling = "avg"
    max_length: int = 100
    train_backbone: bool = True
    positions: bool = False
    dropout: float = 0.0
    least_deviation: float = 0.01

    def __post_init__(self) -> None:
        tap = self.tap
        if min(self.latent, self.hidden, self.attention, self.mixtures, self.max_length) < 1:
            raise ValueError("latent, hidden, attention, mixtures and max_length must be positive")
        if self.size < tap.stride:
            raise ValueError(f"size is {self.size} pixels, {tap.name} of {self.backbone} needs at least {tap.stride}")
        if self.pooling not in ("avg", "max"):
            raise ValueError(f'pooling is {self.pooling!r}, expected "avg" or "max"')
        for name in ("dropout", "least_deviation"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number from 0 to below 1")

    @property
    def tap(self) -> Stage:
        """The stage whose map is attended to."""
        info = backbone_info(self.backbone)
        return info.stage(self.stage) if self.stage else info.stages[-1]

    @property
    def options(self) -> BackboneOptions:
        """How the backbone is to be built. Batch norms keep their running statistics: maps must not depend on the batch."""
        normalised = backbone_info(self.backbone).normalised
        return BackboneOptions((self.tap.name,), norm="frozen" if normalised else "own")

    @property
    def channels(self) -> int:
        """Width of a glimpse: the map's channels, and two more with `positions`."""
        return self.tap.channels + 2 * self.positions
