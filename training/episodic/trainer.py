"""The outer loop: steps, validation, checkpoints that resume exactly; on one device or several.

Every random draw of a step is a function of (seed, step, device), as in training/trainer.py, whose parts it uses.
"""

from __future__ import annotations

import copy
import logging
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.checkpoint import read_meta, save_tensors
from training.config import to_table
from training.episodic.config import MetaConfig, MetaOptimiser
from training.episodic.margins import GradientMargin
from training.episodic.model import fold_gain
from training.episodic.outer import Objective
from training.episodic.stream import EpisodeBatch, EpisodeStream
from training.episodic.validation import MetaValidator
from training.journal import Journal
from training.loop import Actions, launched, run_steps
from training.run_state import STATE, Progress, load_state, save_state
from training.schedule import MovingAverage, set_rate
from training.trainer import BEST, LAST, LOG_EVERY, SMOOTHING, step_seed

log = logging.getLogger("training.episodic")

PANEL = ("/after@1", "validation Acc@1 after adaptation, %")


def parameter_parts(objective: Objective) -> dict[str, list[nn.Parameter]]:
    """What trains, by the name of its rate in MetaOptimiser; parts without parameters are left out."""
    model, encoder = objective.model, objective.trunk.encoder
    projection = list(encoder.projection.parameters())
    of_projection = {id(item) for item in projection}
    parts = {
        "head": list(model.head.parameters()),
        "fast": [model.log_gain, model.step_sizes, *centre_of(objective), *model.margin_design.parameters()],
        "projection": projection,
        "encoder": [item for item in encoder.parameters() if id(item) not in of_projection],
        "regularisers": list(objective.regularisers.parameters()),
    }
    trained = {name: [item for item in some if item.requires_grad] for name, some in parts.items()}
    return {name: some for name, some in trained.items() if some}


def centre_of(objective: Objective) -> list[nn.Parameter]:
    """The logarithm of the centring's p; nothing where there is none."""
    return [] if objective.model.log_centre is None else [objective.model.log_centre]


def build_optimizer(objective: Objective, config: MetaOptimiser) -> torch.optim.Adam:
    """A group for each part, its rate under "base"."""
    groups: list[dict[str, Any]] = []
    for name, some in parameter_parts(objective).items():
        rate = getattr(config, name)
        groups.append({"params": some, "base": rate, "lr": rate})
    return torch.optim.Adam(groups)


def gradient_norms(objective: Objective) -> dict[str, float]:
    """Norms of the gradients as they came, by what they reach: "gradient/margin", "gradient/rates", "gradient/head" and others.

    That of the margin is 0 with a hinge as inner loss, or a first-order inner loop (METHODS C.5).
    """
    model, parts = objective.model, parameter_parts(objective)
    named = {"margin": list(model.margin_design.parameters()), "rates": [model.step_sizes], "gains": [model.log_gain]}
    named |= {"centre": centre_of(objective)}
    named |= {name: some for name, some in parts.items() if name != "fast"}
    trained = {name: [item for item in some if item.requires_grad] for name, some in named.items()}
    return {f"gradient/{name}": _norm(some) for name, some in trained.items() if some}


def _norm(parameters: list[nn.Parameter]) -> float:
    gradients = [item.grad.norm() for item in parameters if item.grad is not None]
    return float(torch.stack(gradients).norm()) if gradients else 0.0


@dataclass
class MetaTrainer:
    """One run in `folder`. `table` must be the same when it goes on; `meta` goes into every checkpoint."""

    folder: Path
    config: MetaConfig
    stream: EpisodeStream
    validate: MetaValidator
    table: dict[str, Any]
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
        run = self.config.run
        fabric = launched(run)
        optimizer = build_optimizer(objective, self.config.optimiser)
        average = MovingAverage(objective.trained_state().items(), self.config.optimiser.average)
        self._resume(objective, average, optimizer)
        kept = self.progress.step if self.started else -1  # rows of a run that left nothing to go on from are dropped
        journal = Journal(self.folder, kept, tensorboard=run.tensorboard) if fabric.is_global_zero else None
        model, optimizer = fabric.setup(objective, optimizer)
        average.tensors = {name: tensor.to(fabric.device) for name, tensor in average.tensors.items()}
        if journal is not None and self.progress.step == 0:
            figures = self.validate(objective)
            journal.add({"step": 0, **prior_of(objective), **figures})
            log.info("before training: %s", brief(figures))
        begun, first = time.monotonic(), self.progress.step

        def step(number: int) -> None:
            self._step(fabric, model, objective, optimizer, next(batches))
            average.update(objective.trained_state().items(), number)

        def record(validate: bool) -> None:
            figures = self._checkpoint(objective, average) if validate else {}
            assert journal is not None
            self._write(journal, objective, figures, (time.monotonic() - begun) / (self.progress.step - first))

        def save() -> None:
            save_state(self.folder, objective.trained_state(), average.tensors, optimizer, self.progress, self.table)

        with closing(self.stream.stream(first, run.steps, run.workers, fabric.global_rank)) as batches:
            run_steps(fabric, run, self.progress, Actions(step, record, save), LOG_EVERY)
        average.copy_to(objective)
        fabric.barrier()
        last: dict[str, float] = read_meta(self.folder / LAST)["meta_validation"]
        return last

    def _resume(self, objective: Objective, average: MovingAverage, optimizer: torch.optim.Optimizer) -> None:
        found = load_state(self.folder, optimizer, self.table)
        if found is None:
            return
        weights, average.tensors, self.progress = found
        objective.load_state_dict(weights, strict=False)  # the fixed part of the encoder is not among them
        log.info("going on from step %d", self.progress.step)

    def _step(self, fabric: Any, model: Any, objective: Objective, optimizer: Any, batch: EpisodeBatch) -> None:
        step, steps, options = self.progress.step, self.config.run.steps, self.config.optimiser
        torch.manual_seed(step_seed(self.config.run.seed, step, fabric.global_rank))
        set_rate(optimizer, options.factor(step, steps))
        model.train()
        loss, values = model(batch.to(fabric.device), step / steps)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        norms = gradient_norms(objective)
        fabric.clip_gradients(model, optimizer, max_norm=options.clip, error_if_nonfinite=True)
        optimizer.step()
        kept = self.progress.losses
        seen = {"loss": loss.detach(), **values, **norms}
        for name, value in ((name, float(item)) for name, item in seen.items()):
            kept[name] = SMOOTHING * kept[name] + (1 - SMOOTHING) * value if name in kept else value

    def _write(self, journal: Journal, objective: Objective, figures: dict[str, float], seconds: float) -> None:
        """One row of the log, and where there are figures the curves and a line."""
        progress = self.progress
        steps = objective.model.rates.detach().flatten(1).mean(1) if objective.model.rates.dim() > 1 else objective.model.rates
        learned = {f"rate/{number}": rate for number, rate in enumerate(steps.tolist())} | prior_of(objective)
        journal.add({"step": progress.step, **progress.losses, **learned, "seconds/step": seconds, **figures})
        if figures:
            journal.draw(*PANEL)
        said = f" {brief(figures)}" if figures else ""
        log.info("step %d loss %.3f, %.2f s/step%s", progress.step, progress.losses["loss"], seconds, said)

    def _checkpoint(self, objective: Objective, average: MovingAverage) -> dict[str, float]:
        """Validate the averaged weights; write the last checkpoint, and the best where they are it."""
        kept = {name: tensor.detach().clone() for name, tensor in objective.trained_state().items()}
        average.copy_to(objective)
        figures, progress, score = self.validate(objective), self.progress, self.config.run.score
        self._save_model(LAST, objective, figures)
        if figures[score] > progress.best:
            progress.best, progress.stale = figures[score], 0
            self._save_model(BEST, objective, figures)
        else:
            progress.stale += 1
        objective.load_state_dict(kept, strict=False)
        return figures

    def _save_model(self, name: str, objective: Objective, figures: dict[str, float]) -> None:
        margin = self.validate.mean_margin(figures)
        tensors, adaptation = exported(objective, self.config, margin)
        meta = {**self.meta, "config": objective.trunk.encoder.config.to_json(), "adaptation": adaptation}
        meta |= {"meta_validation": figures, "meta_steps": self.progress.step, "seed": self.config.run.seed}
        save_tensors(self.folder / name, tensors, meta)


def exported(objective: Objective, config: MetaConfig, margin: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a checkpoint by name, gains folded in, and what it says about adapting; a device's head is made of both.

    `margin` is what a device gets in place of a network that it does not run (margins.GradientMargin).
    """
    model, encoder, inner = objective.model, copy.deepcopy(objective.trunk.encoder).cpu(), config.inner
    fold_gain(encoder, model.log_gain.detach().cpu())
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    tensors |= {f"head.linear.{name}": tensor for name, tensor in model.head.state_dict().items()}
    tensors["adaptation.step_sizes"] = model.rates
    design = model.margin_design
    tensors |= {f"adaptation.margin.{name}": tensor for name, tensor in design.arrays().items()}
    fixed: float | None = config.margin.value if config.margin.design == "fixed" else None
    if isinstance(design, GradientMargin):
        tensors |= {f"adaptation.gradient_margin.{name}": tensor for name, tensor in design.state_dict().items()}
        fixed = margin
    adaptation: dict[str, Any] = {
        "k": max(config.episodes.k),
        "steps": inner.steps,
        "side": inner.side,
        "negatives": inner.further if inner.negatives != "support" else 0,
        "sharpness": inner.sharpness,
        "centre": prior_of(objective).get("centre"),
        "margin": fixed,
        "margin_design": config.margin.design,
    }
    if config.regularisers is not None:
        of_setting = {name: item.facts() for name, item in objective.regularisers.items()}  # type: ignore[operator]
        adaptation["regularisers"] = {**to_table(config.regularisers), "of": of_setting}
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, adaptation


def prior_of(objective: Objective) -> dict[str, float]:
    """p of the centring as "centre"; empty where there is none."""
    prior = objective.model.centre
    return {} if prior is None else {"centre": float(prior.detach())}


def brief(figures: dict[str, float]) -> str:
    """One line for the log: Acc@1 of every set before and after."""
    sets = [name.removesuffix("/after@1") for name in figures if name.endswith("/after@1")]
    return ", ".join(f"{name} {figures[f'{name}/before@1']:.1f} -> {figures[f'{name}/after@1']:.1f}" for name in sets)
