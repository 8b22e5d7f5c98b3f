"""The command ``fgsbir-edge zero-sketch``: adapters for categories that nobody has drawn yet, from a gallery's photos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from fgsbir_edge.console import Stages, put, put_json
from fgsbir_edge.errors import EmptyGalleryError, OutputError

if TYPE_CHECKING:
    from fgsbir_edge.engine import Engine
    from fgsbir_edge.head import Adapter

DESCRIPTION = "Make a category's adapter from its photos alone, for the time before anybody has drawn it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``fgsbir-edge zero-sketch``."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("category", nargs="?", metavar="CATEGORY", help="as 'list' prints it")
    which.add_argument("--all", action="store_true", help="every category of the gallery")
    parser.add_argument("--gallery", metavar="FILE", required=True)
    parser.add_argument("--artist", metavar="DIR", help="start from drawings of the photo files, by what export.generator wrote")
    parser.add_argument("--bundle", metavar="DIR", help="model folder (the one in the package)")
    parser.add_argument(
        "--output", metavar="PATH", required=True, help="adapter file for 'query --adapter' and 'adapt --start'; --all: folder"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def zero_sketch_command(arguments: argparse.Namespace, _: Stages) -> int:
    """``fgsbir-edge zero-sketch``."""
    from fgsbir_edge.engine import Engine

    with Engine.open(bundle=arguments.bundle, gallery=arguments.gallery) as engine:
        categories = engine.gallery.index.categories if arguments.all else [arguments.category]
        if not categories:
            raise EmptyGalleryError(f"{arguments.gallery}: its photos have no categories; give 'index' sub-folders or --category")
        adapters = {category: _start(engine, category, arguments.artist) for category in categories}
    files = {category: _place(arguments, category) for category in categories}
    for category, path in files.items():
        adapters[category].save(path)
    photos = {category: int(adapter.meta["photos"]) for category, adapter in adapters.items()}
    if arguments.json:
        put_json({"starts": [{"category": name, "photos": photos[name], "file": str(files[name])} for name in files]})
    else:
        for name, path in files.items():
            put(f"{name}\t{photos[name]} photos\t{path}")
    return 0


def _start(engine: Engine, category: str, artist: str | None) -> Adapter:
    if artist is None:
        return engine.start_category(category)
    from fgsbir_edge.zero_sketch_artist import OnnxArtist
    from fgsbir_edge.zero_sketch_drawings import drawn_start

    engine.gallery.index.select(category)
    photos = [item.source for item in engine.gallery.items() if item.category == category]
    return drawn_start(engine, OnnxArtist(artist), photos, category=category)


def _place(arguments: argparse.Namespace, category: str) -> Path:
    """Where an adapter goes; a category's name may hold what no file name can."""
    place = Path(arguments.output)
    if not arguments.all:
        return place
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{place}: cannot make the folder ({error.strerror}); choose another with --output") from error
    return place / f"{quote(category, safe=' ')}.safetensors"
