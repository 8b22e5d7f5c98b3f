"""Official downloads in this project's layout: ``python -m training.import_data --layout qmul-v2|sketchy|quickdraw SOURCE DIR``.

DIR gets photos/, strokes.npz or sketches/, pairs.csv and source.json, and appears only when everything is in it. Every photo is
decoded and every sketch read once on the way. Layouts are described in docs/data.md.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from tqdm import tqdm

from fgsbir_edge.console import put, put_json, run, say
from fgsbir_edge.errors import FgsbirError, PairsFormatError
from fgsbir_edge.pairs import Pair
from fgsbir_edge.raster import RasterSpec, rasterize
from fgsbir_edge.sketch import Sketch
from training.data.official import OfficialSet
from training.data.qmul import read_qmul_v2
from training.data.quickdraw import QuickDrawOptions, QuickDrawSet, read_quickdraw_sets
from training.data.sketchy import INVALID, PLAIN, SketchyOptions, read_sketchy
from training.data.unlabelled import damage
from training.data.writing import FolderWriter

LAYOUTS = ("qmul-v2", "sketchy", "quickdraw")
_NAMED = 5  # notes that are also said aloud; source.json has all
_PICTURE = RasterSpec(256, 256, "antialias", 2.0, "dark")  # the "photo" of a QuickDraw drawing


def write_official(part: OfficialSet, target: Path, facts: dict[str, object], *, skip_bad: bool) -> dict[str, object]:
    """Copy one split into a new folder; returns what source.json says.

    Raises what reading a photo or a sketch raises, unless `skip_bad`: then damaged files are left out and named. OutputError.
    """
    left_out = list(part.notes)

    def passed(name: str, problem: FgsbirError) -> None:
        if not skip_bad:
            raise problem
        left_out.append(f"{name}: {problem}")

    with FolderWriter(target) as writer:
        photos = set()
        for name in tqdm(sorted(part.photo_category), desc="photos", disable=None, leave=False):
            path = part.photo_path(name)
            if problem := damage(path):
                passed(name, problem)
                continue
            writer.photo(name, path)
            photos.add(name)
        pairs = 0
        for pair in tqdm(part.pairs, desc="sketches", disable=None, leave=False):
            if pair.photo not in photos:
                continue
            try:
                item = part.sketch(pair.sketch)
            except FgsbirError as problem:
                passed(pair.sketch, problem)
                continue
            source = part.sketch_files[pair.sketch]
            if isinstance(item, Sketch):
                writer.strokes(pair.sketch, item)
            elif isinstance(source, Path):
                writer.drawing(pair.sketch, source)
            writer.pair(pair)
            pairs += 1
        if lost := sum(pair.photo not in photos for pair in part.pairs):
            left_out.append(f"{lost} sketches of these photos")
        if not pairs:
            raise PairsFormatError(
                f"{part.root}: no sketch left to import ({len(left_out)} left out); check the split and options"
            )
        summary = {**facts, "photos": len(photos), "sketches": pairs, "left_out": left_out}
        writer.note(summary)
    return summary


def write_quickdraw(part: QuickDrawSet, target: Path, facts: dict[str, object]) -> dict[str, object]:
    """Drawings with their own pictures, black on white, as photos. Raises PairsFormatError, OutputError."""
    from PIL import Image

    if not part.sketches:
        raise PairsFormatError(f"{facts['source']}: no drawing left to import; lower --min-points, or take another split")
    with FolderWriter(target) as writer:
        for key, sketch in tqdm(part.sketches.items(), desc="drawings", disable=None, leave=False):
            stream = io.BytesIO()
            Image.fromarray(rasterize(sketch, _PICTURE)[0]).save(stream, "PNG")
            writer.photo(f"{key}.png", stream.getvalue())
            writer.strokes(key, sketch)
            writer.pair(Pair(key, f"{key}.png", part.words[key]))
        summary = {**facts, "photos": len(part.sketches), "sketches": len(part.sketches), "left_out": list(part.notes)}
        writer.note(summary)
    return summary


def read_layout(arguments: argparse.Namespace) -> dict[str, OfficialSet]:
    """The splits of a QMUL or Sketchy download, as the command line describes it. Raises what the readers raise."""
    if arguments.layout == "qmul-v2":
        return read_qmul_v2(arguments.source, arguments.photos, arguments.category)
    return read_sketchy(
        arguments.source,
        SketchyOptions(arguments.categories, arguments.sketches, arguments.transform, frozenset(arguments.keep_invalid)),
    )


def chosen(splits: dict[str, OfficialSet], split: str, source: Path) -> OfficialSet:
    """The split asked for. Raises PairsFormatError when the download does not say what is in it."""
    if split not in splits:
        known = ", ".join(splits)
        raise PairsFormatError(f"{source}: no split {split!r}, only {known}: for Sketchy, put testset.txt into info/")
    return splits[split]


def add_layout_options(parser: argparse.ArgumentParser) -> None:
    """The options that describe a download."""
    parser.add_argument("--photos", type=Path, help="qmul-v2: the photo folder, where it is not beside the rest")
    parser.add_argument("--category", help="qmul-v2: name of the category (default: shoe or chair, by the folder's name)")
    parser.add_argument("--categories", choices=("all", "seen", "unseen"), default="all", help="sketchy: the 104 or the 21")
    parser.add_argument("--sketches", choices=("auto", "svg", "png"), default="auto", help="sketchy: which files")
    parser.add_argument("--transform", default=PLAIN, help="sketchy: name of the rendering (default %(default)s)")
    parser.add_argument("--keep-invalid", nargs="*", choices=INVALID, default=[], help="sketchy: kinds that are not left out")


def import_data(arguments: argparse.Namespace) -> int:
    """Read, write, and say what was done."""
    facts = {"layout": arguments.layout, "source": arguments.source.name, "split": arguments.split}
    if arguments.layout == "quickdraw":
        options = QuickDrawOptions(arguments.limit, arguments.min_points, not arguments.unrecognized, arguments.bad == "skip")
        summary = write_quickdraw(read_quickdraw_sets(arguments.source, options)[arguments.split], arguments.target, facts)
    else:
        part = chosen(read_layout(arguments), arguments.split, arguments.source)
        facts |= {"categories": arguments.categories} if arguments.layout == "sketchy" else {}
        summary = write_official(part, arguments.target, facts, skip_bad=arguments.bad == "skip")
    notes = summary["left_out"]
    assert isinstance(notes, list)
    for note in notes[:_NAMED]:
        say(f"left out: {note}")
    if len(notes) > _NAMED:
        say(f"left out: {len(notes) - _NAMED} more, see {arguments.target / 'source.json'}")
    if arguments.json:
        put_json(summary)
    else:
        put(f"{arguments.target}: {summary['photos']} photos, {summary['sketches']} sketches")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m training.import_data", description=__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="unpacked download, coordinate file, or QuickDraw file")
    parser.add_argument("target", type=Path, metavar="DIR", help="new folder")
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--split", default="train", choices=("train", "test", "valid", "all"))
    parser.add_argument("--bad", choices=("refuse", "skip"), default="refuse", help="damaged photos, sketches and lines")
    parser.add_argument("--limit", type=int, help="quickdraw: at most so many drawings of each file and split")
    parser.add_argument(
        "--min-points", type=int, default=11, help="quickdraw: shorter drawings are left out (default %(default)s)"
    )
    parser.add_argument("--unrecognized", action="store_true", help="quickdraw: keep what the game did not recognise")
    parser.add_argument("--json", action="store_true")
    add_layout_options(parser)
    arguments = parser.parse_args()
    splits = {"qmul-v2": ("train", "test"), "sketchy": ("train", "test", "all"), "quickdraw": ("train", "valid", "test")}
    if arguments.split not in splits[arguments.layout]:
        parser.error(f"{arguments.layout} has no split {arguments.split!r}; choose {', '.join(splits[arguments.layout])}")
    return run(lambda: import_data(arguments))


if __name__ == "__main__":
    sys.exit(main())
