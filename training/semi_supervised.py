"""Joint training of photo-to-sketch generator and retrieval (METHODS B.5 to B.9): ``python -m training.semi_supervised``.

It starts from a retrieval network of training.supervised and a generator of training.generator, both trained on the labelled
pairs alone. A configuration file says how many photos keep their sketches, which further photos there are, and which parts of the
method take part (training/configs/semi.toml, docs/semi_supervised.md). A run in --out that is not finished is taken up again,
exactly.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.console import run
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.zero_sketch_artist import pair_spec
from training.checkpoint import load_model, read_meta
from training.config import ConfigError, from_table, read_config, to_table
from training.data.batches import BatchStream
from training.data.folder import Pair, PairsFolder
from training.data.pixels import PixelStore
from training.data.recipes import ValidationSet
from training.generation.checkpoint import load_generator, save_generator
from training.generation.dataset import sequence_set
from training.generation.sequences import SequenceOptions, SequenceSet
from training.loop import launched, put_once
from training.losses import build_loss
from training.memory import keep_freed_memory
from training.network import PairNetwork
from training.schedule import build_optimizer, freeze
from training.semi.clock import Clock
from training.semi.config import SemiConfig
from training.semi.discriminator import PatchDiscriminator
from training.semi.drawing import DrawnStore, Illustrator
from training.semi.generator import GeneratorObjective
from training.semi.players import Players, Trained
from training.semi.pool import Pool, Rows, in_pool, open_pool, pool_photos
from training.semi.probe import Probe, held_pairs
from training.semi.retrieval import RetrievalObjective, Teacher
from training.semi.sealed import Unsealing
from training.semi.trainer import JointTrainer
from training.supervised import Components, chosen_sets
from training.validation import Validator

MOMENTA = (0.5, 0.999)  # of Adam for G, as released, and for D_C, as in pix2pix

log = logging.getLogger("training.semi_supervised")


@dataclass(frozen=True)
class Start:
    """The two checkpoints that a joint run starts from."""

    retrieval: Path
    generator: Path

    def digests(self) -> dict[str, str]:
        """SHA-256 of the files: a run does not go on from others."""
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in vars(self).items()}


def generator_rows(meta: dict[str, Any], cache: Path | None = None) -> Rows:
    """How the generator of this metadata reads people's sketches: the thinning, the limits and the scale it was trained with."""
    options, scale = from_table(SequenceOptions, meta["sequences"], "the generator's checkpoint"), float(meta["scale"])

    def rows(folder: PairsFolder, pairs: Sequence[Pair]) -> SequenceSet:
        return sequence_set(folder, pairs, options, scale, cache)

    return rows


def build_players(config: SemiConfig, start: Start, pool: Pool, fabric: Any, cache: Path | None = None) -> Players:
    """Modules with the weights of `start`, a discriminator with random ones by the run's seed, and optimisers, on the device."""
    encoder, head, meta = load_model(start.retrieval)
    generator, drawn = load_generator(start.generator)
    spec = InputSpec.from_manifest(meta["input"])
    torch.manual_seed(config.run.seed)
    teacher = Teacher(encoder, head)
    freeze(encoder, config.optimiser)
    network = PairNetwork(encoder, head, build_loss(config.retrieval.loss, encoder.config))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    retrieval = RetrievalObjective(network, config.retrieval)
    objective = GeneratorObjective(generator, config.generator.loss, config.reward)
    discriminator = PatchDiscriminator(config.discriminator)
    learning = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    optimizers = {
        "retrieval": build_optimizer(network, config.optimiser),
        "generator": torch.optim.Adam(learning, lr=config.generator.rate, betas=MOMENTA),
        "discriminator": torch.optim.Adam(discriminator.parameters(), lr=config.discriminator.rate, betas=MOMENTA),
    }
    clips = {"retrieval": config.optimiser.clip, "generator": config.generator.clip, "discriminator": config.discriminator.clip}
    modules = {"retrieval": retrieval, "generator": objective, "discriminator": discriminator}
    trained = {}
    for name, module in modules.items():
        model, wrapped = fabric.setup(Unsealing(module), optimizers[name])
        trained[name] = Trained(model, wrapped, optimizers[name], clips[name])
    photos = pool.photos
    return Players(
        config=config,
        fabric=fabric,
        pool=pool,
        artist=Illustrator(
            generator,
            PixelStore(photos, InputSpec.from_manifest(drawn["input"]), cache),
            float(drawn["scale"]),
            config.generator.temperature,
            config.generator.pen_temperature,
        ),
        seen=DrawnStore(photos, spec, cache),
        pairs=PixelStore(photos, pair_spec(spec, config.discriminator.size), cache),
        retrieval=retrieval,
        generator=objective,
        discriminator=discriminator,
        teacher=teacher.to(fabric.device),
        trained=trained,
        clock=Clock(fabric.device),
    )


def with_probe(pool: Pool, sets: Sequence[ValidationSet], rows: Rows) -> tuple[Pool, Probe]:
    """The pool with the photos of held-out pairs, and the probe of these; without sets that have no sketches short enough."""
    photos, made = pool.photos, []
    for item in sets:
        found = rows(item.folder, held_pairs(item))
        if len(found) > 1:
            photos = photos.extended(pool_photos(item.folder, [pair.photo for pair in found.pairs]))
            made.append(in_pool(found, item.folder))
    return replace(pool, photos=photos), Probe(tuple(made))


def train(config: SemiConfig, data: Path, out: Path, start: Start, cache: Path | None = None) -> dict[str, Any]:
    """Run `config` to its end (or go on with it) in the folder `out`; returns the figures of the last validation.

    Raises ConfigError, ResumeError and what reading checkpoints and datasets raises.
    """
    run_config = config.run
    for path in vars(start).values():
        if not path.is_file():
            raise ConfigError(f"{path}: there is no such checkpoint; train it with training.supervised or training.generator")
    keep_freed_memory()
    torch.set_num_threads(run_config.threads)
    meta, drawn = read_meta(start.retrieval), read_meta(start.generator)
    spec, rows = InputSpec.from_manifest(meta["input"]), generator_rows(drawn, cache)
    sets = chosen_sets(config.data, data)
    pool, probe = with_probe(open_pool(config.data.sources, config.unlabelled, data, spec, rows, cache), sets, rows)
    labelled = tuple(source.labelled for source in pool.sources)
    stream = BatchStream(labelled, spec, config.data.augmentation, config.data.pairs, run_config.seed)
    few = BatchStream(labelled, spec, config.data.augmentation, config.pca.pairs, run_config.seed)
    validator = Validator(sets, spec)
    if run_config.score not in validator.names:
        raise ConfigError(f"run.score is {run_config.score!r}; there are {', '.join(validator.names)}")
    fabric = launched(run_config)
    table = {**to_table(config), "start": start.digests()}
    log.info("%s", pool.told())
    trainer = JointTrainer(
        folder=out,
        config=config,
        table=table,
        stream=stream,
        validate=validator,
        probe=probe,
        meta={"input": spec.to_manifest(), "recipe": table, "weights": meta.get("weights", "")},
        save_generator=lambda path, generator, step: save_generator(path, generator, {**drawn, "joint_step": step}),
        drawn_steps=int(drawn.get("step", 0)),
        refit=Components(few, config.pca) if config.pca.refit else None,
    )
    return trainer.fit(build_players(config, start, pool, fabric, cache))


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.semi_supervised", description=__doc__)
    options.add_argument("--config", type=Path, required=True, help="TOML file, e.g. training/configs/semi.toml")
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders the file names")
    options.add_argument("--generator", type=Path, required=True, help="checkpoint of training.generator")
    options.add_argument("--retrieval", type=Path, required=True, help="checkpoint of training.supervised")
    options.add_argument("--out", type=Path, required=True, help="checkpoints, log.csv and curves.png; an unfinished run goes on")
    options.add_argument("--cache", type=Path, help="folder for decoded photos and drawings, shared by workers and later runs")
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. unlabelled.fraction=0.4; repeatable"
    )
    arguments = options.parse_args()

    def start() -> int:
        config = read_config(arguments.config, SemiConfig, arguments.set)
        checkpoints = Start(arguments.retrieval, arguments.generator)
        figures = train(config, arguments.data, arguments.out, checkpoints, arguments.cache)
        put_once(figures)
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
