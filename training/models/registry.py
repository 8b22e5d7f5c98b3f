"""Backbones by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from training.models import (
    efficientnet_lite,
    inception,
    mobilenetv2,
    mobilenetv3,
    resnet,
    resnetv2,
    squeezenet,
    timm_backbone,
    vgg,
)
from training.models.backbone import DEFAULTS, Backbone, BackboneInfo, BackboneOptions

_Build = Callable[[BackboneOptions], Backbone]

_ALL: tuple[tuple[BackboneInfo, _Build], ...] = (
    (mobilenetv2.INFO, mobilenetv2.MobileNetV2),
    (mobilenetv3.SMALL_INFO, mobilenetv3.MobileNetV3Small),
    (mobilenetv3.LARGE_INFO, mobilenetv3.MobileNetV3Large),
    (squeezenet.INFO, squeezenet.SqueezeNet),
    (resnet.RESNET18, resnet.ResNet18),
    (resnet.RESNET50, resnet.ResNet50),
    (resnetv2.INFO, resnetv2.ResNet50V2),
    (vgg.INFO, vgg.VGG16),
    (inception.INFO, inception.InceptionV3),
    *((info, partial(efficientnet_lite.EfficientNetLite, info)) for info in efficientnet_lite.INFOS),
    *((info, partial(timm_backbone.TimmBackbone, info)) for info in timm_backbone.INFOS),
)
_REGISTRY = {info.name: (info, build) for info, build in _ALL}


def backbone_names() -> tuple[str, ...]:
    """All names, those included whose optional package may be missing (`BackboneInfo.needs`)."""
    return tuple(_REGISTRY)


def backbone_info(name: str) -> BackboneInfo:
    """What is known of a backbone. Raises ValueError listing the names there are."""
    if name not in _REGISTRY:
        raise ValueError(f"there is no backbone {name!r}; there are {', '.join(_REGISTRY)}")
    return _REGISTRY[name][0]


def build_backbone(name: str, options: BackboneOptions = DEFAULTS) -> Backbone:
    """A backbone with random weights from PyTorch's generator.

    Raises ValueError for an unknown name, stage or combination of options, ModuleNotFoundError naming an optional package.
    """
    backbone_info(name)
    return _REGISTRY[name][1](options)


def whole(name: str) -> Backbone:
    """The network complete to its last stage."""
    return build_backbone(name, replace(DEFAULTS, stages=(backbone_info(name).stages[-1].name,)))
