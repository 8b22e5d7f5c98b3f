"""Where a light encoder starts: the released encoder's early layers with their least used channels taken out, and a projection
fitted in closed form. Before any step of training it then finds most of what the released one finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from training.models.efficientnet_lite import EfficientNetLite, InvertedResidual
from training.models.encoder import Encoder
from training.models.light import DEPTH, LightEncoder

RIDGE = 1e-3  # of the mean variance of the pooled features


class Usage:
    """Mean and standard deviation of what goes into a block's last convolution, by channel."""

    def __init__(self, block: InvertedResidual) -> None:
        self.sums = torch.zeros(3, block.project.in_channels, dtype=torch.float64)
        self.hook = block.project.register_forward_pre_hook(self._add)

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].detach().double().transpose(0, 1).flatten(1)  # [C,n]
        self.sums += torch.stack([torch.full((len(rows),), rows.shape[1]), rows.sum(1), rows.square().sum(1)])

    @property
    def mean(self) -> Tensor:
        return self.sums[1] / self.sums[0]

    @property
    def deviation(self) -> Tensor:
        return (self.sums[2] / self.sums[0] - self.mean.square()).clamp_min(0).sqrt()


@torch.no_grad()
def take_over(light: LightEncoder, large: Encoder, batches: Iterable[Tensor]) -> None:
    """Copy the large encoder's early layers into `light`, thinned by how much each channel is used on the drawings in `batches`.

    A channel counts by its deviation times its weight in the block's output; what the others give on average goes into the bias.
    Grey input makes one kernel of three: their sum, exact where the normalisation is the same for all channels. Raises ValueError
    where the large encoder is no EfficientNet-Lite0.
    """
    if large.config.backbone != "efficientnet_lite0":
        raise ValueError(f"the start is an encoder on {large.config.backbone}, expected efficientnet_lite0; leave --start out")
    source = cast("EfficientNetLite", large.backbone)
    old = [cast("InvertedResidual", block) for stage in list(source.stages)[:DEPTH] for block in stage.children()]
    new = [cast("InvertedResidual", block) for stage in light.stages for block in stage.children()]
    usage = [Usage(block) for block in old]
    source.eval()
    for pixels in batches:
        source(pixels)
    stem, first = cast("nn.Conv2d", light.stem[1]), cast("nn.Conv2d", source.stem[1])
    stem.weight.copy_(first.weight.sum(1, keepdim=True))
    stem.bias.copy_(first.bias)  # type: ignore[union-attr, arg-type]
    for mine, theirs, used in zip(new, old, usage, strict=True):
        used.hook.remove()
        _thin(mine, theirs, used)


def same_shape(light: LightEncoder, other: LightEncoder) -> None:
    """Copy the early layers of another light encoder, of another teacher say. Raises ValueError for one of another shape."""
    if light.config.expansions != other.config.expansions:
        raise ValueError(f"the start has expansions {other.config.expansions}, expected {light.config.expansions}")
    light.backbone.load_state_dict(other.backbone.state_dict())


def _thin(mine: InvertedResidual, theirs: InvertedResidual, used: Usage) -> None:
    weight = theirs.project.weight  # [outputs,hidden,1,1]
    worth = used.deviation * weight.flatten(1).double().norm(dim=0)
    kept = worth.argsort(descending=True)[: mine.project.in_channels].sort().values
    lost = torch.ones(len(worth), dtype=torch.bool)
    lost[kept] = False
    if mine.expands:
        mine.expand.weight.copy_(theirs.expand.weight[kept])
        mine.expand.bias.copy_(theirs.expand.bias[kept])  # type: ignore[index, union-attr]
    mine.depthwise.weight.copy_(theirs.depthwise.weight[kept])
    mine.depthwise.bias.copy_(theirs.depthwise.bias[kept])  # type: ignore[index, union-attr]
    mine.project.weight.copy_(weight[:, kept])
    constant = weight[:, lost].flatten(1).double() @ used.mean[lost]
    mine.project.bias.copy_(theirs.project.bias + constant)  # type: ignore[operator, union-attr]


@torch.no_grad()
def fit(light: LightEncoder, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set squeeze and projection: principal components of the cells, then ridge regression to the targets.

    `batches` are drawings [B,3,S,S] with the teacher's unit features [B,C].
    """
    maps, targets = [], []
    for pixels, features in batches:
        maps.append(light.cells(pixels))
        targets.append(features)
    cells = torch.cat([level.transpose(0, 1).flatten(1) for level in maps], dim=1).double()  # [112,n]
    mean = cells.mean(1, keepdim=True)
    centred = cells - mean
    components = torch.linalg.eigh(centred @ centred.T)[1].flip(1)[:, : light.config.squeeze].T
    light.squeeze.weight.copy_(components[:, :, None, None])
    light.squeeze.bias.copy_(-(components @ mean).squeeze(1))  # type: ignore[union-attr]
    rows = torch.cat([light.pooling(light.squeeze(level)) for level in maps]).double()
    wanted = torch.cat(targets).double()
    centre, middle = rows.mean(0), wanted.mean(0)
    gram = (rows - centre).T @ (rows - centre)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() * len(rows) ** 0.5)
    weight = torch.linalg.solve(gram, (rows - centre).T @ (wanted - middle)).T
    light.projection.weight.copy_(weight)
    light.projection.bias.copy_(middle - weight @ centre)
