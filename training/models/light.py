"""The light sketch encoder: the first five stages of EfficientNet-Lite0 with thinner blocks, one grey channel, a small input.

Sketches are grey, and lines need fewer filters than photos, so most of the large encoder's work is lost on them. The last map is
squeezed to a few channels for each cell, so that where things are is kept, and projected to the large encoder's features. Its
output has that encoder's meaning; only sketches are to be put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from training.models.efficientnet_lite import STAGES, STEM, STRIDES, InvertedResidual, SamePad
from training.models.pooling import TightPool, windows

DEPTH = 5  # stages of the large network that are kept
THINNED = DEPTH - 1  # the first stage does not expand


@dataclass(frozen=True)
class LightConfig:
    """Shape of a light encoder.

    size         square input, pixels
    expansions   of the blocks of stages 2 to 5; 6 is EfficientNet-Lite0's
    squeeze      channels that are left of each cell of the last map
    cells        pooled cells a side
    features     width of what it returns: that of the encoder it is distilled from

    Raises:
        ValueError: a field out of range.
    """

    size: int = 112
    expansions: tuple[int, int, int, int] = (3, 4, 6, 6)
    squeeze: int = 24
    cells: int = 7
    features: int = 240

    def __post_init__(self) -> None:
        if len(self.expansions) != THINNED or not all(1 <= number <= 6 for number in self.expansions):
            raise ValueError(f"expansions are {self.expansions}, expected {THINNED} numbers from 1 to 6")
        if min(self.squeeze, self.cells, self.features) < 1:
            raise ValueError(f"squeeze {self.squeeze}, cells {self.cells} and features {self.features} must be positive")
        windows(self.side, self.cells)

    @property
    def side(self) -> int:
        """Pixels a side of the last map."""
        return -(-self.size // STRIDES[DEPTH - 1])

    def to_json(self) -> dict[str, Any]:
        """The JSON form: lists for tuples."""
        return {**asdict(self), "expansions": list(self.expansions)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LightConfig:
        """The reverse of ``to_json``. Raises ValueError and TypeError for what this version does not know."""
        second, third, fourth, fifth = data["expansions"]
        return cls(**{**data, "expansions": (second, third, fourth, fifth)})


class LightEncoder(nn.Module):
    """Pixels of sketches [B,3,S,S], normalised, all channels alike -> unit features [B,C]. The first channel is looked at."""

    def __init__(self, config: LightConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(SamePad(3, 2), nn.Conv2d(1, STEM, 3, 2), nn.ReLU6())
        inputs = STEM
        stages = []
        for (_, outputs, count, stride, kernel), expansion in zip(STAGES[:DEPTH], (1, *config.expansions), strict=True):
            blocks = []
            for index in range(count):
                blocks.append(InvertedResidual(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.squeeze = nn.Conv2d(inputs, config.squeeze, 1)
        self.pooling = TightPool(config.cells)
        self.projection = nn.Linear(config.squeeze * config.cells**2, config.features)

    @property
    def backbone(self) -> nn.ModuleList:
        """What starts from the large encoder's weights."""
        return nn.ModuleList([self.stem, self.stages])

    def cells(self, x: Tensor) -> Tensor:
        """The last map: [B,3,S,S] -> [B,112,h,h]."""
        last: Tensor = self.stages(self.stem(x[:, :1]))
        return last

    def pool(self, x: Tensor) -> Tensor:
        """The squeezed, pooled map: [B,3,S,S] -> [B,R]."""
        pooled: Tensor = self.pooling(self.squeeze(self.cells(x)))
        return pooled

    def project(self, pooled: Tensor) -> Tensor:
        """[B,R] -> unit features [B,C]."""
        return F.normalize(self.projection(pooled), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.pool(x))
