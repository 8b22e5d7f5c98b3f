"""Figures of a model on this project's own splits.

``python -m training.report --model BUNDLE --twin CHECKPOINT --data DATA --out docs/results/NAME.json``. DATA holds drawings32/
and sketchy/, and chairv2/, chairv1/, shoev1/ where the twin is given.

Nothing reported here trained the model it is reported of. A released model is trained on every chair and shoe there is, so people
and categories are its own figures, and those on validation photos are its twin's: the same recipe with these photos held back.
Adaptation runs through the device's own code, with the guard and without it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.adapt import AdaptOptions
from fgsbir_edge.console import run
from fgsbir_edge.files import write_atomic
from fgsbir_edge.head import Head
from fgsbir_edge.preprocess import InputSpec
from training.data.folder import Pair, PairsFolder
from training.data.recipes import validation_sets
from training.data.splits import select, split_categories, split_drawings
from training.episodes import Task, category_tasks, person_tasks
from training.evaluate_adaptation import Protocol, adaptation
from training.evaluate_model import open_model, open_sketches
from training.evaluate_retrieval import figures_of
from training.evaluation import Encode, encode_photos, encode_sketches, pair_ranks

DRAWS = 10
PHOTO_SETS = ("chairv2", "chairv1", "shoev1")


Side = tuple[Encode, InputSpec]


@dataclass(frozen=True)
class Encoded:
    """Features of some pairs and of the photos they are searched among."""

    folder: PairsFolder
    pairs: tuple[Pair, ...]
    names: list[str]
    sketches: np.ndarray  # [pairs, C]
    photos: np.ndarray  # [names, C]

    @classmethod
    def of(cls, folder: PairsFolder, pairs: tuple[Pair, ...], names: list[str], large: Side, drawn: Side) -> Encoded:
        """Photos are encoded by `large`, sketches by `drawn`."""
        keys = [pair.sketch for pair in pairs]
        return cls(folder, pairs, names, encode_sketches(folder, keys, *drawn), encode_photos(folder, names, *large))

    @property
    def rows(self) -> tuple[dict[str, int], dict[str, int]]:
        return {pair.sketch: row for row, pair in enumerate(self.pairs)}, {name: row for row, name in enumerate(self.names)}

    def retrieval(self, head: Head, *, per_category: bool = False) -> dict[str, Any]:
        photos = dict(zip(self.names, head.embed(self.photos), strict=True))
        ranks = pair_ranks(self.folder, self.pairs, head.embed(self.sketches), photos, per_category=per_category)
        sizes = Counter(self.folder.photo_category[name] if per_category else "" for name in self.names)
        galleries = np.array([sizes[pair.category if per_category else ""] for pair in self.pairs])
        return figures_of(ranks, galleries, [pair.photo for pair in self.pairs])

    def adapted(self, head: Head, tasks: list[Task], k: int) -> dict[str, Any]:
        """Before and after: as shipped ("guarded"), without the guard, and with the gallery's other photos as negatives too."""
        result = {}
        recipes = {
            "guarded": AdaptOptions(),
            "plain": AdaptOptions(guard=False),
            "gallery negatives": AdaptOptions(negatives="gallery"),
        }
        for name, options in recipes.items():
            table = adaptation(self.sketches, self.photos, head, tasks, Protocol(k, DRAWS, 0, options))
            result[name] = {key: value for key, value in table.items() if key != "by_task"}
        return result


def people(encoded: Encoded, head: Head, users: frozenset[str], photos: frozenset[str] | None, k: int) -> dict[str, Any]:
    """Adaptation to people, their gallery being `photos` (None: all)."""
    gallery = sorted(encoded.names if photos is None else photos)
    return encoded.adapted(head, person_tasks(select(encoded.pairs, users=users, photos=photos), gallery, *encoded.rows), k)


def photo_sets(model: Path, data: Path, threads: int) -> dict[str, Any]:
    """Retrieval among validation photos of chairs and shoes, without adaptation."""
    encode, head, spec = open_model(model, threads)
    sides = (encode, spec), open_sketches(model, threads, (encode, spec))
    result: dict[str, Any] = {"model": model.name, "head": head.digest}
    for item in validation_sets(data, PHOTO_SETS):
        encoded = Encoded.of(item.folder, item.pairs, sorted(item.photos or ()), *sides)
        result[item.name] = encoded.retrieval(head)
    return result


def report(model: Path, data: Path, threads: int) -> dict[str, Any]:
    """Figures on people, objects and categories that training never saw, before and after adaptation."""
    encode, head, spec = open_model(model, threads)
    sides = (encode, spec), open_sketches(model, threads, (encode, spec))
    result: dict[str, Any] = {"model": model.name, "head": head.digest, "draws": DRAWS}

    drawings = PairsFolder.read(data / "drawings32")
    split = split_drawings(drawings)
    kept_out = select(drawings.pairs, users=split.test | split.demo)
    encoded = Encoded.of(drawings, kept_out, sorted(drawings.photo_category), *sides)
    for name, users in (("20 people", split.test), ("demo people", split.demo)):
        result[f"drawings32 {name}, 32 objects"] = people(encoded, head, users, None, 5)
        result[f"drawings32 {name}, 16 objects never seen"] = people(encoded, head, users, split.unseen, 5)

    sketchy = PairsFolder.read(data / "sketchy")
    pairs = select(sketchy.pairs, categories=split_categories(sketchy).test)
    touched = {pair.category for pair in pairs}
    names = sorted(name for name, category in sketchy.photo_category.items() if category in touched)
    encoded = Encoded.of(sketchy, pairs, names, *sides)
    tasks = category_tasks(pairs, {name: sketchy.photo_category[name] for name in names}, *encoded.rows)
    result["sketchy 12 categories never seen"] = {"retrieval": encoded.retrieval(head, per_category=True)}
    for k in (1, 5, 10):
        result["sketchy 12 categories never seen"][f"k={k}"] = encoded.adapted(head, tasks, k)
    return result


def write(arguments: argparse.Namespace) -> int:
    """Measure and write the JSON file, whole or not at all."""
    result = report(arguments.model, arguments.data, arguments.threads)
    if arguments.twin is not None:
        result["twin"] = photo_sets(arguments.twin, arguments.data, arguments.threads)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(arguments.out, (json.dumps(result, indent=2) + "\n").encode())
    return 0


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.report", description=__doc__)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--twin", type=Path, help="the same recipe with chairs and shoes held back")
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--threads", type=int, default=2)
    arguments = options.parse_args()
    return run(lambda: write(arguments))


if __name__ == "__main__":
    sys.exit(main())
