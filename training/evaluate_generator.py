"""How good a generator's sketches are: ``python -m training.evaluate_generator``.

    --generator G --data DIR --classifier C --model M

For the photos of a dataset folder that people have drawn: recognition by a sketch classifier (training.sketch_classifier),
retrieval of the photo by its drawing (a retrieval checkpoint or bundle), FID to people's sketches (METHODS B.10), each with what
people's own sketches reach. ``--drawn OUT`` measures a folder that training.generate has written, instead of drawing. One JSON
object goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.console import put_json, run, say
from fgsbir_edge.errors import FgsbirError, NoPairsError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.photo import load_photo
from fgsbir_edge.sketch import Sketch
from training.data.folder import PairsFolder
from training.data.recipes import ValidationSet
from training.data.splits import ordered
from training.evaluate_model import open_model
from training.evaluate_output import ensure_parent
from training.evaluate_retrieval import Bootstrap
from training.generate import add_drawing_options, artist_options
from training.generation.classifier import TrainedClassifier, load_classifier
from training.generation.drawing import Artist, ArtistOptions, draw_photos, open_artist
from training.generation.photos import splits_of
from training.generation.quality import DrawnSet, Finder, class_quality, drawing_figures, search_quality


@dataclass(frozen=True, eq=False)
class Drawings:
    """Sketches by photo, and for each whether it stopped by itself, where that is known."""

    sketches: dict[str, list[Sketch]]
    ended: dict[str, list[bool]]
    skipped: dict[str, str]


def photos_of(sets: list[ValidationSet], limit: int | None) -> list[str]:
    """The photos that people drew in any of the sets; with `limit`, so many of each, by a hash of their names."""
    names = [ordered((pair.photo for pair in item.pairs), "drawn")[:limit] for item in sets]
    return list(dict.fromkeys(name for part in names for name in part))


def read_drawings(root: Path) -> Drawings:
    """The drawings in a folder of training.generate. Raises PairsFormatError, NoPairsError and what the readers raise."""
    folder = PairsFolder.read(root)
    sketches: dict[str, list[Sketch]] = defaultdict(list)
    for pair in folder.pairs:
        item = folder.sketch(pair.sketch)
        if not isinstance(item, Sketch):
            raise NoPairsError(f"{root}: {pair.sketch} is a picture, expected strokes; give a folder of training.generate")
        sketches[pair.photo].append(item)
    return Drawings(dict(sketches), {}, {})


def drawings_of(artist: Artist, folder: PairsFolder, names: list[str], options: ArtistOptions) -> Drawings:
    """The generator's drawings of photos of a folder; those that cannot be read are `skipped`, with the reason."""
    sketches: dict[str, list[Sketch]] = {}
    ended: dict[str, list[bool]] = {}
    skipped: dict[str, str] = {}

    def load(name: str) -> np.ndarray:
        return load_photo(folder.photo_path(name), artist.input.size, artist.input.photo_fit)

    for item in draw_photos(artist, names, load, options):
        if item.photo is None:
            skipped[item.name] = item.problem
        else:
            sketches[item.name] = [drawn.sketch for drawn in item.sketches]
            ended[item.name] = [drawn.ended for drawn in item.sketches]
    return Drawings(sketches, ended, skipped)


def measure(
    sets: list[ValidationSet],
    drawings: Drawings,
    classifier: TrainedClassifier | None,
    finder: Finder | None,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """All figures by the name of the set. Raises NoPairsError for a set none of whose photos was drawn."""
    results: dict[str, Any] = {}
    for item in sets:
        drawn = DrawnSet.of(item, drawings.sketches)
        if not drawn.pairs:
            raise NoPairsError(f"{item.name}: not one of its photos was drawn; was this folder drawn from other photos?")
        photos = sorted(set(drawn.photos))
        ended = [flag for photo in photos for flag in drawings.ended.get(photo, [])]
        figures: dict[str, Any] = {"photos": len(photos), "drawings": drawing_figures(drawn.sketches, ended)}
        if classifier is not None:
            figures |= class_quality(classifier, item, drawn, bootstrap)
        if finder is not None:
            figures["retrieval"] = search_quality(finder, item, drawn, bootstrap)
        results[item.name] = figures
    return results


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="python -m training.evaluate_generator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--generator", type=Path, help="checkpoint of python -m training.generator, .safetensors")
    source.add_argument("--drawn", type=Path, help="folder of python -m training.generate")
    add("--data", type=Path, required=True, help="dataset folder: photos/, sketches/ or strokes.npz, pairs.csv")
    add("--pairs", default="pairs.csv", metavar="NAME", help="pairs table in the folder (pairs.csv)")
    add("--split", choices=("all", "validation"), default="validation", help="validation: what training holds back (default)")
    add("--classifier", type=Path, help="for recognition and FID: checkpoint of python -m training.sketch_classifier")
    add("--model", type=Path, help="for retrieval: bundle folder, or checkpoint .safetensors")
    add("--output", type=Path, metavar="FILE.json", help="write the JSON object to a file too")
    add_drawing_options(options)
    return options


def evaluate(arguments: argparse.Namespace) -> int:
    """Draw (or read), measure, print one JSON object."""
    if arguments.classifier is None and arguments.model is None:
        raise FgsbirError("nothing to measure with: give --classifier for recognition and FID, --model for retrieval, or both")
    if arguments.output is not None:
        ensure_parent(arguments.output)
    folder = PairsFolder.read(arguments.data, arguments.pairs)
    sets = splits_of(folder, arguments.split)
    classifier = None if arguments.classifier is None else load_classifier(arguments.classifier)
    finder = None if arguments.model is None else Finder(*open_model(arguments.model, arguments.threads))
    if arguments.drawn is not None:
        drawings = read_drawings(arguments.drawn)
    else:
        artist = open_artist(arguments.generator, arguments.device, arguments.threads)
        drawings = drawings_of(artist, folder, photos_of(sets, arguments.limit), artist_options(arguments))
    for name, reason in drawings.skipped.items():
        say(f"skipped {name}: {reason}")
    bootstrap = Bootstrap(seed=arguments.seed)
    sampling = {name: getattr(arguments, name) for name in ("samples", "temperature", "pen_temperature", "greedy", "seed")}
    result: dict[str, Any] = {
        "generator": (arguments.generator or arguments.drawn).resolve().name,
        "data": arguments.data.resolve().name,
        "split": arguments.split,
        "drawing": None if arguments.drawn is not None else sampling,
        "classifier": None if arguments.classifier is None else arguments.classifier.name,
        "model": None if arguments.model is None else arguments.model.resolve().name,
        "skipped": drawings.skipped,
        "bootstrap": bootstrap.to_json(),
        "sets": measure(sets, drawings, classifier, finder, bootstrap),
    }
    put_json(result)
    if arguments.output is not None:
        write_atomic(arguments.output, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())
    return 0


def main() -> int:
    arguments = parser().parse_args()
    return run(lambda: evaluate(arguments))


if __name__ == "__main__":
    sys.exit(main())
