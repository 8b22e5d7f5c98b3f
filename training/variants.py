"""One recipe in several variants, compared: ``python -m training.variants --config C.toml --variants V.toml --data D --out O``.

V.toml names the variants, each with the settings that it changes (a variant without any is the recipe itself):

    [variants.recipe]
    settings = []
    [variants.triplet]
    settings = ["loss.main='triplet'", "loss.margin=0.3"]

Every variant is trained from scratch with every seed, in a folder of its own; what is finished is not run again and what was
stopped goes on. O/table.md and O/table.json hold the figures of each one's last validation: which variant is better is not to be
read from steps that were chosen by the same figures.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.console import put_json, run
from fgsbir_edge.files import write_atomic
from training.config import ConfigError, read_config
from training.journal import read_log
from training.supervised import SupervisedConfig, find_weights, train

log = logging.getLogger("training.variants")


@dataclass(frozen=True)
class Variant:
    """Settings that a variant changes, as on the command line of training.supervised."""

    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class VariantsFile:
    """Variants by name, in the order of the file."""

    variants: dict[str, Variant]


def read_variants(path: Path, common: tuple[str, ...] = ()) -> dict[str, Variant]:
    """Variants of a file, each after the `common` settings.

    Raises ConfigError for a file that is missing, empty or has other keys.
    """
    variants = read_config(path, VariantsFile).variants
    if not variants:
        raise ConfigError(f"{path}: no variants; add [variants.NAME] with settings = [...]")
    return {name: Variant((*common, *variant.settings)) for name, variant in variants.items()}


def train_all(config: Path, variants: dict[str, Variant], seeds: list[int], data: Path, out: Path, weights: str | None) -> None:
    """Train what is not finished yet. All configurations are read before the first run, so that a slip shows at once."""
    runs = {
        (name, seed): read_config(config, SupervisedConfig, [*variant.settings, f"run.seed={seed}"])
        for name, variant in variants.items()
        for seed in seeds
    }
    for (name, seed), settings in runs.items():
        folder = out / f"{name}-{seed}"
        rows = read_log(folder)
        if rows and rows[-1]["step"] >= settings.run.steps:
            continue
        log.info("%s, seed %d", name, seed)
        train(settings, data, folder, find_weights(weights, settings.encoder.backbone))


def collect(variants: dict[str, Variant], seeds: list[int], out: Path) -> dict[str, Any]:
    """Figures of the last validation by variant: mean over the seeds and, of several, the standard deviation."""
    table: dict[str, Any] = {}
    for name, variant in variants.items():
        last = [read_log(out / f"{name}-{seed}")[-1] for seed in seeds]
        wanted = [key for key in last[0] if key.endswith(("/acc@1", "/mrr")) or key in ("step", "loss", "seconds/step")]
        figures = {key: round(float(np.mean([row[key] for row in last])), 3) for key in wanted}
        spread = {key: round(float(np.std([row[key] for row in last], ddof=1)), 3) for key in wanted} if len(seeds) > 1 else {}
        table[name] = {"settings": list(variant.settings), "mean": figures, "deviation": spread}
    return table


def markdown(table: dict[str, Any]) -> str:
    """Acc@1 of every validation set and the means, a row a variant."""
    columns = [key for key in next(iter(table.values()))["mean"] if "/" in key and key != "seconds/step"]
    columns = [key for key in columns if key.endswith("/acc@1") or key == "mean/mrr"]
    lines = [f"| variant | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, entry in table.items():
        cells = [
            f"{entry['mean'][key]:.1f}" + (f" ± {entry['deviation'][key]:.1f}" if entry["deviation"] else "") for key in columns
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.variants", description=__doc__)
    options.add_argument("--config", type=Path, required=True, help="the recipe, as for training.supervised")
    options.add_argument("--variants", type=Path, required=True, help="TOML file of variants")
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--weights", help="as for training.supervised")
    options.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for all variants that do not set it themselves; repeatable",
    )
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = options.parse_args()

    def start() -> int:
        variants = read_variants(arguments.variants, tuple(arguments.set))
        train_all(arguments.config, variants, arguments.seeds, arguments.data, arguments.out, arguments.weights)
        table = collect(variants, arguments.seeds, arguments.out)
        write_atomic(arguments.out / "table.json", (json.dumps(table, indent=2) + "\n").encode())
        write_atomic(arguments.out / "table.md", markdown(table).encode())
        put_json(table)
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
