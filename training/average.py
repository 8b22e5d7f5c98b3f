"""One model from runs that began with the same weights: ``python -m training.average --checkpoints A B --data D --out X``.

The weights' plain mean (Wortsman et al., "Model soups", ICML 2022), its projection set to principal components anew and its
figures measured, as the first run's recipe does both. It costs no more on a device than one of them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.console import put_json, run
from fgsbir_edge.errors import FgsbirError
from training.checkpoint import load_model, read_meta, save_model
from training.config import ConfigError, from_table
from training.data.batches import BatchStream
from training.data.sources import open_sources
from training.supervised import Components, SupervisedConfig, chosen_sets
from training.validation import Validator


class AverageError(FgsbirError, ValueError):
    """Checkpoints that have no common mean."""

    exit_code = 44


def average(checkpoints: list[Path], data: Path, out: Path) -> dict[str, float]:
    """Write the mean of `checkpoints` of training.supervised to `out`; returns its figures on the validation sets.

    Raises AverageError for fewer than two, another architecture, pretrained weights or input than the first one's, and
    ConfigError for a recipe that this version does not read.
    """
    if len(checkpoints) < 2:
        raise AverageError(f"{len(checkpoints)} checkpoint given; an average needs at least two")
    metas = [_meta(path) for path in checkpoints]
    for path, meta in zip(checkpoints[1:], metas[1:], strict=True):
        for key in ("config", "weights", "input"):
            if meta[key] != metas[0][key]:
                raise AverageError(f"{path}: its {key} is not that of {checkpoints[0]}; average runs that began alike")
    config = from_table(SupervisedConfig, metas[0]["recipe"], str(checkpoints[0]))
    encoder, head, _ = load_model(checkpoints[0])
    states = [load_model(path)[0].state_dict() for path in checkpoints]
    encoder.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    spec = config.input.spec(config.encoder)
    if config.pca.refit:
        sources = open_sources(config.data.sources, data, spec)
        stream = BatchStream(sources, spec, config.data.augmentation, config.data.pairs, config.run.seed)
        Components(stream, config.pca)(encoder, head)
    figures = Validator(chosen_sets(config.data, data), spec)(encoder, head)
    parts = [{"step": meta["step"], "seed": meta["seed"]} for meta in metas]
    save_model(out, encoder, head, {**metas[0], "averaged": parts, "validation": figures})
    return figures


def _meta(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise AverageError(f"{path}: there is no such checkpoint")
    meta = read_meta(path)
    if missing := [key for key in ("config", "recipe", "weights", "input", "step", "seed") if key not in meta]:
        raise ConfigError(f"{path}: not a checkpoint of training.supervised, it has no {missing[0]!r}")
    return meta


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.average", description=__doc__)
    options.add_argument("--checkpoints", type=Path, nargs="+", required=True, help="last.safetensors of two or more runs")
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders of the recipe")
    options.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    options.add_argument("--threads", type=int, default=2)
    arguments = options.parse_args()

    def start() -> int:
        torch.set_num_threads(arguments.threads)
        put_json(average(arguments.checkpoints, arguments.data, arguments.out))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
