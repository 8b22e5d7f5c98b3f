"""One frozen description of an encoder and its head, as it stands in a checkpoint's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from training.models.backbone import BRANCH_CHANNELS, BackboneOptions, Norm, Stage
from training.models.registry import backbone_info

Pooling = Literal["avg", "tight", "max", "gem"]
Attention = Literal["paper", "scaled", "none"]
Branch = Literal["photo", "edge", "both"]
HeadKind = Literal["linear", "identity"]

_CHOICES = {"pooling": Pooling, "attention": Attention, "branch": Branch, "head": HeadKind, "norm": Norm}


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder and its head. The defaults are the shipped model's; empty `stages` and `grids` are the backbone's own.

    size         square input, pixels
    features     width C of what the encoder returns; without a projection it must be the pooled width
    embedding    width D of what the head returns
    grids        pooled cells a side, one number for each stage; 1 is global pooling
    dropout      of pooled features in training: the projection has more weights than there are pairs to learn from
    backbone     a name of training.models.registry
    stages       which maps are pooled, in the network's order; several are concatenated
    pooling      over each cell: average (equal windows, or "tight" ones), maximum or generalised mean (pooling.py)
    attention    spatial attention with residual on every stage: as in the papers, scaled up by the number of positions, none
    projection   a linear layer from the pooled features to C; without, C is the pooled width
    head         a linear layer, or none ("identity": unit features are the embedding; the matrix is there but does not train)
    branch       what the backbone sees: the pixels, their edges, or both (an edge map as a fourth channel made inside)
    norm         normalisation layers (backbone.BackboneOptions)
    transform_input   InceptionV3's remap of the pixels (inception.py)
    """

    size: int = 160
    features: int = 512
    embedding: int = 128
    grids: tuple[int, ...] = ()
    dropout: float = 0.0
    backbone: str = "mobilenetv2"
    stages: tuple[str, ...] = ()
    pooling: Pooling = "avg"
    attention: Attention = "paper"
    projection: bool = True
    head: HeadKind = "linear"
    branch: Branch = "photo"
    norm: Norm = "own"
    transform_input: bool = False

    def __post_init__(self) -> None:
        info = backbone_info(self.backbone)
        if not self.stages:
            object.__setattr__(self, "stages", info.default)
        if not self.grids:
            object.__setattr__(self, "grids", info.grids if self.stages == info.default else (1,) * len(self.stages))
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(get_args(kind))}")
        taps = info.select(self.stages)
        if len(self.grids) != len(taps) or min(self.grids) < 1:
            raise ValueError(
                f"grids are {self.grids}, expected a positive number for each of the stages {', '.join(self.stages)}"
            )
        smallest = max(stage.stride * cells for stage, cells in zip(taps, self.grids, strict=True))
        if self.size < smallest:
            raise ValueError(f"size is {self.size} pixels, grids {self.grids} need at least {smallest}")
        if min(self.features, self.embedding) < 1 or not 0.0 <= self.dropout < 1.0:
            raise ValueError(
                f"features {self.features} and embedding {self.embedding} must be positive, dropout {self.dropout} in [0,1)"
            )
        if not self.projection and self.features != self.pooled:
            raise ValueError(
                f"features is {self.features}; without a projection it is the pooled width: set features={self.pooled}"
            )
        if self.head == "identity" and self.embedding != self.features:
            raise ValueError(
                f"embedding is {self.embedding}; without a head it is the features' width: set it to {self.features}"
            )

    @property
    def taps(self) -> tuple[Stage, ...]:
        """The pooled stages."""
        return backbone_info(self.backbone).select(self.stages)

    @property
    def pooled(self) -> int:
        """Width R of the pooled features, all stages side by side."""
        return sum(stage.channels * cells * cells for stage, cells in zip(self.taps, self.grids, strict=True))

    @property
    def options(self) -> BackboneOptions:
        """How the backbone is to be built."""
        inputs = BRANCH_CHANNELS + (self.branch == "both")
        return BackboneOptions(self.stages, inputs, self.norm, self.transform_input)

    def to_json(self) -> dict[str, Any]:
        """The JSON form: lists for tuples."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EncoderConfig:
        """The reverse of ``to_json``; what a file from before a field existed lacks has its default.

        Raises ValueError for fields that this version does not know, and what the constructor does.
        """
        if unknown := sorted(set(data) - {field.name for field in fields(cls)}):
            raise ValueError(f"encoder configuration has an unknown field {unknown[0]!r}; was it written by a newer version?")
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        return cls(**values)


def paper_configs() -> dict[str, EncoderConfig]:
    """Encoders of the papers and their code (METHODS A.1, A.2), by name."""
    return {
        "cvpr2021": EncoderConfig(
            256, 2048, 2048, backbone="inception_v3", stages=("Mixed_7c",), projection=False, head="identity"
        ),
        "on-the-fly": EncoderConfig(299, 2048, 64, backbone="inception_v3", attention="none", projection=False),
        "eccv2022-baseline": EncoderConfig(299, 512, 64, backbone="vgg16", pooling="max", attention="none", projection=False),
        "eccv2022": EncoderConfig(299, 512, 64, backbone="vgg16", projection=False),
    }
