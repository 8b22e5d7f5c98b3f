"""The training loop: steps, validation, early stopping, checkpoints that resume exactly; on one device or several.

Every random draw of a step is a function of (seed, step, device), so a run that was stopped and goes on computes what an unbroken
one would have.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from training.checkpoint import read_meta, save_model
from training.data.batches import BatchStream, PairBatch
from training.journal import Journal
from training.loop import Actions, launched, run_steps
from training.models.encoder import EmbeddingHead, Encoder
from training.network import PairNetwork
from training.run_state import STATE, Progress, load_state, save_state
from training.schedule import MovingAverage, OptimiserConfig, build_optimizer, set_rate

log = logging.getLogger("training.trainer")

LAST, BEST = "last.safetensors", "best.safetensors"
SMOOTHING = 0.98  # of the losses that are written down
LOG_EVERY = 50  # steps between rows of the log
Validate = Callable[[Encoder, EmbeddingHead], dict[str, float]]
Refit = Callable[[Encoder, EmbeddingHead], None]


@dataclass(frozen=True)
class RunConfig:
    """How long and where. `every`: steps between validations; `patience`: validations without a better score until the run stops
    (0: never); `score`: the figure that says which step is kept. `precision`, `accelerator` and `devices` are Fabric's.
    """

    steps: int = 3000
    every: int = 250
    patience: int = 0
    score: str = "mean/mrr"
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    threads: int = 2
    workers: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if min(self.steps, self.every, self.devices, self.threads) < 1 or min(self.patience, self.workers) < 0:
            raise ValueError("steps, every, devices and threads must be positive, patience and workers not negative")


@dataclass
class Trainer:
    """One run in `folder`. `meta` goes into every checkpoint; `refit` is applied to a copy of the averaged weights before they
    are validated and kept.
    """

    folder: Path
    run: RunConfig
    optimiser: OptimiserConfig
    stream: BatchStream
    validate: Validate
    config: dict[str, Any]
    meta: dict[str, Any]
    refit: Refit | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def started(self) -> bool:
        """Whether the folder holds a run to go on from."""
        return (self.folder / STATE).is_file()

    def fit(self, network: PairNetwork) -> dict[str, float]:
        """Train `network` in place, from the start or from where the run in `folder` stopped. Returns the last figures.

        Raises ResumeError, and KeyboardInterrupt when asked to stop, after the step was finished and the state saved.
        """
        run = self.run
        fabric = launched(run)
        optimizer = build_optimizer(network, self.optimiser)
        average = MovingAverage(network.model_state(), self.optimiser.average)
        self._resume(network, average, optimizer)
        journal = Journal(self.folder, self.progress.step, tensorboard=self.run.tensorboard) if fabric.is_global_zero else None
        model, optimizer = fabric.setup(network, optimizer)
        average.tensors = {name: tensor.to(fabric.device) for name, tensor in average.tensors.items()}
        begun, first = time.monotonic(), self.progress.step

        def step(number: int) -> None:
            self._step(fabric, model, optimizer, next(batches))
            average.update(network.model_state(), number)

        def record(validate: bool) -> None:
            figures = self._checkpoint(network, average) if validate else {}
            assert journal is not None
            seconds = (time.monotonic() - begun) / (self.progress.step - first)
            write_row(journal, self.progress, (self.run, self.optimiser), figures, seconds)

        with closing(self._batches(fabric)) as batches:
            actions = Actions(step, record, lambda: self._save(network, average, optimizer))
            run_steps(fabric, run, self.progress, actions, LOG_EVERY)
        average.copy_to(network)
        fabric.barrier()
        last: dict[str, float] = read_meta(self.folder / LAST)["validation"]
        return last

    def _resume(self, network: PairNetwork, average: MovingAverage, optimizer: torch.optim.Optimizer) -> None:
        found = load_state(self.folder, optimizer, self.config)
        if found is None:
            return
        weights, kept, self.progress = found
        network.load_state_dict(weights)
        average.tensors = kept
        log.info("going on from step %d", self.progress.step)

    def _batches(self, fabric: Any) -> Generator[PairBatch, None, None]:
        """This device's batches of the steps still to do; every device but the first draws with a seed of its own."""
        rank, own = fabric.global_rank, self.stream
        if rank > 0:
            own = BatchStream(own.sources, own.spec, own.augmentation, own.pairs_per_step, step_seed(own.seed, rank))
        with closing(own.stream(self.progress.step, self.run.steps, self.run.workers)) as batches:
            yield from batches

    def _step(self, fabric: Any, model: Any, optimizer: Any, batch: PairBatch) -> None:
        step = self.progress.step
        torch.manual_seed(step_seed(self.run.seed, step, fabric.global_rank))
        set_rate(optimizer, self.optimiser.factor(step, self.run.steps))
        model.train()
        tensors = (batch.sketches, batch.photos, batch.photo_index, batch.category_index)
        loss, terms = model(*(tensor.to(fabric.device, non_blocking=True) for tensor in tensors))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=self.optimiser.clip, error_if_nonfinite=True)
        optimizer.step()
        count_losses(self.progress, float(loss.detach()), {name: term for name, term in terms.items() if name != "total"})

    def _checkpoint(self, network: PairNetwork, average: MovingAverage) -> dict[str, float]:
        """Validate the averaged weights; write the last checkpoint, and the best where they are it."""
        encoder, head = copy.deepcopy(network.encoder).cpu(), copy.deepcopy(network.head).cpu()
        _load(encoder, average.tensors, "encoder.")
        _load(head, average.tensors, "head.")
        if self.refit is not None:
            self.refit(encoder.eval(), head.eval())
        figures = self.validate(encoder, head)
        progress = self.progress
        meta = {**self.meta, "step": progress.step, "seed": self.run.seed, "validation": figures}
        save_model(self.folder / LAST, encoder, head, meta)
        if figures[self.run.score] > progress.best:
            progress.best, progress.stale = figures[self.run.score], 0
            save_model(self.folder / BEST, encoder, head, meta)
        else:
            progress.stale += 1
        return figures

    def _save(self, network: PairNetwork, average: MovingAverage, optimizer: torch.optim.Optimizer) -> None:
        save_state(self.folder, network.state_dict(), average.tensors, optimizer, self.progress, self.config)


def count_losses(progress: Progress, loss: float, terms: Mapping[str, float]) -> None:
    """Take a step's loss and its terms into the running means, the first as they are."""
    kept = progress.losses
    for name, value in {"loss": loss, **{f"loss/{name}": term for name, term in terms.items()}}.items():
        kept[name] = SMOOTHING * kept[name] + (1 - SMOOTHING) * value if name in kept else value


def write_row(
    journal: Journal, progress: Progress, plan: tuple[RunConfig, OptimiserConfig], figures: Mapping[str, float], seconds: float
) -> None:
    """One row of the log, and where there are figures the curves and a line; `seconds` a step took."""
    run, optimiser = plan
    rate = optimiser.factor(progress.step - 1, run.steps) * optimiser.rate
    journal.add({"step": progress.step, **progress.losses, "rate": rate, "seconds/step": seconds, **figures})
    if figures:
        journal.draw()
        log.info("step %d %s", progress.step, brief(dict(figures)))
    else:
        log.info("step %d loss %.3f, %.2f s/step", progress.step, progress.losses["loss"], seconds)


def brief(figures: dict[str, float]) -> str:
    """One line for the log: every set's Acc@1 and the means."""
    return ", ".join(
        f"{name} {value:.1f}" for name, value in figures.items() if name.endswith("/acc@1") or name.startswith("mean/")
    )


def step_seed(*numbers: int) -> int:
    """One seed from several numbers, for dropout and mining: a function of the step, so that going on repeats it."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _load(module: torch.nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    module.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)})
