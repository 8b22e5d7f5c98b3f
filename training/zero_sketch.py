"""The zero-sketch start: what a category's photos, or drawings made of them, say before anybody has drawn it.

``python -m training.zero_sketch measure --config C --data D --model BUNDLE --out O`` measures starts from photos, their edges
and, with --generator, drawings of them (with --discriminator also weighted by its certainty) against no adaptation and real
pairs: O/zero_sketch.json and .md, and each start's constants as O/NAME.safetensors. ``fit`` writes the bundle with the constants
of the start from photos, ``draw`` one category's adapter from generated drawings of its photos. docs/zero_sketch.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.console import put_json, run
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.errors import BundleFormatError, EmptyGalleryError
from fgsbir_edge.files import pack_tensors, read_bounded, unpack_tensors, write_atomic
from fgsbir_edge.gallery.folder import photo_names
from fgsbir_edge.head import Head
from fgsbir_edge.start import REFERENCE, Start
from fgsbir_edge.zero_sketch import shifted_start
from training.config import read_config, to_table
from training.generation.drawing import open_artist
from training.zero_sketch_bench import Bench, Given
from training.zero_sketch_drawn import Photos, generated, open_judge
from training.zero_sketch_start import StandIns
from training.zero_sketch_table import ZeroSketchConfig, tables

log = logging.getLogger("training.zero_sketch")

START_FORMAT = "fgsbir-edge-start-1"


def measure(config: ZeroSketchConfig, given: Given, out: Path) -> dict[str, Any]:
    """Fit every start on training categories, measure all of them, and write the report. Raises what Bench.open raises."""
    bench = Bench.open(config, given)
    found = {}
    for name, stand_ins in bench.stand_ins().items():
        found[name] = stand_ins, bench.fitted(stand_ins)
        log.info("%s: share %g of %s", name, found[name][1].start.share, found[name][1].curve)
    report = tables(bench.head, bench.rows, bench.setting, found, config.protocol)
    text = report.pop("markdown")
    figures = {
        "model": given.model.resolve().name,
        **to_table(config),
        "starts": {
            name: {"share": fitted.start.share, "training_acc@1_by_share": fitted.curve} | _drawn(stand_ins.weights)
            for name, (stand_ins, fitted) in found.items()
        },
        **report,
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, (_, fitted) in found.items():
        write_start(out / f"{name}.safetensors", fitted.start, bench.head)
    write_atomic(out / "zero_sketch.json", (json.dumps(figures, indent=1, allow_nan=False) + "\n").encode())
    write_atomic(out / "zero_sketch.md", text.encode())
    return figures


def _drawn(weights: np.ndarray) -> dict[str, Any]:
    return {"stand_ins": len(weights), "mean_weight": round(float(weights.mean()), 4)}


def fit_bundle(config: ZeroSketchConfig, given: Given, out: Path) -> dict[str, Any]:
    """The bundle with the constants of the start from photos, written to `out`, and in its provenance where they come from.

    Raises BundleFormatError where the model is a checkpoint, and what Bench.open and Bundle.save raise.
    """
    if given.model.is_file():
        raise BundleFormatError(f"{given.model}: constants go into a bundle; export the checkpoint first with export.bundle")
    bench = Bench.open(config, given)
    fitted = bench.fitted(StandIns.of_photos(bench.rows.photo_rows))
    bundle = Bundle.load(given.model)
    facts = {
        "folder": config.setting.folder,
        "categories": len(bench.setting.choosing),
        "share": fitted.start.share,
        "training_acc@1_by_share": fitted.curve,
    }
    provenance = {**bundle.provenance, "zero_sketch": facts}
    replace(bundle, head=replace(bundle.head, start=fitted.start), provenance=provenance).save(out)
    return {"bundle": str(out), **facts}


def draw(arguments: argparse.Namespace, config: ZeroSketchConfig) -> dict[str, Any]:
    """The adapter of one category from generated drawings of the photos in a folder, kept in a file that `--adapter` takes.

    Raises EmptyGalleryError for a folder without photos, and what opening the files raises.
    """
    bundle = Bundle.load(arguments.model)
    start = read_start(arguments.start, bundle.head)
    names = photo_names(arguments.photos, recursive=True)
    if not names:
        raise EmptyGalleryError(f"{arguments.photos}: no JPEG, PNG, WebP or BMP photos in it; give the category's folder")
    torch.set_num_threads(config.threads)
    network = OnnxEncoder(bundle, threads=config.threads).encode, bundle.input
    judge = None if arguments.discriminator is None else open_judge(arguments.discriminator, bundle.input)
    photos = Photos(tuple(names), lambda name: Path(arguments.photos) / name)
    found = generated(open_artist(arguments.generator, "cpu", config.threads), photos, config.drawing, network, judge)
    shift = start.shift(found.mean(bundle.head, np.arange(len(names))))
    facts = {"photos": str(len(names)), "drawings": str(len(found.rows)), "share": f"{start.share:.6g}"}
    facts |= {"bundle": bundle.name, "features_digest": bundle.features_digest}
    shifted_start(bundle.head, shift, facts, source="generated" if judge is None else "certain").save(arguments.out)
    return {"adapter": str(arguments.out), "photos": len(names), "drawings": len(found.rows), "share": start.share}


def write_start(path: Path, start: Start, head: Head) -> None:
    """Constants of a start as a file, bound to the head they were fitted for. Raises OutputError."""
    meta = {"format": START_FORMAT, "head": head.digest, "start_share": repr(float(start.share))}
    write_atomic(path, pack_tensors({REFERENCE: start.reference}, meta))


def read_start(path: Path, head: Head) -> Start:
    """Read them again. Raises BundleFormatError for another file, or another head's."""
    try:
        tensors, meta = unpack_tensors(read_bounded(path))
        if (meta.get("format"), meta.get("head")) != (START_FORMAT, head.digest):
            raise ValueError("not the constants of a start for this bundle's head")
        return Start(tensors[REFERENCE], float(meta["start_share"]))
    except (OSError, KeyError, ValueError) as error:
        raise BundleFormatError(f"{path}: {error}; write it with 'python -m training.zero_sketch measure'") from error


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m training.zero_sketch", description=__doc__)
    commands = options.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, written in (
        ("measure", "the table of starts against no adaptation and real pairs", "folder for the table and the starts"),
        ("fit", "the bundle with the constants of the start from photos", "bundle folder to write"),
        ("draw", "the adapter of one category from generated drawings of its photos", "adapter file to write"),
    ):
        add = commands.add_parser(name, help=text, description=text).add_argument
        add("--config", type=Path, required=True, help="TOML file, e.g. training/configs/zero_sketch.toml")
        add("--model", type=Path, required=True, help="bundle folder")
        add(
            "--out",
            type=Path,
            required=True,
            help=written,
        )
        add("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. protocol.draws=20; repeatable")
        if name != "draw":
            add("--data", type=Path, required=True, help="folder that holds the dataset folder that the file names")
            add("--cache", type=Path, required=name == "fit", help="folder for encoded features; default: in --out")
        else:
            add("--photos", type=Path, required=True, help="folder with the category's photos, however deep")
            add("--start", type=Path, required=True, help="constants that 'measure' wrote")
        if name != "fit":
            add("--generator", type=Path, required=name == "draw", help="of training.generator: draws photos")
            add("--discriminator", type=Path, help="of training.semi_supervised: weighs the drawings")
    return options


def main() -> int:
    arguments = parser().parse_args()

    def start() -> int:
        config = read_config(arguments.config, ZeroSketchConfig, arguments.set)
        if arguments.command == "draw":
            put_json(draw(arguments, config))
            return 0
        judges = getattr(arguments, "generator", None), getattr(arguments, "discriminator", None)
        given = Given(arguments.data, arguments.model, arguments.cache or arguments.out / "features", *judges)
        put_json((measure if arguments.command == "measure" else fit_bundle)(config, given, arguments.out))
        return 0

    return run(start)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main())
