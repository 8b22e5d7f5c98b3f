"""A light sketch encoder distilled from a released one: ``python -m training.distil``.

    --config training/configs/light.toml --teacher BUNDLE --start CHECKPOINT --data DATA --out RUN

It learns to give a drawing the features that the bundle's own encoder gives it, so that photos, galleries and adaptation stay as
they are (docs/light.md). Photos held back by the splits of training/data play no part. A run in --out that is not finished is
taken up again, exactly.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.console import run
from fgsbir_edge.preprocess import InputSpec
from training.checkpoint import load_model
from training.config import ConfigError, read_config, to_table
from training.evaluation import torch_encode
from training.light.checkpoint import is_light, load_light
from training.light.network import LightLoss, LightNetwork
from training.light.start import fit, same_shape, take_over
from training.light.stream import DrawingStream, Side
from training.light.teacher import Teacher
from training.light.trainer import LightTrainer
from training.light.validation import LightValidator
from training.loop import put_once
from training.memory import keep_freed_memory
from training.models.light import LightConfig, LightEncoder
from training.schedule import OptimiserConfig
from training.supervised import DataConfig, chosen_sets
from training.trainer import RunConfig, brief

log = logging.getLogger("training.distil")


@dataclass(frozen=True)
class StartConfig:
    """Batches of the stream that tell which channels are used (`usage`) and that the projection is fitted to (`fit`)."""

    usage: int = 6
    fit: int = 40


@dataclass(frozen=True)
class DistilConfig:
    """A whole run.

    line_width  of sketches, pixels at the light encoder's input; style, ink and normalisation are the teacher's
    batches     how many different batches there are: what comes again costs the teacher nothing; 0: no end
    data        `pairs` is the number of drawings a step
    """

    data: DataConfig
    student: LightConfig = field(default_factory=LightConfig)
    line_width: float = 1.6
    batches: int = 0
    start: StartConfig = field(default_factory=StartConfig)
    loss: LightLoss = field(default_factory=LightLoss)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def spec(self, teacher: InputSpec) -> InputSpec:
        """What the light encoder sees."""
        return replace(teacher, size=self.student.size, line_width=self.line_width, photo_shift=0)


def started(config: DistilConfig, teacher: Teacher, start: Path | None) -> LightEncoder:
    """The light encoder before training: early layers from a checkpoint where one is given, the projection fitted."""
    torch.manual_seed(config.run.seed)
    encoder, stream = LightEncoder(config.student), teacher.stream
    if start is not None and is_light(start):
        same_shape(encoder, load_light(start)[0])
    elif start is not None:
        take_over(encoder, load_model(start)[0], (stream.draw(stream.light, number) for number in range(config.start.usage)))
    fit(encoder, ((stream.draw(stream.light, number), teacher.features(number)) for number in range(config.start.fit)))
    return encoder


def train(
    config: DistilConfig, bundle: Bundle, start: Path | None, data: Path, out: Path, cache: Path | None = None
) -> dict[str, Any]:
    """Run `config` to its end (or go on with it) in the folder `out`; returns the figures of the last validation.

    Raises ConfigError, ResumeError and what the datasets' readers raise.
    """
    keep_freed_memory()
    torch.set_num_threads(config.run.threads)
    if config.student.features != bundle.head.features:
        raise ConfigError(f"student.features is {config.student.features}, the teacher's are {bundle.head.features}; set it so")
    if config.run.workers:
        raise ConfigError("run.workers is set, but drawings are made where they are learned from; leave it out")
    spec = config.spec(bundle.input)
    large, light = (Side.open(config.data.sources, data, each, config.data.augmentation, cache) for each in (bundle.input, spec))
    stream = DrawingStream(large, light, config.data.pairs, config.run.seed)
    teacher = Teacher(bundle, stream, config.run.threads, keep=config.batches > 0)
    validator = LightValidator(chosen_sets(config.data, data), bundle, teacher.encode, spec)
    if config.run.score not in validator.names:
        raise ConfigError(f"run.score is {config.run.score!r}; there are {', '.join(validator.names)}")
    log.info("teacher: %s", brief(validator.teacher))
    meta = {
        "input": spec.to_manifest(),
        "teacher": {"name": bundle.name, "features_digest": bundle.features_digest, "validation": validator.teacher},
        "recipe": to_table(config),
    }
    trainer = LightTrainer(out, config.run, config.optimiser, teacher, validator, to_table(config), meta, config.batches)
    encoder = LightEncoder(config.student) if trainer.started else started(config, teacher, start)
    log.info("%d parameters", sum(parameter.numel() for parameter in encoder.parameters()))
    if not trainer.started:
        log.info("before training: %s", brief(validator(torch_encode(encoder.eval()))))
    network = LightNetwork(encoder, teacher.head(), teacher.photos(config.loss.photos), config.loss)
    return trainer.fit(network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.distil", description=__doc__)
    options.add_argument("--config", type=Path, required=True, help="TOML file, e.g. training/configs/light.toml")
    options.add_argument("--teacher", type=Path, required=True, help="bundle whose encoder is to be matched")
    options.add_argument(
        "--start", type=Path, help="checkpoint of that encoder, whose early layers are taken over, or of another light one"
    )
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders the file names")
    options.add_argument("--out", type=Path, required=True, help="checkpoints, log.csv and curves.png; an unfinished run goes on")
    options.add_argument("--cache", type=Path, help="folder for decoded photos and drawings, shared with other runs")
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. run.steps=500; repeatable"
    )
    given = options.parse_args()

    def start() -> int:
        config = read_config(given.config, DistilConfig, given.set)
        put_once(train(config, Bundle.load(given.teacher), given.start, given.data, given.out, given.cache))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
