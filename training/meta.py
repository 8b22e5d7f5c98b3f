"""Meta-training of the embedding layer for adaptation from k pairs (ECCV 2022, METHODS part C): ``python -m training.meta``.

It starts from a checkpoint of training.supervised. A configuration file says which datasets are tasks of people and of
categories, where features come from and which of the network trains, the inner loop, its margin, the outer loss and how long
(training/configs/meta.toml, docs/meta.md). Figures on the way are on people, objects, categories and photos that train nothing.
A run in --out that is not finished is taken up again, exactly.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.console import run
from training.config import ConfigError, read_config, to_table
from training.episodic.config import MetaConfig
from training.episodic.setup import prepare
from training.episodic.trainer import MetaTrainer
from training.loop import put_once
from training.memory import keep_freed_memory


def train(config: MetaConfig, data: Path, out: Path, checkpoint: Path, cache: Path | None = None) -> dict[str, Any]:
    """Run `config` to its end (or go on with it) in the folder `out`; returns the figures of the last validation.

    Raises ConfigError, ResumeError and what reading the checkpoint and the datasets raises.
    """
    keep_freed_memory()
    torch.set_num_threads(config.run.threads)
    prepared = prepare(config, data, checkpoint, cache or out / "features")
    if config.run.score not in prepared.validator.names:
        raise ConfigError(f"run.score is {config.run.score!r}; there are {', '.join(prepared.validator.names)}")
    recipe = to_table(config)
    table = {**recipe, "start": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}
    meta = {**prepared.meta, "meta_recipe": recipe}
    trainer = MetaTrainer(out, config, prepared.stream, prepared.validator, table, meta)
    return trainer.fit(prepared.objective)


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.meta", description=__doc__)
    options.add_argument("--config", type=Path, required=True, help="TOML file, e.g. training/configs/meta.toml")
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders the file names")
    options.add_argument("--checkpoint", type=Path, required=True, help="supervised checkpoint to start from")
    options.add_argument("--out", type=Path, required=True, help="checkpoints, log.csv and curves.png; an unfinished run goes on")
    options.add_argument("--cache", type=Path, help="folder for cached features or decoded images; default: in --out")
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. inner.steps=5; repeatable"
    )
    arguments = options.parse_args()

    def start() -> int:
        config = read_config(arguments.config, MetaConfig, arguments.set)
        put_once(train(config, arguments.data, arguments.out, arguments.checkpoint, arguments.cache))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
