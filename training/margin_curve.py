"""Accuracy against the margin, task by task, and the margin that is predicted:

``python -m training.margin_curve --config C --data D --model M --out O``. M is a bundle or a checkpoint; O/margin.json, margin.md
and margin.png are written, docs/margin.md says how to read them. Features are encoded once and kept in --cache.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from fgsbir_edge.console import put_json, run
from fgsbir_edge.files import write_atomic
from training.config import read_config, to_table
from training.episodic.held_back import open_features
from training.episodic.margin_curve import MarginCurveConfig, measure, summarise
from training.episodic.margin_report import markdown, plot
from training.evaluate_model import open_model

log = logging.getLogger("training.margin_curve")


def margin_curve(config: MarginCurveConfig, data: Path, model: Path, out: Path, cache: Path) -> dict[str, Any]:
    """Measure every source's tasks and write the report. Raises ConfigError, and what reading and encoding raise."""
    encode, head, spec = open_model(model, config.threads)
    sets = {}
    for source in config.sources:
        features = open_features(source, data, model, (encode, spec), cache, config.k)
        log.info("%s: %d tasks, %d margins", source.name, len(features.tasks), config.points)
        sets[source.name] = summarise(measure(head, features, config), config.grid)
    learned = {
        "margin": "predicted" if head.margin_net is not None else head.margin,
        "sharpness": head.sharpness,
        "step_sizes": [round(float(rate), 6) for rate in head.step_sizes],
        "side": config.side or head.side,
        "negatives": config.negatives or head.negatives,
    }
    figures = {"model": model.resolve().name, "head": learned, **to_table(config), "sets": sets}
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "margin.json", (json.dumps(figures, indent=2, allow_nan=False) + "\n").encode())
    write_atomic(out / "margin.md", markdown(figures).encode())
    plot(figures, out / "margin.png")
    return figures


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.margin_curve", description=__doc__)
    add = options.add_argument
    add("--config", type=Path, required=True, help="TOML file, e.g. training/configs/margin_curve.toml")
    add("--data", type=Path, required=True, help="folder that holds the dataset folders the file names")
    add("--model", type=Path, required=True, help="bundle folder, or checkpoint .safetensors")
    add("--out", type=Path, required=True, help="folder for margin.json, margin.md and margin.png")
    add("--cache", type=Path, help="folder for encoded features; default: in --out")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. draws=20; repeatable")
    arguments = options.parse_args()

    def start() -> int:
        config = read_config(arguments.config, MarginCurveConfig, arguments.set)
        cache = arguments.cache or arguments.out / "features"
        put_json(margin_curve(config, arguments.data, arguments.model, arguments.out, cache))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
