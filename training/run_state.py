"""The state of an unfinished run: all that going on exactly needs, in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fgsbir_edge.errors import FgsbirError
from training.checkpoint import read_meta, save_tensors

STATE = "state.safetensors"
FREE = ("run.every", "run.patience", "run.threads", "run.workers", "run.tensorboard")  # may change when a run goes on


class ResumeError(FgsbirError, ValueError):
    """A folder holds a run that the given configuration cannot go on from."""

    exit_code = 43


@dataclass
class Progress:
    """Steps done, the best validation score so far, the validations since it, and running means of the loss and its terms."""

    step: int = 0
    best: float = -1.0
    stale: int = 0
    losses: dict[str, float] = field(default_factory=dict)


def save_state(
    folder: Path,
    weights: dict[str, Tensor],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    config: dict[str, Any],
) -> None:
    """Write weights as they train, their moving average, the optimiser's moments and the progress; whole or not at all."""
    state = optimizer.state_dict()
    tensors = {f"weights/{name}": tensor for name, tensor in weights.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.items()}
    tensors |= {
        f"moments/{index}/{name}": value.clone() for index, entry in state["state"].items() for name, value in entry.items()
    }
    meta = {"progress": vars(progress), "groups": state["param_groups"], "config": config}
    save_tensors(folder / STATE, tensors, meta)


def load_state(
    folder: Path, optimizer: torch.optim.Optimizer, config: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor], Progress] | None:
    """(weights, average, progress) of the run in `folder`, the optimiser restored in place; None where there is none.

    Raises ResumeError when the run was started with another configuration.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    meta, tensors = read_meta(path), load_file(path)
    check_same(meta["config"], config, path)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("moments/"):
            _, index, name = key.split("/", 2)
            moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": meta["groups"]})
    weights, average = (
        {key.removeprefix(part): value for key, value in tensors.items() if key.startswith(part)}
        for part in ("weights/", "average/")
    )
    return weights, average, Progress(**meta["progress"])


def check_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    """Raises ResumeError naming the first setting that differs, but for those that do not change what is computed."""
    before, after = _flat(old), _flat(json.loads(json.dumps(new)))  # as it comes back from a file: lists for tuples
    for key in sorted(set(before) | set(after)):
        if key not in FREE and before.get(key) != after.get(key):
            raise ResumeError(
                f"{path}: {key} was {before.get(key)!r} and is {after.get(key)!r}; give the old value or another --out"
            )


def _flat(table: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(table, dict):
        return {prefix: table}
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return flat
