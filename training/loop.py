"""The loop that every pipeline's training goes through: steps, validation, stopping, saving; on one process or several."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from tqdm import tqdm

from fgsbir_edge.console import put_json
from training.processes import launch
from training.run_state import Progress
from training.stopping import StopRequest

log = logging.getLogger("training.loop")


class Run(Protocol):
    """How long: fields of a pipeline's run configuration."""

    @property
    def steps(self) -> int: ...

    @property
    def every(self) -> int:
        """Steps between validations."""
        ...

    @property
    def patience(self) -> int:
        """Validations without a better score until the run stops; 0: never."""
        ...

    @property
    def score(self) -> str: ...


class Place(Protocol):
    """Where: fields of a pipeline's run configuration, as Fabric names them."""

    @property
    def accelerator(self) -> str: ...

    @property
    def devices(self) -> int: ...

    @property
    def precision(self) -> Literal["32-true", "bf16-mixed"]: ...


def launched(place: Place) -> Any:
    """A Fabric on these devices, its processes started: one, or by DDP one for each device."""
    from lightning_fabric import Fabric

    strategy = "auto" if place.devices == 1 else "ddp"
    fabric = Fabric(accelerator=place.accelerator, strategy=strategy, devices=place.devices, precision=place.precision)
    launch(fabric)
    return fabric


@dataclass(frozen=True)
class Actions:
    """What a pipeline does in the loop; `record` and `save` on the first process alone.

    step    train one step, numbered from 0
    record  write a row of the log; told to validate, also figures and checkpoints, and count in the progress what is not better
    save    save all that going on needs
    """

    step: Callable[[int], None]
    record: Callable[[bool], None]
    save: Callable[[], None]


def run_steps(fabric: Any, run: Run, progress: Progress, actions: Actions, log_every: int) -> None:
    """Take the steps that `progress` has not done yet.

    Raises KeyboardInterrupt when any process was asked to stop, after the step was finished and the state saved.
    """
    first, quiet = progress.step, not sys.stderr.isatty() or fabric.global_rank > 0
    with StopRequest() as stop:
        for step in tqdm(range(first, run.steps), initial=first, total=run.steps, disable=quiet, unit="step"):
            actions.step(step)
            progress.step += 1
            validate = progress.step % run.every == 0 or progress.step == run.steps
            if fabric.is_global_zero and (validate or progress.step % log_every == 0):
                actions.record(validate)
            stopped = anywhere(fabric, stop.made)
            if fabric.is_global_zero and (validate or stopped):
                actions.save()  # last: it says that the checkpoints are there
            if stopped:
                log.info("stopped at step %d; the same command goes on from there", progress.step)
                raise KeyboardInterrupt
            if validate and run.patience and fabric.broadcast(progress.stale) >= run.patience:
                log.info("no better %s in %d validations: stopped", run.score, run.patience)
                return


def anywhere(fabric: Any, made: bool) -> bool:
    """Whether any process was asked to stop: all must leave after the same step, or those that stay wait for the others."""
    if fabric.world_size == 1:
        return made
    return bool(fabric.all_reduce(torch.tensor(int(made), device=fabric.device), reduce_op="max"))


def put_once(figures: Mapping[str, Any]) -> None:
    """Print a run's figures as JSON, from the first process alone."""
    if not (torch.distributed.is_initialized() and torch.distributed.get_rank()):
        put_json(dict(figures))
