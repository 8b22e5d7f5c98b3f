"""Pre-training of the photo-to-sketch generator on labelled pairs: ``python -m training.generator`` (METHODS B.2).

A configuration file says which datasets, which network, which loss and how long (training/configs/generator.toml,
docs/generator.md). Several sources train one generator. Figures on the way are on validation photos cut from the training data;
the official test sets play no part. A run in --out that is not finished is taken up again, exactly. --start begins with the
weights of another generator, for instance one trained on QuickDraw.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.console import run
from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.photo import Fit
from fgsbir_edge.preprocess import InputSpec, Style
from training.checkpoint import read_meta
from training.config import ConfigError, read_config, to_table
from training.data.pixels import PixelStore
from training.data.quickdraw import QuickDrawOptions, read_quickdraw_sets
from training.data.sources import SourceConfig, open_sources
from training.generation.checkpoint import load_generator, save_generator
from training.generation.config import GeneratorConfig
from training.generation.corpus import Corpus, DrawingStream, StreamOptions, common_scale, of_photos, of_themselves, rescaled
from training.generation.dataset import quickdraw_set, sequence_set
from training.generation.losses import VaeLossConfig
from training.generation.network import Generator
from training.generation.sequences import SequenceOptions, SequenceSet
from training.generation.sights import Sights
from training.generation.trainer import AdamConfig, GeneratorTrainer, Objective, PretrainRun
from training.generation.validation import SequenceValidator
from training.loop import put_once
from training.memory import keep_freed_memory
from training.models.registry import backbone_info
from training.models.weights import load_weights
from training.supervised import DataConfig, chosen_sets, find_weights

__all__ = ["load_generator", "save_generator", "train"]

log = logging.getLogger("training.generator")

VALIDATED = 500  # QuickDraw drawings that a validation looks at


@dataclass(frozen=True)
class QuickDrawSource:
    """Drawings without photos, whose picture is the drawing itself: a QuickDraw file, or a folder of them (data/quickdraw.py).

    `file` relative to the data folder; `limit` of the drawings that train, 0 for all; `share` and `name` as of other sources.
    """

    name: str
    file: str
    share: float = 1.0
    limit: int = 0

    def __post_init__(self) -> None:
        if not self.share > 0 or self.share == float("inf") or self.limit < 0:
            raise ValueError(f"source {self.name}: share must be a number above 0, limit not negative")


@dataclass(frozen=True)
class DrawingsConfig:
    """`sources` as in training.supervised (of kind "edges": the photos' edges, traced), `quickdraw` sources; `validation`: names
    of sets. Without names, every source of pairs validates on what it leaves out.
    """

    sources: tuple[SourceConfig, ...] = ()
    quickdraw: tuple[QuickDrawSource, ...] = ()
    validation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [*(item.name for item in self.sources), *(item.name for item in self.quickdraw)]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"sources {names}: expected at least one, each with a name of its own")


@dataclass(frozen=True)
class PictureConfig:
    """How photos, and drawings that stand for photos, become pixels; size and normalisation are the backbone's."""

    photo_fit: Fit = InputSpec.photo_fit
    style: Style = InputSpec.style
    line_width: float = InputSpec.line_width

    def spec(self, generator: GeneratorConfig) -> InputSpec:
        info = backbone_info(generator.backbone)
        return InputSpec(generator.size, info.mean, info.std, self.photo_fit, self.style, self.line_width)


@dataclass(frozen=True)
class PretrainConfig:
    """A whole run."""

    data: DrawingsConfig
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    input: PictureConfig = field(default_factory=PictureConfig)
    sequences: SequenceOptions = field(default_factory=SequenceOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    loss: VaeLossConfig = field(default_factory=VaeLossConfig)
    optimiser: AdamConfig = field(default_factory=AdamConfig)
    run: PretrainRun = field(default_factory=PretrainRun)

    def __post_init__(self) -> None:
        if self.sequences.max_length > self.generator.max_length:
            raise ValueError(
                f"sequences.max_length is {self.sequences.max_length}, the generator draws at most "
                f"{self.generator.max_length} rows; make them equal"
            )


@dataclass(frozen=True)
class Places:
    """Where the data lie, where a run writes, and where decoded photos, traces and maps are kept (None: nowhere)."""

    data: Path
    out: Path
    cache: Path | None = None


def open_corpora(
    config: PretrainConfig, places: Places, spec: InputSpec, scale: float | None = None
) -> tuple[list[Corpus], list[Corpus], float]:
    """Training corpora, validation corpora and the scale of all their offsets: `scale`, or that of the training drawings alone.

    Raises ConfigError where nothing is left to validate on, and what the datasets' readers raise.
    """
    data, options, cache = config.data, config.sequences, places.cache
    train: list[Corpus] = []
    held: list[Corpus] = []
    for source in open_sources(data.sources, places.data, spec, cache) if data.sources else ():
        pairs = [pair for photos in source.groups.values() for some in photos.values() for pair in some]
        sequences = sequence_set(source.store.folder, pairs, options, 1.0, cache)
        train.append(of_photos(source.name, source.share, sequences, source.store))
    for drawn in data.quickdraw:
        sets = read_quickdraw_sets(places.data / drawn.file, QuickDrawOptions(limit=drawn.limit or None, skip_bad=True))
        train.append(of_themselves(drawn.name, drawn.share, quickdraw_set(sets["train"], options, 1.0), spec))
        if sets["valid"].sketches and drawn.name in (data.validation or [drawn.name]):
            valid = quickdraw_set(sets["valid"], options, 1.0)
            held.append(of_themselves(drawn.name, 1.0, _first(valid, VALIDATED), spec))
    held += _held_pairs(config, places, spec)
    if not held:
        raise ConfigError(f"{places.data}: no source leaves drawings out to validate on; name a set in data.validation")
    if scale is None:
        scale = common_scale([corpus.sequences for corpus in train])
    return [_scaled(item, scale) for item in train], [_scaled(item, scale) for item in held], scale


def train(config: PretrainConfig, places: Places, weights: Path | None, start: Path | None = None) -> dict[str, Any]:
    """Run `config` to its end (or go on with it); returns the figures of the last validation.

    Args:
        weights: of the backbone; None: random ones. Not looked at with `start`.
        start: a generator to begin with instead of random weights; its scale is kept, since its weights know lengths in it.

    Raises ConfigError, ResumeError, WeightsError and what the datasets' readers raise.
    """
    keep_freed_memory()
    torch.set_num_threads(config.run.threads)
    spec = config.input.spec(config.generator)
    generator = build_generator(config, weights, start)
    known = None if start is None else float(read_meta(start)["scale"])
    corpora, held, scale = open_corpora(config, places, spec, known)
    log.info("%d drawings train, %d validate", *(sum(len(item.sequences) for item in side) for side in (corpora, held)))
    validator = SequenceValidator(Sights(generator, held, flips=False, cache=places.cache))
    if config.run.score not in validator.names:
        raise ConfigError(f"run.score is {config.run.score!r}; there are {', '.join(validator.names)}")
    table = {**to_table(config), "weights": weights.name if weights else "", "start": start.name if start else ""}
    trainer = GeneratorTrainer(
        places.out,
        config.run,
        config.optimiser,
        DrawingStream(corpora, config.stream, config.run.seed),
        Sights(generator, corpora, flips=config.stream.flip, cache=places.cache),
        validator,
        table,
        {"scale": scale, "input": spec.to_manifest(), "sequences": to_table(config.sequences), "recipe": table},
    )
    return trainer.fit(Objective(generator, config.loss))


def build_generator(config: PretrainConfig, weights: Path | None, start: Path | None = None) -> Generator:
    """A generator with random weights by the run's seed and the backbone's from a file, or with all of another generator's.

    Raises ConfigError for a `start` of another shape, and WeightsError.
    """
    torch.manual_seed(config.run.seed)
    generator = Generator(config.generator)
    if start is not None:
        other = load_generator(start)[0]
        try:
            generator.load_state_dict(other.state_dict())
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"{start}: a generator of another shape than [generator] says: {reason}") from None
    elif weights is not None:
        report = load_weights(generator.backbone, weights)
        log.info("%s: %d arrays loaded, %d left out", weights.name, len(report.used), len(report.left_out))
    return generator


def _held_pairs(config: PretrainConfig, places: Places, spec: InputSpec) -> list[Corpus]:
    """Corpora of the validation sets that the sources of pairs, or data.validation, name."""
    data = config.data
    names = tuple(name for name in data.validation if name not in {item.name for item in data.quickdraw})
    if not names and (data.validation or not any(item.split != "all" for item in data.sources)):
        return []
    found = []
    for item in chosen_sets(DataConfig(data.sources, validation=names), places.data):
        sequences = sequence_set(item.folder, item.pairs, config.sequences, 1.0, places.cache)
        found.append(of_photos(item.name, 1.0, sequences, PixelStore(item.folder, spec, places.cache)))
    return found


def _scaled(corpus: Corpus, scale: float) -> Corpus:
    return replace(corpus, sequences=rescaled(corpus.sequences, scale))


def _first(sequences: SequenceSet, count: int) -> SequenceSet:
    return replace(sequences, rows=sequences.rows[:count], lengths=sequences.lengths[:count], pairs=sequences.pairs[:count])


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.generator", description=__doc__)
    options.add_argument("--config", type=Path, required=True, help="TOML file, e.g. training/configs/generator.toml")
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders the file names")
    options.add_argument("--out", type=Path, required=True, help="checkpoints, log.csv and curves.png; an unfinished run goes on")
    options.add_argument(
        "--weights", help="pretrained weights of the backbone: a file, or random; default: an installed package's"
    )
    options.add_argument("--start", type=Path, help="a generator to begin with, e.g. one trained on QuickDraw")
    options.add_argument("--cache", type=Path, help="folder for photos, traces and the backbone's maps, shared by later runs")
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. run.steps=500; repeatable"
    )
    arguments = options.parse_args()

    def begin() -> int:
        config = read_config(arguments.config, PretrainConfig, arguments.set)
        if arguments.start is not None and not arguments.start.is_file():
            raise FgsbirError(f"{arguments.start}: there is no such generator; train one with python -m training.generator")
        weights = None if arguments.start else find_weights(arguments.weights, config.generator.backbone)
        figures = train(config, Places(arguments.data, arguments.out, arguments.cache), weights, arguments.start)
        put_once(figures)
        return 0

    return run(begin)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
