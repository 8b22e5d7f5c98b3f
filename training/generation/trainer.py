"""The generator's training loop: steps, validation, checkpoints that resume exactly; on one device or several (METHODS B.2).

Every random draw of a step is a function of (seed, step, device), as in training/trainer.py, whose parts it uses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.checkpoint import read_meta
from training.generation.checkpoint import save_generator
from training.generation.corpus import DrawingStream
from training.generation.losses import VaeLossConfig, vae_loss
from training.generation.network import Generator
from training.generation.sights import Sights, encode
from training.journal import Journal
from training.loop import Actions, launched, run_steps
from training.run_state import STATE, Progress, load_state, save_state
from training.schedule import MovingAverage, set_rate
from training.trainer import BEST, LAST, LOG_EVERY, SMOOTHING, step_seed

log = logging.getLogger("training.generation")

Validate = Callable[[Generator], dict[str, float]]
PANEL = ("/loss", "validation loss, nats a row")


@dataclass(frozen=True)
class AdamConfig:
    """Adam as the released code has it (METHODS B.2): rate * decay^t falls to a floor.

    rate           at the first step, 1e-4
    floor          1e-5; decay 0.9999: lr_t = (rate - floor) * decay^t + floor
    beta           of the first moment, 0.5; the second's is 0.999
    clip           largest norm of the gradient
    backbone_rate  the backbone's rate as a share of it, where it trains
    warmup         steps in which the rate rises; none in the paper
    average        decay of the moving average of weights that is validated and kept; 0, as in the paper, keeps the weights
                   themselves. A deviation that steadies the figures of short runs

    Raises:
        ValueError: a number out of range.
    """

    rate: float = 1e-4
    floor: float = 1e-5
    decay: float = 0.9999
    beta: float = 0.5
    clip: float = 1.0
    backbone_rate: float = 1.0
    warmup: int = 0
    average: float = 0.0

    def __post_init__(self) -> None:
        if self.rate <= 0 or not 0 <= self.floor <= self.rate or self.clip <= 0 or self.backbone_rate < 0 or self.warmup < 0:
            raise ValueError("rate and clip must be positive, floor from 0 to rate, backbone_rate and warmup not negative")
        if not 0 < self.decay <= 1 or not 0 <= self.beta < 1 or not 0 <= self.average < 1:
            raise ValueError("decay must lie in (0,1], beta and average in [0,1)")

    def factor(self, step: int) -> float:
        """What `rate` is multiplied by at `step`, from 0."""
        rate = (self.rate - self.floor) * self.decay**step + self.floor
        return rate / self.rate * min(1.0, (step + 1) / (self.warmup + 1))


def build_optimizer(generator: Generator, config: AdamConfig) -> torch.optim.Adam:
    """Parameter groups with their base rates under "base"."""
    backbone = {id(item) for item in generator.backbone.parameters()}
    trained = [item for item in generator.parameters() if item.requires_grad]
    groups: list[dict[str, Any]] = []
    for old, rate in ((True, config.rate * config.backbone_rate), (False, config.rate)):
        chosen = [item for item in trained if (id(item) in backbone) == old]
        if chosen:
            groups.append({"params": chosen, "base": rate, "lr": rate})
    return torch.optim.Adam(groups, betas=(config.beta, 0.999))


@dataclass(frozen=True)
class PretrainRun:
    """How long and where. `every`: steps between validations; `patience`: validations without a better score until the run stops
    (0: never); `score`: the validation loss that says which step is kept. `precision` (of the backbone alone), `accelerator` and
    `devices` are Fabric's.
    """

    steps: int = 8000
    every: int = 500
    patience: int = 0
    score: str = "mean/loss"
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    threads: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if min(self.steps, self.every, self.devices, self.threads) < 1 or self.patience < 0:
            raise ValueError("steps, every, devices and threads must be positive, patience not negative")


class Objective(nn.Module):
    """Generator and loss as one module, so that one call is one step's forward pass, on however many devices."""

    def __init__(self, generator: Generator, loss: VaeLossConfig) -> None:
        super().__init__()
        self.generator, self.loss = generator, loss

    def forward(self, seen: Tensor, rows: Tensor, lengths: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        """What Sights gave of B pictures, their drawings float32 [B,T+1,5] and lengths [B]. Returns the loss and its terms."""
        if self.loss.mask == "end":  # nothing behind the longest drawing counts
            rows = rows[:, : int(lengths.max())]
        return vae_loss(self.generator, encode(self.generator, seen), (rows, lengths), self.loss, step)


@dataclass
class GeneratorTrainer:
    """One run in `folder`. `config` must be the same when it goes on; `meta` goes into every checkpoint."""

    folder: Path
    run: PretrainRun
    optimiser: AdamConfig
    stream: DrawingStream
    sights: Sights
    validate: Validate
    config: dict[str, Any]
    meta: dict[str, Any]
    progress: Progress = field(default_factory=lambda: Progress(best=float("-inf")))

    @property
    def started(self) -> bool:
        """Whether the folder holds a run to go on from."""
        return (self.folder / STATE).is_file()

    def fit(self, objective: Objective) -> dict[str, float]:
        """Train in place, from the start or from where the run in `folder` stopped. Returns the last figures.

        Raises ResumeError, and KeyboardInterrupt when asked to stop, after the step was finished and the state saved.
        """
        run, generator = self.run, objective.generator
        fabric = launched(run)
        optimizer = build_optimizer(generator, self.optimiser)
        average = MovingAverage(generator.trained_state(), self.optimiser.average)
        self._resume(generator, average, optimizer)
        journal = Journal(self.folder, self.progress.step, tensorboard=run.tensorboard) if fabric.is_global_zero else None
        model, optimizer = fabric.setup(objective, optimizer)
        average.tensors = {name: tensor.to(fabric.device) for name, tensor in average.tensors.items()}
        begun, first = time.monotonic(), self.progress.step

        def step(number: int) -> None:
            self._step(fabric, model, optimizer)
            average.update(generator.trained_state(), number)

        def record(validate: bool) -> None:
            figures = self._checkpoint(generator, average) if validate else {}
            assert journal is not None
            self._write(journal, figures, (time.monotonic() - begun) / (self.progress.step - first))

        def save() -> None:
            weights = dict(generator.trained_state())
            save_state(self.folder, weights, average.tensors, optimizer, self.progress, self.config)

        run_steps(fabric, run, self.progress, Actions(step, record, save), LOG_EVERY)
        average.copy_to(generator)
        fabric.barrier()
        last: dict[str, float] = read_meta(self.folder / LAST)["validation"]
        return last

    def _resume(self, generator: Generator, average: MovingAverage, optimizer: torch.optim.Optimizer) -> None:
        found = load_state(self.folder, optimizer, self.config)
        if found is None:
            return
        weights, average.tensors, self.progress = found
        generator.load_state_dict(weights, strict=False)  # a fixed backbone is not among them
        log.info("going on from step %d", self.progress.step)

    def _step(self, fabric: Any, model: Any, optimizer: Any) -> None:
        step, rank = self.progress.step, fabric.global_rank
        stream = self.stream
        if rank > 0:  # every device but the first draws with a seed of its own
            stream = DrawingStream(stream.corpora, stream.options, step_seed(stream.seed, rank))
        draws = stream.batch(step)
        torch.manual_seed(step_seed(self.run.seed, step, rank))
        set_rate(optimizer, self.optimiser.factor(step))
        model.train()
        seen = self.sights(draws.corpus, draws.numbers, draws.mirrored)
        tensors = (tensor.to(fabric.device, non_blocking=True) for tensor in (seen, draws.rows, draws.lengths))
        loss, terms = model(*tensors, step)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=self.optimiser.clip, error_if_nonfinite=True)
        optimizer.step()
        kept = self.progress.losses
        for name, value in {"loss": loss.item(), **{f"loss/{name}": term for name, term in terms.items()}}.items():
            kept[name] = SMOOTHING * kept[name] + (1 - SMOOTHING) * value if name in kept else value

    def _write(self, journal: Journal, figures: dict[str, float], seconds: float) -> None:
        """One row of the log, and where there are figures the curves and a line."""
        progress = self.progress
        rate = self.optimiser.factor(progress.step - 1) * self.optimiser.rate
        journal.add({"step": progress.step, **progress.losses, "rate": rate, "seconds/step": seconds, **figures})
        if figures:
            journal.draw(*PANEL)
        said = ", ".join(f"{name} {value:.3g}" for name, value in figures.items() if not name.endswith(("/offset", "/pen")))
        log.info("step %d loss %.3f, %.2f s/step %s", progress.step, progress.losses["loss"], seconds, said)

    def _checkpoint(self, generator: Generator, average: MovingAverage) -> dict[str, float]:
        """Validate the averaged weights; write the last checkpoint, and the best where they are it."""
        kept = {name: tensor.detach().clone() for name, tensor in generator.trained_state()}
        average.copy_to(generator)
        figures, progress = self.validate(generator.eval()), self.progress
        meta = {**self.meta, "step": progress.step, "seed": self.run.seed, "validation": figures}
        save_generator(self.folder / LAST, generator, meta)
        if -figures[self.run.score] > progress.best:
            progress.best, progress.stale = -figures[self.run.score], 0
            save_generator(self.folder / BEST, generator, meta)
        else:
            progress.stale += 1
        generator.load_state_dict(kept, strict=False)
        return figures
