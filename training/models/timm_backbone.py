"""Edge-sized networks from timm (an optional package): MobileNetV4, GhostNet.

timm's classification network is taken apart at its blocks, so that stages, truncation and weight files work as for the others and
keep timm's own array names.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from training.models.backbone import DEFAULTS, Backbone, BackboneInfo, BackboneOptions, Kind, Shape, Stage

INFOS = (
    BackboneInfo(
        "mobilenetv4_conv_small",
        "Qin et al., ECCV 2024; from timm",
        stages=(
            Stage("blocks.0", 32, 4),
            Stage("blocks.1", 64, 8),
            Stage("blocks.2", 96, 16),
            Stage("blocks.3", 128, 32),
            Stage("blocks.4", 960, 32),
        ),
        default=("blocks.2", "blocks.3"),
        grids=(5, 3),
        weights=("timm",),
        normalised=True,
        published=3_774_024,
        needs="timm",
    ),
    BackboneInfo(
        "ghostnet_100",
        "Han et al., CVPR 2020; from timm",
        stages=(
            Stage("blocks.0", 16, 2),
            Stage("blocks.2", 24, 4),
            Stage("blocks.4", 40, 8),
            Stage("blocks.6", 112, 16),
            Stage("blocks.8", 160, 32),
            Stage("blocks.9", 960, 32),
        ),
        default=("blocks.6", "blocks.8"),
        grids=(5, 3),
        weights=("timm",),
        normalised=True,
        published=5_182_508,
        needs="timm",
    ),
)
PREFIX = "net."
_kept: list[Any] = []  # a torch library's definitions live as long as it does


def import_timm(name: str = "timm") -> ModuleType:
    """timm (or torchvision), also beside a CPU build of PyTorch that torchvision's compiled operators do not fit.

    None of them is used here; declaring two is enough for the import. Raises ModuleNotFoundError saying what to install.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the package {error.name!r} is missing: pip install timm (or, to keep PyTorch as it is, --no-deps timm torchvision)"
        ) from None
    except RuntimeError as error:
        if torch.version.cuda is not None or _kept or "torchvision::nms does not exist" not in str(error):
            raise
    for loaded in [module for module in sys.modules if module.split(".")[0] in ("timm", "torchvision")]:
        del sys.modules[loaded]
    library = cast("Any", torch.library.Library)("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    return importlib.import_module(name)


class TimmBackbone(Backbone):
    """The timm network that `info` names."""

    def __init__(self, info: BackboneInfo, options: BackboneOptions = DEFAULTS) -> None:
        super().__init__(info, options)
        timm = cast("Any", import_timm())
        self.net: nn.Module = timm.create_model(info.name, pretrained=False, in_chans=options.inputs)
        stem = [name for name in ("conv_stem", "bn1", "act1") if isinstance(getattr(self.net, name, None), nn.Module)]
        blocks = [f"blocks.{index}" for index in range(len(self.net.get_submodule("blocks")._modules))]
        state = self.net.state_dict()
        for name in [name for name, _ in self.net.named_children() if name not in (*stem, "blocks")]:
            delattr(self.net, name)
        self._left_out = {name: tuple(tensor.shape) for name, tensor in state.items() if name not in self.net.state_dict()}
        ends = {stage.name for stage in info.stages}
        self.finish([(f"net.{name}", name if name in ends else "") for name in (*stem, *blocks)])

    def names(self, kind: Kind) -> dict[str, str]:
        if kind != "timm":
            return super().names(kind)
        return {name: name.removeprefix(PREFIX) for name in self.state_dict()}

    def left_out(self, kind: Kind) -> dict[str, Shape]:
        return self._left_out if kind == "timm" else super().left_out(kind)
