"""Generators as files: weights as safetensors, configuration and offset scale beside them; written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
