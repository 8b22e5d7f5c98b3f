"""Pretrained weights into backbones: by name, every array checked, nothing guessed.

Kinds of file: "torchvision" and "timm" are state dicts (.safetensors, or .pth read without running any code in it), "npz" are the
arrays of webnn-samples. A file must hold every array of the network complete to its last stage, with the right shape, and may
hold the classifier's; anything else is an error that names the first array in network order that does not fit. Each array goes
to one place and each tensor of the network is filled once.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fgsbir_edge.errors import FgsbirError
from training.models.backbone import BRANCH_CHANNELS, Backbone, Kind, Shape
from training.models.registry import backbone_info, whole

COUNTER = "num_batches_tracked"  # absent in old files, and no business of inference


class WeightsError(FgsbirError, ValueError):
    """A weight file is unreadable, damaged, or made for another network."""

    exit_code = 41


@dataclass(frozen=True)
class LoadReport:
    """Array names of a file: those that went into the network, and those that it has no place for (classifier, later stages)."""

    used: tuple[str, ...]
    left_out: tuple[str, ...]


def read_arrays(path: str | Path) -> dict[str, Tensor]:
    """All arrays of an .npz, .safetensors, .pth or .pt file. No code in the file is run. Raises WeightsError."""
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: torch.from_numpy(file[name]) for name in file.files}
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix in (".pth", ".pt"):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
                raise WeightsError(f"{path}: not a state dict (names to tensors); save model.state_dict()")
            return dict(loaded)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: cannot be read as weights: {reason}") from None
    raise WeightsError(f"{path}: weights are .npz, .safetensors, .pth or .pt files")


@dataclass(frozen=True)
class Layout:
    """What a file of one kind holds for one network: `required` in network order, `optional` beyond it, `ignored` a pattern."""

    required: dict[str, Shape]
    optional: dict[str, Shape]
    ignored: str


@cache
def layout(name: str, kind: Kind) -> Layout:
    """The layout of a backbone's files of this kind; nothing is allocated."""
    with torch.device("meta"):
        network = whole(name)
    shapes = network.layout(kind)
    counters = {array: shape for array, shape in shapes.items() if array.endswith(COUNTER)}
    required = {array: shape for array, shape in shapes.items() if array not in counters}
    return Layout(required, {**counters, **network.left_out(kind)}, network.ignored(kind))


def check_arrays(arrays: Mapping[str, Tensor], expected: Layout, what: str) -> None:
    """Raises WeightsError naming the first array, in network order, that is missing, misshapen, of another type or unknown."""
    for name, shape in expected.required.items():
        if name not in arrays:
            raise WeightsError(
                f"{what}: {name!r} is missing, expected shape {shape}; is the file truncated or another network's?"
            )
        _check_array(name, arrays[name], shape, what)
    for name, tensor in arrays.items():
        if name in expected.optional:
            if not name.endswith(COUNTER):
                _check_array(name, tensor, expected.optional[name], what)
        elif name not in expected.required and not (expected.ignored and re.fullmatch(expected.ignored, name)):
            raise WeightsError(f"{what}: {name!r} (shape {tuple(tensor.shape)}) is not an array of this network")


def _check_array(name: str, tensor: Tensor, shape: Shape, what: str) -> None:
    if tuple(tensor.shape) != shape:
        raise WeightsError(f"{what}: {name!r} has shape {tuple(tensor.shape)}, expected {shape}")
    if not tensor.is_floating_point():
        raise WeightsError(f"{what}: {name!r} holds {tensor.dtype}, expected floating-point numbers")
    if not bool(torch.isfinite(tensor).all()):
        raise WeightsError(f"{what}: {name!r} holds NaN or infinity")


def packaged_weights(name: str) -> Path | None:
    """The weight file of the installed package that carries this backbone's weights; None where there is none."""
    package = backbone_info(name).package
    found = find_spec(package) if package else None
    if found is None or found.origin is None:
        return None
    return next(iter(sorted((Path(found.origin).parent / "models").glob("*.pth"))), None)


def load_weights(backbone: Backbone, path: str | Path) -> LoadReport:
    """Load a weight file into `backbone`, whose stages may be any. Raises WeightsError; the backbone then is as it was."""
    info = backbone.info
    suffix_kinds: dict[bool, tuple[Kind, ...]] = {True: ("npz",), False: ("torchvision", "timm")}
    kinds = [kind for kind in info.weights if kind in suffix_kinds[Path(path).suffix == ".npz"]]
    if not kinds:
        raise WeightsError(f"{path}: {info.name} loads {' and '.join(info.weights)} files, not {Path(path).suffix or 'this'}")
    return load_arrays(backbone, read_arrays(path), kinds[0], f"{path} ({info.name}, {kinds[0]} names)")


@torch.no_grad()
def load_arrays(backbone: Backbone, arrays: Mapping[str, Tensor], kind: Kind, what: str = "weights") -> LoadReport:
    """Load arrays already in memory, as `load_weights` does; `what` begins an error's message."""
    expected = layout(backbone.info.name, kind)
    check_arrays(arrays, expected, what)
    state = backbone.state_dict()
    for name, source in backbone.convert(kind, arrays).items():
        target = state[name]
        if target.shape == source.shape:
            target.copy_(source)
        else:
            _widen(target, source)
    own = set(backbone.layout(kind))
    return LoadReport(tuple(name for name in arrays if name in own), tuple(name for name in arrays if name not in own))


def _widen(target: Tensor, source: Tensor) -> None:
    """Weights for three channels into a stem with more: a convolution ignores the others at first, a norm passes them."""
    if target.dim() == 4:
        target.zero_()
        target[:, :BRANCH_CHANNELS].copy_(source)
    else:
        target[:BRANCH_CHANNELS].copy_(source)
