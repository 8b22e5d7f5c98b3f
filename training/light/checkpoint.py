"""Light encoders in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from fgsbir_edge.errors import BundleFormatError
from training.checkpoint import read_meta, save_tensors
from training.models.light import LightConfig, LightEncoder

KIND = "light sketch encoder"


def save_light(path: Path, encoder: LightEncoder, meta: dict[str, Any]) -> None:
    """Write an encoder; `meta` says its input ("input") and what it was distilled from ("teacher")."""
    tensors = {f"light.{name}": tensor for name, tensor in encoder.state_dict().items()}
    save_tensors(path, tensors, {**meta, "kind": KIND, "light": encoder.config.to_json()})


def is_light(path: Path) -> bool:
    """Whether a checkpoint holds a light encoder."""
    return read_meta(path).get("kind") == KIND


def load_light(path: Path) -> tuple[LightEncoder, dict[str, Any]]:
    """An encoder in evaluation mode, and what it was saved with. Raises BundleFormatError for another kind of checkpoint."""
    meta = read_meta(path)
    if not is_light(path):
        raise BundleFormatError(f"{path}: no light sketch encoder; give a checkpoint of 'python -m training.distil'")
    encoder = LightEncoder(LightConfig.from_json(meta["light"]))
    encoder.load_state_dict({name.removeprefix("light."): tensor for name, tensor in load_file(path).items()})
    return encoder.eval(), meta
