"""Generators as files: weights as safetensors, configuration and offset scale beside them; written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from training.checkpoint import read_meta, save_tensors
from training.config import from_table, to_table
from training.generation.config import GeneratorConfig
from training.generation.network import Generator


def save_generator(path: Path, generator: Generator, meta: dict[str, Any]) -> None:
    """Write all weights, the backbone's too, and the metadata, which must say "scale" (canvas units of an offset of 1) and
    "input" (InputSpec's manifest: how photos become pixels).

    Raises ValueError without these.
    """
    if missing := sorted({"scale", "input"} - set(meta)):
        raise ValueError(f"a generator's metadata lacks {missing[0]!r}: nobody could draw with it")
    save_tensors(path, generator.state_dict(), {**meta, "generator": to_table(generator.config)})


def load_generator(path: Path) -> tuple[Generator, dict[str, Any]]:
    """A generator in evaluation mode, and the metadata it was saved with: "scale", "input", "sequences" and more.

    Raises KeyError, ConfigError or RuntimeError for a file that holds something else.
    """
    meta = read_meta(path)
    generator = Generator(from_table(GeneratorConfig, meta["generator"], str(path)))
    generator.load_state_dict(load_file(path))
    return generator.eval(), meta


def write_halved(source: Path, target: Path) -> None:
    """A generator's checkpoint with weights of 16 bits, half the file, to be passed on; loaded, it computes in 32 bits as ever.

    Raises what load_generator raises.
    """
    load_generator(source)  # only a generator's file
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(source).items()}
    if broken := [
        name for name, tensor in tensors.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]:
        raise ValueError(f"{source}: {broken[0]} does not fit into 16 bits")
    save_tensors(target, tensors, read_meta(source))
