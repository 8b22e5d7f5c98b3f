"""Checkpoints: tensors as safetensors, everything else as JSON beside them; written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.models.encoder import EmbeddingHead, Encoder, EncoderConfig, build_encoder, build_head


def save_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write `tensors` and their JSON metadata to one safetensors file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary, {"meta": json.dumps(meta)})
    os.replace(temporary, path)


def read_meta(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        meta: dict[str, Any] = json.loads((file.metadata() or {}).get("meta", "{}"))
    return meta


def save_model(path: Path, encoder: Encoder, head: EmbeddingHead, meta: dict[str, Any]) -> None:
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    tensors |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    save_tensors(path, tensors, {**meta, "config": encoder.config.to_json()})


def load_model(path: Path) -> tuple[Encoder, EmbeddingHead, dict[str, Any]]:
    """Encoder and head in evaluation mode, and the metadata they were saved with."""
    meta, tensors = read_meta(path), load_file(path)
    config = EncoderConfig.from_json(meta["config"])
    encoder, head = build_encoder(config), build_head(config)
    _load(encoder, tensors, "encoder.")
    _load(head, tensors, "head.")
    return encoder.eval(), head.eval(), meta


def _load(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    module.load_state_dict({name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)})


def save_training_state(path: Path, optimizer: torch.optim.Optimizer, step: int) -> None:
    """What resuming needs beside the model: optimiser moments and the step (random draws are a function of seed and step)."""
    state = optimizer.state_dict()
    tensors = {f"{index}.{name}": value for index, entry in state["state"].items() for name, value in entry.items()}
    save_tensors(path, tensors, {"step": step, "groups": state["param_groups"]})


def load_training_state(path: Path, optimizer: torch.optim.Optimizer) -> int:
    """Restore the optimiser in place and return the step to go on from."""
    meta, tensors = read_meta(path), load_file(path)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": meta["groups"]})
    return int(meta["step"])
