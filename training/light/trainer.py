"""The training loop of a light encoder: steps, validation, checkpoints that resume exactly; on one device or several.

Batch t is number t of the stream, or t modulo `batches`: what comes again has its targets already.
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.checkpoint import read_meta
from training.evaluation import torch_encode
from training.journal import Journal
from training.light.checkpoint import save_light
from training.light.network import LightNetwork
from training.light.teacher import Teacher
from training.light.validation import LightValidator
from training.loop import Actions, launched, run_steps
from training.models.light import LightEncoder
from training.run_state import STATE, Progress, load_state, save_state
from training.schedule import MovingAverage, OptimiserConfig, grouped_optimizer, set_rate
from training.trainer import BEST, LAST, LOG_EVERY, RunConfig, count_losses, write_row

log = logging.getLogger("training.light")


@dataclass
class LightTrainer:
    """One run in `folder`. `meta` goes into every checkpoint; `batches` is how many different ones there are (0: no end)."""

    folder: Path
    run: RunConfig
    optimiser: OptimiserConfig
    teacher: Teacher
    validate: LightValidator
    config: dict[str, Any]
    meta: dict[str, Any]
    batches: int = 0
    progress: Progress = field(default_factory=Progress)

    @property
    def started(self) -> bool:
        """Whether the folder holds a run to go on from."""
        return (self.folder / STATE).is_file()

    def fit(self, network: LightNetwork) -> dict[str, float]:
        """Train `network` in place, from the start or from where the run in `folder` stopped. Returns the last figures.

        Raises ResumeError, and KeyboardInterrupt when asked to stop, after the step was finished and the state saved.
        """
        fabric = launched(self.run)
        optimizer = grouped_optimizer(network, network.encoder.backbone, self.optimiser)
        average = MovingAverage(network.model_state(), self.optimiser.average)
        self._resume(network, average, optimizer)
        journal = Journal(self.folder, self.progress.step, tensorboard=self.run.tensorboard) if fabric.is_global_zero else None
        model, optimizer = fabric.setup(network, optimizer)
        average.tensors = {name: tensor.to(fabric.device) for name, tensor in average.tensors.items()}
        begun, first = time.monotonic(), self.progress.step

        def step(number: int) -> None:
            self._step(fabric, network, model, optimizer, number)
            average.update(network.model_state(), number)

        def record(validate: bool) -> None:
            figures = self._checkpoint(network.encoder, average) if validate else {}
            assert journal is not None
            seconds = (time.monotonic() - begun) / (self.progress.step - first)
            write_row(journal, self.progress, (self.run, self.optimiser), figures, seconds)

        def save() -> None:
            weights = dict(network.model_state())
            save_state(self.folder, weights, average.tensors, optimizer, self.progress, self.config)

        run_steps(fabric, self.run, self.progress, Actions(step, record, save), LOG_EVERY)
        fabric.barrier()
        last: dict[str, float] = read_meta(self.folder / LAST)["validation"]
        return last

    def _resume(self, network: LightNetwork, average: MovingAverage, optimizer: torch.optim.Optimizer) -> None:
        found = load_state(self.folder, optimizer, self.config)
        if found is None:
            return
        weights, kept, self.progress = found
        network.load_state_dict({**network.state_dict(), **weights})
        average.tensors = kept
        log.info("going on from step %d", self.progress.step)

    def _step(self, fabric: Any, network: LightNetwork, model: Any, optimizer: Any, step: int) -> None:
        number = step * fabric.world_size + fabric.global_rank
        number = number % self.batches if self.batches else number
        wanted, pixels = self.teacher.features(number), self.teacher.stream.draw(self.teacher.stream.light, number)
        set_rate(optimizer, self.optimiser.factor(step, self.run.steps))
        model.train()
        loss, terms = network.compare(model(pixels.to(fabric.device)), wanted.to(fabric.device))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=self.optimiser.clip, error_if_nonfinite=True)
        optimizer.step()
        count_losses(self.progress, float(loss.detach()), terms)

    def _checkpoint(self, encoder: LightEncoder, average: MovingAverage) -> dict[str, float]:
        """Validate the averaged weights; write the last checkpoint, and the best where they are it."""
        copied = copy.deepcopy(encoder).cpu()
        copied.load_state_dict({name.removeprefix("encoder."): tensor for name, tensor in average.tensors.items()})
        figures, progress = self.validate(torch_encode(copied.eval())), self.progress
        meta = {**self.meta, "step": progress.step, "seed": self.run.seed, "validation": figures}
        save_light(self.folder / LAST, copied, meta)
        if figures[self.run.score] > progress.best:
            progress.best, progress.stale = figures[self.run.score], 0
            save_light(self.folder / BEST, copied, meta)
        else:
            progress.stale += 1
        return figures
