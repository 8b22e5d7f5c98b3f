"""Supervised training of encoder and head on sketch-photo pairs: ``python -m training.supervised --config C.toml --data D --out O``.

A configuration file says which datasets, which network, which loss and how long (training/configs/, docs/training.md). The
official test sets play no part: figures on the way are on validation photos, people and categories cut from the training data
(training/data/splits.py). A run in --out that is not finished is taken up again, exactly.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.console import put_json, run
from fgsbir_edge.preprocess import InputSpec
from training.config import ConfigError, read_config, to_table
from training.data.augment import Augmentation
from training.data.batches import BatchStream
from training.data.sources import SourceConfig, ValidationSet, open_sources, validation_sets
from training.losses import LossConfig, build_loss
from training.memory import keep_freed_memory
from training.models.config import EncoderConfig
from training.models.encoder import EmbeddingHead, Encoder, build_encoder, build_head, initialise_by_pca
from training.models.registry import backbone_info
from training.models.weights import load_weights
from training.network import PairNetwork
from training.schedule import OptimiserConfig, freeze
from training.trainer import RunConfig, Trainer
from training.validation import Validator

log = logging.getLogger("training.supervised")

PCA_STREAM = 1_000_000_000  # batches for principal components: numbers that training never reaches


@dataclass(frozen=True)
class DataConfig:
    """`sources`: where pairs come from and in which shares; `pairs`: how many a step; `validation`: names of sets, all if empty."""

    sources: tuple[SourceConfig, ...]
    pairs: int = 24
    validation: tuple[str, ...] = ()
    augmentation: Augmentation = Augmentation()


@dataclass(frozen=True)
class InputConfig:
    """How sketches and photos become pixels (fgsbir_edge.preprocess.InputSpec); size and normalisation are the encoder's."""

    photo_fit: str = InputSpec.photo_fit
    style: str = InputSpec.style
    line_width: float = InputSpec.line_width
    ink: str = InputSpec.ink

    def spec(self, encoder: EncoderConfig) -> InputSpec:
        info = backbone_info(encoder.backbone)
        return InputSpec(encoder.size, info.mean, info.std, self.photo_fit, self.style, self.line_width, self.ink)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PcaConfig:
    """Principal components of pooled features as the projection (encoder.initialise_by_pca).

    batches   batches of training pairs they are computed from
    start     set the projection before training
    refit     set it anew, in a copy, before every validation: what is validated and kept has it
    """

    batches: int = 40
    start: bool = True
    refit: bool = False


@dataclass(frozen=True)
class SupervisedConfig:
    """A whole run. `weights` is a file of pretrained weights for the backbone, or a checkpoint of the same encoder."""

    data: DataConfig
    encoder: EncoderConfig = EncoderConfig()
    input: InputConfig = InputConfig()
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    run: RunConfig = RunConfig()
    pca: PcaConfig = field(default_factory=PcaConfig)


@dataclass(frozen=True)
class Components:
    """Sets a model's projection and head to principal components of training pairs' pooled features."""

    stream: BatchStream
    batches: int

    @torch.no_grad()
    def __call__(self, encoder: Encoder, head: EmbeddingHead) -> None:
        rows = []
        for number in range(self.batches):
            batch = self.stream.batch(PCA_STREAM + number)
            rows += [encoder.pool(batch.sketches), encoder.pool(batch.photos)]
        initialise_by_pca(encoder, head, torch.cat(rows))


def chosen_sets(names: tuple[str, ...], data: Path) -> list[ValidationSet]:
    """The validation sets of these names under `data`, or all there are. Raises ConfigError."""
    sets = {item.name: item for item in validation_sets(data)}
    if missing := sorted(set(names) - set(sets)):
        raise ConfigError(f"data.validation names {missing[0]!r}; under {data} there are {', '.join(sets) or 'none'}")
    chosen = [sets[name] for name in names] if names else list(sets.values())
    if not chosen:
        raise ConfigError(f"{data}: no dataset here has a validation split; see docs/data.md")
    return chosen


def build_network(config: SupervisedConfig, weights: Path | None) -> PairNetwork:
    """Encoder, head and loss with weights from a file, everything else random by the run's seed."""
    torch.manual_seed(config.run.seed)
    encoder = build_encoder(config.encoder)
    if weights is not None:
        report = load_weights(encoder.backbone, weights)
        log.info("%s: %d arrays loaded, %d left out", weights.name, len(report.used), len(report.left_out))
    freeze(encoder, config.optimiser.frozen)
    network = PairNetwork(encoder, build_head(config.encoder), build_loss(config.loss, config.encoder))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def train(config: SupervisedConfig, data: Path, out: Path, weights: Path | None) -> dict[str, Any]:
    """Run `config` to its end (or go on with it) in the folder `out`; returns the figures of the last validation."""
    keep_freed_memory()
    torch.set_num_threads(config.run.threads)
    spec = config.input.spec(config.encoder)
    sources = open_sources(config.data.sources, data, spec)
    stream = BatchStream(sources, spec, config.data.augmentation, config.data.pairs, config.run.seed)
    validator = Validator(chosen_sets(config.data.validation, data), spec)
    network = build_network(config, weights)
    components = Components(stream, config.pca.batches)
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
        log.info("before training: %s", json.dumps({name: round(v, 1) for name, v in validator(network.encoder, network.head).items()}))
    return trainer.fit(network)


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.supervised", description=__doc__)
    options.add_argument("--config", type=Path, required=True, help="TOML file, e.g. training/configs/edge.toml")
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders the file names")
    options.add_argument("--out", type=Path, required=True, help="checkpoints, log.csv and curves.png; an unfinished run goes on")
    options.add_argument("--weights", type=Path, help="pretrained weights of the backbone; omitted: random (for trials only)")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. run.steps=500; repeatable")
    arguments = options.parse_args()

    def start() -> int:
        config = read_config(arguments.config, SupervisedConfig, arguments.set)
        put_json(train(config, arguments.data, arguments.out, arguments.weights))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
