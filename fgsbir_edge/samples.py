"""A folder to try everything in, as the README and the tutorials expect it: ``fgsbir-edge samples FOLDER``."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from fgsbir_edge.console import Stages, put, put_json
from fgsbir_edge.errors import OutputError
from fgsbir_edge.pairs import DEMO_FOLDER, DataFolder, Pair, draw_support

DESCRIPTION = "Make a folder to try everything in: photos, one person's drawings of them, and tables of pairs."
SHOTS = 5  # pairs to learn from, the ones that the demo draws


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("folder", metavar="FOLDER", help="a new folder, or an empty one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def samples_command(arguments: argparse.Namespace, _: Stages) -> int:
    """``fgsbir-edge samples``."""
    folder = Path(arguments.folder)
    photos = write_samples(folder)
    if arguments.json:
        put_json({"folder": str(folder), "photos": photos})
    else:
        put(f"{folder}: {photos} photos, a drawing of each, pairs.csv and queries.csv; data/mine for training")
        put(f"next: cd {folder}")
    return 0


def write_samples(folder: Path) -> int:
    """Write ``photos/``, ``sketches/``, ``pairs.csv``, ``queries.csv`` and ``data/mine/``; returns how many photos.

    Everything is copied before anything appears. Raises OutputError, also where the folder is there and not empty.
    """
    demo = DataFolder.open(DEMO_FOLDER)
    person = demo.users[0]
    support, queries = draw_support(demo.select(person), SHOTS, 0)
    scratch = folder / ".part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(f"{folder}: is there already and not empty; choose a new folder")
        shutil.copytree(demo.photos, scratch / "photos")
        shutil.copytree(DEMO_FOLDER / "sketches" / person, scratch / "sketches")
        shutil.copytree(DEMO_FOLDER, scratch / "data" / "mine")
        shutil.copy(DEMO_FOLDER / "LICENSE", scratch / "LICENSE")
        for name, pairs in (("pairs.csv", support), ("queries.csv", queries)):
            (scratch / name).write_text(_table(pairs), encoding="utf-8")
        for part in list(scratch.iterdir()):
            part.rename(folder / part.name)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{folder}: cannot write ({reason}); choose a writable folder with free space") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return sum(1 for _ in (folder / "photos").iterdir())


def _table(pairs: list[Pair]) -> str:
    rows = [f"sketches/{Path(pair.sketch).name},{pair.photo}" for pair in pairs]
    return "\n".join(["sketch,photo", *rows, ""])
