"""What every backbone is: a row of modules, some of whose outputs are stages that an encoder can tap.

A backbone knows its stages (name, channels, stride), the normalisation its weights expect, and what its arrays are called in a
weight file; weights.py does the loading. Modules behind the last tapped stage are dropped, so that an encoder carries, trains
and exports nothing that it does not use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from fgsbir_edge.preprocess import InputSpec
from training.models.norm import NormConv2d, add_norm

Norm = Literal["own", "frozen", "fresh"]
Kind = Literal["torchvision", "npz", "timm"]
Shape = tuple[int, ...]

BRANCH_CHANNELS = 3  # what every weight file was trained on; an input beyond these (an edge map) starts with zero weights


@dataclass(frozen=True)
class Stage:
    """A tap: its map is about S/stride pixels a side (less where convolutions are not padded)."""

    name: str
    channels: int
    stride: int


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone without building it.

    `default` names the stages tapped unless told otherwise, `grids` their usual pooling cells a side. `published` is the number
    of parameters of the whole classification network as published, None where only a part of it is implemented. `normalised`
    says whether it has normalisation layers of its own. `needs` is an optional package it is built from, `package` one that
    carries its pretrained weights. `mean` and `std` are what its weights expect of pixels in [0,1].
    """

    name: str
    source: str
    stages: tuple[Stage, ...]
    default: tuple[str, ...]
    grids: tuple[int, ...]
    weights: tuple[Kind, ...]
    normalised: bool
    published: int | None = None
    needs: str = ""
    package: str = ""
    mean: tuple[float, float, float] = InputSpec.mean
    std: tuple[float, float, float] = InputSpec.std

    def stage(self, name: str) -> Stage:
        """The stage of this name. Raises ValueError listing those there are."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ValueError(f"{self.name} has no stage {name!r}; there are {', '.join(stage.name for stage in self.stages)}")

    def select(self, names: Sequence[str]) -> tuple[Stage, ...]:
        """Stages by name, in the network's order. Raises ValueError for unknown, repeated or unordered names."""
        chosen = tuple(self.stage(name) for name in names)
        order = [self.stages.index(stage) for stage in chosen]
        if not order or order != sorted(set(order)):
            ordered = ", ".join(stage.name for stage in self.stages)
            raise ValueError(f"stages of {self.name} are {list(names)}, expected at least one, each once, in the order {ordered}")
        return chosen


@dataclass(frozen=True)
class BackboneOptions:
    """`stages` empty: the default ones. `inputs` 3 or more channels. `transform_input` is InceptionV3's alone.

    `norm` "own": as the network was published; weights with folded batch norm have none. "frozen": the running statistics stay as
    loaded while training (scale and shift go on learning). "fresh": a new batch norm behind every convolution of a network that
    has none; in evaluation it changes nothing until norm.calibrate or training moves it.
    """

    stages: tuple[str, ...] = ()
    inputs: int = BRANCH_CHANNELS
    norm: Norm = "own"
    transform_input: bool = False


DEFAULTS = BackboneOptions()


class Backbone(nn.Module):
    """Normalised RGB float32 [B,3,S,S] ([B,inputs,S,S]) -> one map [B,channels,~S/stride,~S/stride] for each tapped stage.

    Sub-classes build their modules, then call `finish` with their order.
    """

    LEFT_OUT: dict[str, Shape] = {}  # arrays a torchvision file may hold beyond this network: the classifier  # noqa: RUF012

    def __init__(self, info: BackboneInfo, options: BackboneOptions) -> None:
        super().__init__()
        if options.norm not in get_args(Norm):
            raise ValueError(f"norm is {options.norm!r}, expected one of {get_args(Norm)}")
        if options.norm == "fresh" and info.normalised:
            raise ValueError(f'{info.name} has normalisation layers of its own; use norm "own" or "frozen"')
        if options.norm == "frozen" and not info.normalised:
            raise ValueError(f'{info.name} has no running statistics to freeze; use norm "own" or "fresh"')
        if options.inputs < BRANCH_CHANNELS:
            raise ValueError(f"inputs is {options.inputs}, expected {BRANCH_CHANNELS} or more channels")
        if options.transform_input and info.name != "inception_v3":
            raise ValueError(f"transform_input belongs to inception_v3, not to {info.name}")
        self.info, self.options = info, options
        self.taps = info.select(options.stages or info.default)
        self.steps: tuple[tuple[str, str], ...] = ()

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the tapped stages."""
        return tuple(stage.channels for stage in self.taps)

    def finish(self, steps: Sequence[tuple[str, str]]) -> None:
        """Set the order of modules, (path, name of the stage it ends or ""), drop those not needed, put in fresh norms."""
        last = [stage for _, stage in steps].index(self.taps[-1].name)
        self.steps = tuple(steps[: last + 1])
        for path, _ in steps[last + 1 :]:
            parent, _, child = path.rpartition(".")
            delattr(self.get_submodule(parent), child)
        if self.options.norm == "fresh":
            add_norm(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        names = {stage.name for stage in self.taps}
        maps = []
        for path, stage in self.steps:
            x = self.get_submodule(path)(x)
            if stage in names:
                maps.append(x)
        return tuple(maps)

    def train(self, mode: bool = True) -> Backbone:
        """As in PyTorch; with norm "frozen" batch norms stay in evaluation."""
        super().train(mode)
        if self.options.norm == "frozen":
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def side(self, size: int) -> tuple[int, ...]:
        """Pixels a side of the tapped maps for a square input of `size`; nothing is computed. Raises ValueError if too small."""
        state = {name: tensor.to("meta") for name, tensor in (*self.named_parameters(), *self.named_buffers())}
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            pixels = torch.empty(1, self.options.inputs, size, size, device="meta")
            maps = cast("tuple[Tensor, ...]", torch.func.functional_call(self, state, (pixels,)))
        except RuntimeError as error:
            raise ValueError(f"{size} pixels are too few for {self.info.name}: {error}") from None
        finally:
            for module, mode in modes.items():
                module.training = mode
        return tuple(level.shape[-1] for level in maps)

    def names(self, kind: Kind) -> dict[str, str]:
        """State key -> array name in a weight file of this kind, in network order; fresh norms are in no file."""
        if kind != "torchvision":
            raise NotImplementedError(f"{self.info.name} has no names for {kind} files")
        fresh = tuple(f"{path}.norm." for path, module in self.named_modules() if isinstance(module, NormConv2d))
        return {name: name for name in self.state_dict() if not name.startswith(fresh)}

    def layout(self, kind: Kind) -> dict[str, Shape]:
        """Array name -> shape of all that such a file must hold for this network, in network order."""
        state = self.state_dict()
        return {array: tuple(state[name].shape) for name, array in self.names(kind).items()}

    def convert(self, kind: Kind, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Checked arrays of such a file -> tensors by state key."""
        return {name: arrays[array] for name, array in self.names(kind).items() if array in arrays}

    def ignored(self, kind: Kind) -> str:
        """Regular expression of arrays in such a file that nothing here uses and whose shape is not known here."""
        return ""

    def left_out(self, kind: Kind) -> dict[str, Shape]:
        """Arrays of such a file that belong to the classification network but not to the backbone."""
        return self.LEFT_OUT if kind == "torchvision" else {}


def initialise(network: nn.Module) -> None:
    """He's initialisation (fan out) of every convolution, batch norms as the identity: for networks that have batch norms."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
