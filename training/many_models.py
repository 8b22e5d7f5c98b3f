"""One model for K categories, or people, against K individual models:

``python -m training.many_models --config C --data D --model M --out O``. M is a bundle or a checkpoint. O/many_models.json,
many_models.md and many_models.png are written anew after every K; docs/margin.md says how to read them. What is trained is kept
in O/trained.json and not trained again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fgsbir_edge.console import put_json, run
from fgsbir_edge.files import write_atomic
from training.config import ConfigError, read_config, to_table
from training.episodic.held_back import digest, open_features
from training.episodic.many_models import DIFFERS, Category, Layers, ManyModelsConfig, chosen, judge, summarise, train
from training.episodic.many_report import markdown, plot
from training.evaluate_model import open_model
from training.evaluation import torch_encode

log = logging.getLogger("training.many_models")


@dataclass
class Kept:
    """Acc@1 of trained models by what they are, kept in a file with what they depend on."""

    path: Path
    key: dict[str, Any]
    found: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, key: dict[str, Any]) -> Kept:
        """What is there already, if it depends on the same."""
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] == key:
                return cls(path, key, kept["found"])
        return cls(path, key)

    def get(self, name: str, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The accuracies by category of a model, trained where it is not there."""
        if name not in self.found:
            self.found[name] = make()
            write_atomic(self.path, json.dumps({"key": self.key, "found": self.found}).encode())
        return self.found[name]


def opened(config: ManyModelsConfig, data: Path, model: Path, cache: Path) -> tuple[list[Category], Layers]:
    """The categories, and the layers that training starts from. Raises ConfigError, and what reading and encoding raise."""
    encode, head, spec = open_model(model, config.threads)
    layers = [torch.tensor(head.weight), torch.tensor(head.bias)]
    if config.layers == "projection":
        if model.is_dir():
            raise ConfigError(
                'layers is "projection", and a bundle has no pooled maps; give --model a checkpoint or write "head"'
            )
        from training.checkpoint import load_model

        encoder = load_model(model)[0]
        if not isinstance(encoder.projection, torch.nn.Linear):
            raise ConfigError('layers is "projection" and this checkpoint has none; write "head"')
        encode = torch_encode(encoder, pooled=True)
        layers = [encoder.projection.weight.detach(), encoder.projection.bias.detach(), *layers]
    features = open_features(config.source, data, model, (encode, spec), cache / config.layers)
    rows = ((features.sketches[task.sketches], features.photos[task.gallery]) for task in features.tasks)
    categories = [Category.of(task.name, pair, task.truth) for task, pair in zip(features.tasks, rows, strict=True)]
    if max(config.counts) > len(categories):
        raise ConfigError(f"counts: {max(config.counts)} tasks asked for, {config.source.name} has {len(categories)}")
    return categories, Layers(tuple(layers))


def many_models(config: ManyModelsConfig, data: Path, model: Path, out: Path, cache: Path) -> dict[str, Any]:
    """Train and judge what is missing, and write the report after every K."""
    torch.set_num_threads(config.threads)
    categories, start = opened(config, data, model, cache)
    names = [category.name for category in categories]
    alike = config.source.setting == "person"
    cut = [[category.cut(config.held, repeat, alike=alike) for category in categories] for repeat in range(config.repeats)]
    out.mkdir(parents=True, exist_ok=True)
    options = {name: value for name, value in to_table(config).items() if name not in ("counts", "repeats", "threads")}
    kept = Kept.open(out / "trained.json", {"model": digest(model), "categories": names, **options})

    def make(repeat: int, numbers: list[int]) -> dict[str, float]:
        own = [(number, cut[repeat][number]) for number in numbers]
        layers = train(start, own, config)
        return {category.name: judge(layers, category) for _, category in own}

    before = [{category.name: judge(start, category) for category in own} for own in cut]
    single: dict[int, Sequence[dict[str, float]]] = {}
    individual: list[dict[str, float]] = [{} for _ in cut]
    figures: dict[str, Any] = {}
    for count in sorted(set(config.counts)):
        found = []
        for repeat in range(config.repeats):
            numbers = chosen(names, count, repeat, config.seed)
            for number in numbers:
                individual[repeat] |= kept.get(f"individual/{repeat}/{names[number]}", partial(make, repeat, [number]))
            found.append(kept.get(f"single/{repeat}/{count}", partial(make, repeat, numbers)))
        single[count] = found
        log.info("K = %d of %d tasks", count, len(names))
        parts = summarise(before, individual, single)
        figures = {"model": model.resolve().name, **to_table(config), "differs": list(DIFFERS[config.source.setting]), **parts}
        write_atomic(out / "many_models.json", (json.dumps(figures, indent=2, allow_nan=False) + "\n").encode())
        write_atomic(out / "many_models.md", markdown(figures).encode())
        plot(figures, out / "many_models.png")
    return figures


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.many_models", description=__doc__)
    add = options.add_argument
    add("--config", type=Path, required=True, help="TOML file, e.g. training/configs/many_models.toml")
    add("--data", type=Path, required=True, help="folder that holds the dataset folder the file names")
    add("--model", type=Path, required=True, help="bundle folder, or checkpoint .safetensors")
    add("--out", type=Path, required=True, help="folder for the report and what is trained")
    add("--cache", type=Path, help="folder for encoded features; default: in --out")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. steps=500; repeatable")
    arguments = options.parse_args()

    def start() -> int:
        config = read_config(arguments.config, ManyModelsConfig, arguments.set)
        cache = arguments.cache or arguments.out / "features"
        put_json(many_models(config, arguments.data, arguments.model, arguments.out, cache))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
