"""One model from runs that began with the same weights: ``python -m training.average --checkpoints A B --data D --out X``.

The plain mean of the weights below the projection (Wortsman et al., "Model soups", ICML 2022). Grids, projection, input and the
recipe by which components are set anew and figures measured are the first run's: others may differ in them, in their losses and
in their batches. On a device the mean costs what the first one costs.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.console import put_json, run
from fgsbir_edge.errors import FgsbirError
from training.checkpoint import load_model, read_meta, save_model
from training.config import ConfigError, apply_setting, from_table
from training.data.sources import open_sources
from training.models.encoder import build_encoder, build_head
from training.supervised import Components, SupervisedConfig, chosen_sets
from training.validation import Validator


class AverageError(FgsbirError, ValueError):
    """Checkpoints that have no common mean."""

    exit_code = 44


def average(checkpoints: list[Path], data: Path, out: Path, settings: Sequence[str] = ()) -> dict[str, float]:
    """Write the mean of `checkpoints` of training.supervised to `out`; returns its figures on the validation sets.

    `settings` ("pca.batches=100") change the first recipe, for components and figures alone.

    Raises AverageError for fewer than two, for other pretrained weights or another network than the first one's, and where the
    first recipe does not set its components anew; ConfigError for a recipe that this version does not read.
    """
    if len(checkpoints) < 2:
        raise AverageError(f"{len(checkpoints)} checkpoint given; an average needs at least two")
    metas = [_meta(path) for path in checkpoints]
    recipe = copy.deepcopy(metas[0]["recipe"])
    for setting in settings:
        apply_setting(recipe, setting)
    config = from_table(SupervisedConfig, recipe, str(checkpoints[0]))
    if not config.pca.refit:
        raise AverageError(f"{checkpoints[0]}: its recipe has pca.refit = false; means of trained projections are not made")
    encoder, head = build_encoder(config.encoder), build_head(config.encoder)
    states = [_below_projection(path) for path in checkpoints]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    for path, meta, shape in zip(checkpoints, metas, shapes, strict=True):
        if meta["weights"] != metas[0]["weights"] or shape != shapes[0]:
            raise AverageError(f"{path}: its network or weights are not those of {checkpoints[0]}; average runs that began alike")
    encoder.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}, strict=False)
    spec = config.input.spec(config.encoder)
    encoder.eval()
    Components.of(config, open_sources(config.data.sources, data, spec))(encoder, head)
    figures = Validator(chosen_sets(config.data, data), spec)(encoder, head)
    parts = [{"step": meta["step"], "seed": meta["seed"], "recipe": meta["recipe"]} for meta in metas]
    changed = {"input": spec.to_manifest(), "recipe": recipe, "averaged": parts, "validation": figures}
    save_model(out, encoder, head, {**metas[0], **changed})
    return figures


def _below_projection(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_model(path)[0].state_dict().items() if not name.startswith("projection.")}


def _meta(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise AverageError(f"{path}: there is no such checkpoint")
    meta = read_meta(path)
    if missing := [key for key in ("recipe", "weights", "step", "seed") if key not in meta]:
        raise ConfigError(f"{path}: not a checkpoint of training.supervised, it has no {missing[0]!r}")
    return meta


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.average", description=__doc__)
    options.add_argument("--checkpoints", type=Path, nargs="+", required=True, help="last.safetensors of two or more runs")
    options.add_argument("--data", type=Path, required=True, help="folder that holds the dataset folders of the recipe")
    options.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override of the first recipe; repeatable"
    )
    options.add_argument("--threads", type=int, default=2)
    arguments = options.parse_args()

    def start() -> int:
        torch.set_num_threads(arguments.threads)
        put_json(average(arguments.checkpoints, arguments.data, arguments.out, arguments.set))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
