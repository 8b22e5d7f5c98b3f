"""The training loop of methods that the meta-training pipeline does not know: MAML, CC-DG, the upper bound.

Every draw is a function of (seed, step). The last weights are what is kept: no step is chosen by what it is worth on the tasks
that the table is measured on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from training.checkpoint import read_meta
from training.journal import Journal
from training.loop import Actions, launched, run_steps
from training.run_state import Progress, load_state, save_state
from training.trainer import LAST, RunConfig

log = logging.getLogger("training.episodic.methods")

SMOOTHING = 0.95  # of the loss that is written down
LOG_EVERY = 20
CLIP = 1.0  # largest norm of the gradient
_STREAM = 3


@dataclass(frozen=True)
class LoopConfig:
    """Steps, steps between saves, seed and threads of a run; on the CPU."""

    steps: int = 300
    every: int = 50
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        if min(self.steps, self.every, self.threads) < 1 or self.seed < 0:
            raise ValueError("steps, every and threads must be positive, seed not negative")

    @property
    def run(self) -> RunConfig:
        """As the loop of all pipelines takes it."""
        return RunConfig(self.steps, self.every, seed=self.seed, threads=self.threads, accelerator="cpu")


Step = Callable[[np.random.Generator], float]  # accumulates gradients and returns the loss


@dataclass(eq=False)
class MethodRun:
    """One run in `folder`: Adam over `trained`, parameters of `module`, at one rate.

    `table` is what going on must not change; the checkpoint's metadata must hold it as "method", and the "step".
    """

    folder: Path
    config: LoopConfig
    rate: float
    module: nn.Module
    trained: list[nn.Parameter]
    table: dict[str, Any]
    progress: Progress = field(default_factory=Progress)

    def fit(self, step: Step, save: Callable[[Path, int], None]) -> Path:
        """Train to the end, or go on from where the run stopped. Returns the checkpoint.

        Raises ResumeError, and KeyboardInterrupt when asked to stop, the state saved.
        """
        torch.set_num_threads(self.config.threads)
        optimizer = torch.optim.Adam(self.trained, lr=self.rate)
        found = load_state(self.folder, optimizer, self.table)
        if found is not None:
            weights, _, self.progress = found
            self.module.load_state_dict(weights)
            log.info("%s: going on from step %d", self.folder, self.progress.step)
        journal = Journal(self.folder, self.progress.step)

        def take(number: int) -> None:
            rng = np.random.default_rng([self.config.seed, _STREAM, number])
            optimizer.zero_grad(set_to_none=True)
            loss = step(rng)
            nn.utils.clip_grad_norm_(self.trained, CLIP, error_if_nonfinite=True)
            optimizer.step()
            kept = self.progress.losses
            kept["loss"] = SMOOTHING * kept["loss"] + (1 - SMOOTHING) * loss if "loss" in kept else loss

        def record(_validate: bool) -> None:
            journal.add({"step": self.progress.step, **self.progress.losses})
            log.info("%s: step %d loss %.3f", self.folder.name, self.progress.step, self.progress.losses["loss"])

        def keep() -> None:
            save_state(self.folder, self.module.state_dict(), {}, optimizer, self.progress, self.table)

        run = self.config.run
        run_steps(launched(run), run, self.progress, Actions(take, record, keep), LOG_EVERY)
        save(self.folder / LAST, self.progress.step)
        return self.folder / LAST


def finished(folder: Path, steps: int, table: dict[str, Any]) -> bool:
    """Whether the folder holds a checkpoint of so many steps and these settings."""
    path = folder / LAST
    meta = read_meta(path) if path.is_file() else {}
    return int(meta.get("step", 0)) >= steps and meta.get("method") == table
