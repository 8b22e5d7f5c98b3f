"""The loop of a joint run: warm-up and alternation, validation, checkpoints that resume exactly (METHODS B.9).

Every random draw of a step is a function of (seed, step, device), so a run that was stopped and goes on computes what an unbroken
one would have.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.checkpoint import save_model, save_tensors
from training.data.batches import BatchStream, PairBatch
from training.journal import Journal
from training.loop import Actions, run_steps
from training.run_state import STATE, Progress
from training.schedule import MovingAverage, set_rate
from training.semi.config import SemiConfig
from training.semi.curves import draw_joint_curves
from training.semi.players import Chance, Figures, Players
from training.semi.probe import Probe
from training.semi.state import JointState, Tensors, load_joint
from training.trainer import BEST, LAST, Refit, Validate, brief, step_seed

log = logging.getLogger("training.semi")

GENERATOR, DISCRIMINATOR = "generator.safetensors", "discriminator.safetensors"
SMOOTHING = 0.95  # of the figures that are written down
LOG_EVERY = 25  # steps between rows of the log
_STREAM = 5  # keeps these draws apart from others of the same seed


@dataclass
class JointTrainer:
    """One run in `folder`.

    Args:
        config: of the run; `table` is that as JSON, with what else must be the same when the run goes on.
        stream: labelled batches for the retrieval network.
        validate: figures of an encoder and head; `refit` is applied to them before that.
        meta: goes into every checkpoint of the retrieval network; `save_generator` writes the generator's.
        drawn_steps: steps the generator was pre-trained for, from which its annealing goes on.
    """

    folder: Path
    config: SemiConfig
    table: dict[str, Any]
    stream: BatchStream
    validate: Validate
    probe: Probe
    meta: dict[str, Any]
    save_generator: Any
    drawn_steps: int = 0
    refit: Refit | None = None
    progress: Progress = field(default_factory=Progress)

    def fit(self, players: Players) -> dict[str, float]:
        """Train the players in place, from the start or from where the run in `folder` stopped. Returns the last figures.

        Raises ResumeError, and KeyboardInterrupt when asked to stop, after the step was finished and the state saved.
        """
        run, fabric = self.config.run, players.fabric
        network = players.retrieval.network
        average = MovingAverage(network.model_state(), self.config.optimiser.average)
        resumed = self._resume(players, average)
        average.tensors = {name: tensor.to(fabric.device) for name, tensor in average.tensors.items()}
        journal = Journal(self.folder, self.progress.step, tensorboard=run.tensorboard) if fabric.is_global_zero else None
        figures: Figures = {}
        if journal is not None and not resumed:
            figures = self._checkpoint(players, average)
            if not journal.rows:  # else the run was killed before its first state was saved
                journal.add({"step": 0, **figures})
            log.info("before joint training: %s", brief(figures))
        since = self.progress.step

        def record(validate: bool) -> None:
            nonlocal since, figures
            times = players.clock.take(self.progress.step - since)
            since = self.progress.step
            figures = self._checkpoint(players, average) if validate else {}
            players.clock.take(1)  # validation is not part of a step
            assert journal is not None
            self._write(journal, figures, times)

        with closing(self._batches(fabric)) as batches:
            actions = Actions(
                lambda step: self._step(step, players, average, batches),
                record,
                lambda: self._state(players, average).save(self.folder),
            )
            run_steps(fabric, run, self.progress, actions, LOG_EVERY)
        fabric.barrier()
        return figures

    def _batches(self, fabric: Any) -> Generator[PairBatch, None, None]:
        """This device's labelled batches of the retrieval steps still to do; every device but the first has a seed of its own."""
        rank, own, alternation = fabric.global_rank, self.stream, self.config.alternation
        if rank > 0:
            own = BatchStream(own.sources, own.spec, own.augmentation, own.pairs_per_step, step_seed(own.seed, rank))
        first, last = (alternation.done(step) for step in (self.progress.step, self.config.run.steps))
        with closing(own.stream(first, last, self.config.run.workers)) as batches:
            yield from batches

    def _step(self, step: int, players: Players, average: MovingAverage, batches: Iterator[PairBatch]) -> None:
        config, rank = self.config, players.fabric.global_rank
        alternation, seed = config.alternation, config.run.seed
        torch.manual_seed(step_seed(seed, step, rank))
        own = torch.Generator().manual_seed(step_seed(seed, step, rank, _STREAM))
        chance = Chance(np.random.default_rng([seed, _STREAM, step, rank]), own)
        phase, done = alternation.phase(step), alternation.done(step)
        with players.clock.part(f"seconds/{phase}"):
            if phase == "warmup":
                figures = players.warmup(chance)
            elif phase == "retrieval":
                set_rate(
                    players.trained["retrieval"].optimizer, config.optimiser.factor(done, alternation.done(config.run.steps))
                )
                with players.clock.part("labelled pairs"):
                    batch = next(batches)
                figures = players.retrieve(batch, chance)
                average.update(players.retrieval.network.model_state(), done)
            else:
                figures = players.generate(chance, self.drawn_steps + step - alternation.warmup - done)
        kept = self.progress.losses
        for name, value in figures.items():
            kept[name] = SMOOTHING * kept[name] + (1 - SMOOTHING) * value if name in kept else value

    def _write(self, journal: Journal, figures: Figures, times: Figures) -> None:
        """One row of the log, and where there are figures the curves and a line."""
        step, kept = self.progress.step, self.progress.losses
        journal.add({"step": step, **kept, **times, **figures})
        if figures:
            draw_joint_curves(journal.rows, self.folder)
            log.info("step %d %s", step, brief(figures))
        else:
            seconds = sum(value for name, value in times.items() if name.startswith("time/"))
            told = ", ".join(
                f"{name} {kept[name]:.3f}" for name in ("loss/F", "loss/D", "weight/mean", "reward/mean") if name in kept
            )
            log.info("step %d %s, %.2f s/step", step, told, seconds)

    def _checkpoint(self, players: Players, average: MovingAverage) -> Figures:
        """Validate the averaged weights, probe the players; write the last checkpoints, and the best where they are it."""
        network, progress = players.retrieval.network, self.progress
        encoder, head = copy.deepcopy(network.encoder).cpu(), copy.deepcopy(network.head).cpu()
        for module, part in ((encoder, "encoder."), (head, "head.")):
            kept = {name: tensor for name, tensor in average.tensors.items() if name.startswith(part)}
            module.load_state_dict({name.removeprefix(part): tensor for name, tensor in kept.items()})
        if self.refit is not None:
            self.refit(encoder.eval(), head.eval())
        figures = {**self.validate(encoder, head), **self.probe(players)}
        meta = {**self.meta, "step": progress.step, "seed": self.config.run.seed, "validation": figures}
        save_model(self.folder / LAST, encoder, head, meta)
        if figures[self.config.run.score] > progress.best:
            progress.best, progress.stale = figures[self.config.run.score], 0
            save_model(self.folder / BEST, encoder, head, meta)
        else:
            progress.stale += 1
        self.save_generator(self.folder / GENERATOR, players.artist.generator, progress.step)
        tensors = {name: tensor.cpu() for name, tensor in players.discriminator.state_dict().items()}
        save_tensors(self.folder / DISCRIMINATOR, tensors, {"config": self.table["discriminator"], "step": progress.step})
        return figures

    def _parts(self, players: Players, average: MovingAverage) -> dict[str, Tensors]:
        return {
            "retrieval": players.retrieval.network.state_dict(),
            "generator": dict(players.artist.generator.trained_state()),
            "discriminator": players.discriminator.state_dict(),
            "teacher": players.teacher.state_dict(),
            "average": average.tensors,
        }

    def _state(self, players: Players, average: MovingAverage) -> JointState:
        optimizers = {name: trained.optimizer for name, trained in players.trained.items()}
        return JointState(self._parts(players, average), optimizers, self.progress, self.table)

    def _resume(self, players: Players, average: MovingAverage) -> bool:
        optimizers = {name: trained.optimizer for name, trained in players.trained.items()}
        found = load_joint(self.folder, self._parts(players, average), optimizers, self.table)
        if found is None:
            return False
        for part, module in (
            ("retrieval", players.retrieval.network),
            ("discriminator", players.discriminator),
            ("teacher", players.teacher),
        ):
            module.load_state_dict(found.tensors[part])
        players.artist.generator.load_state_dict(found.tensors["generator"], strict=False)  # a fixed backbone is not in it
        average.tensors, self.progress = found.tensors["average"], found.progress
        log.info("going on from step %d", self.progress.step)
        return True


def started(folder: Path) -> bool:
    """Whether the folder holds a run to go on from."""
    return (folder / STATE).is_file()
