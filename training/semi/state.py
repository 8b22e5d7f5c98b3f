"""The state of an unfinished joint run: modules, optimisers, teacher and averages, in one safetensors file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from training.checkpoint import read_meta, save_tensors
from training.run_state import STATE, Progress, check_same

Tensors = dict[str, Tensor]


@dataclass
class JointState:
    """Tensors by the name of what they belong to, moments and settings of optimisers by name, progress and configuration."""

    tensors: dict[str, Tensors]
    optimizers: Mapping[str, torch.optim.Optimizer]
    progress: Progress
    config: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write everything, whole or not at all."""
        tensors = {f"{part}/{name}": tensor for part, some in self.tensors.items() for name, tensor in some.items()}
        groups = {}
        for part, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            groups[part] = state["param_groups"]
            for index, entry in state["state"].items():
                tensors |= {f"moments/{part}/{index}/{name}": value.clone() for name, value in entry.items()}
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}  # the file may not share memory
        save_tensors(folder / STATE, copies, {"progress": vars(self.progress), "groups": groups, "config": self.config})


def load_joint(
    folder: Path, parts: Iterable[str], optimizers: Mapping[str, torch.optim.Optimizer], config: dict[str, Any]
) -> JointState | None:
    """The state of the run in `folder`, with the tensors of `parts`, the optimisers restored in place; None where there is none.

    Raises ResumeError when the run was started with another configuration or other checkpoints.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    meta = read_meta(path)
    check_same(meta["config"], config, path)
    tensors = load_file(path)
    found = {part: _below(tensors, part) for part in parts}
    for part, optimizer in optimizers.items():
        moments: dict[int, Tensors] = {}
        for key, value in _below(tensors, f"moments/{part}").items():
            index, name = key.split("/", 1)
            moments.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": moments, "param_groups": meta["groups"][part]})
    return JointState(found, optimizers, Progress(**meta["progress"]), config)


def _below(tensors: Tensors, part: str) -> Tensors:
    return {key[len(part) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{part}/")}
