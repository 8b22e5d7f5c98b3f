"""Sketches of photos by a trained generator: ``python -m training.generate --generator G.safetensors --photos DIR --out OUT``.

OUT is a dataset folder (docs/data.md) of the photos and their drawings, which every other command reads, with

    svg/KEY.svg, png/KEY.png     every drawing, one polyline a stroke in the order of drawing
    animation/KEY.svg, KEY.gif   with --animate: the drawing draws itself
    attention/KEY/NNN.png        with --attention: where the generator looked for each point, and the drawing so far
    sheet.png                    with --sheet N: N photos with their drawings, and a person's sketch where there is one

It appears when all is in it, or not at all. Equal options give equal files, and a photo the same drawings whatever is beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgsbir_edge.arguments import positive
from fgsbir_edge.console import put_json, run, say
from fgsbir_edge.encoder.onnx import default_threads
from fgsbir_edge.errors import EmptySketchError, FgsbirError, OutputError, UnreadableImageError
from fgsbir_edge.formats.svg import write_svg
from fgsbir_edge.photo import load_photo
from fgsbir_edge.sketch import Sketch
from training.data.folder import Pair
from training.data.writing import FolderWriter
from training.generation.drawing import Artist, ArtistOptions, DrawnPhoto, DrawnSketch, draw_photos, open_artist
from training.generation.photos import PhotoList, list_photos
from training.generation.pictures import LINE, animated_gif, animated_svg, attention_frames, few_colours, is_dot, picture, png
from training.generation.sheet import SheetEntry, write_drawn_sheet

USER = "generator"  # who drew, in pairs.csv


@dataclass(frozen=True)
class Extras:
    """What is written beside SVG, PNG and the dataset. `sheet`: photos on the contact sheet, 0 for none; `only_drawings`: their
    places alone, without photos and people's sketches.
    """

    animate: frozenset[str] = frozenset()
    attention: bool = False
    sheet: int = 0
    only_drawings: bool = False


@dataclass
class Report:
    """What was drawn, for JSON."""

    photos: int = 0
    sketches: int = 0
    points: list[int] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        mean = round(float(np.mean(self.points)), 2) if self.points else None
        counts = {"photos": self.photos, "sketches": self.sketches, "mean_points": mean}
        return {**counts, "unfinished": self.unfinished, "empty": self.empty, "skipped": self.skipped}


def keys_of(names: Sequence[str]) -> dict[str, str]:
    """What a photo's drawings are called: its name without the ending, with it where two photos would share a name."""
    stems = {name: str(Path(name).with_suffix("")) for name in names}
    times = Counter(stems.values())
    keys = {name: stem if times[stem] == 1 else name for name, stem in stems.items()}
    return keys if len(set(keys.values())) == len(keys) else {name: name for name in names}  # a.png, a.bmp and a.png.jpg


def write_drawings(artist: Artist, photos: PhotoList, out: Path, options: ArtistOptions, extras: Extras) -> Report:
    """Draw `photos` into the new folder `out`.

    Raises:
        OutputError: `out` is there and not empty, or cannot be written.
        UnreadableImageError: not one photo could be read.
        EmptySketchError: not one drawing has a line.
    """
    report, keys = Report(), keys_of(photos.names)
    entries: list[SheetEntry] = []

    def load(name: str) -> np.ndarray:
        return load_photo(photos.folder.photo_path(name), artist.input.size, artist.input.photo_fit)

    with FolderWriter(out) as writer:
        for item in draw_photos(artist, photos.names, load, options):
            if item.photo is None:
                report.skipped[item.name] = item.problem
                continue
            writer.photo(item.name, photos.folder.photo_path(item.name))
            report.photos += 1
            for key, drawn in _named(item, keys[item.name]):
                _note(report, key, drawn)
                if not is_dot(drawn.sketch):
                    writer.strokes(key, drawn.sketch)
                    writer.pair(Pair(key, item.name, photos.folder.photo_category[item.name], USER))
                _write_pictures(writer.folder, key, item, drawn, extras)
            if len(entries) < extras.sheet:
                entries.append(_entry(photos, item, extras.only_drawings))
        if not report.photos:
            first = next(iter(report.skipped.values()), "the folder is empty")
            raise UnreadableImageError(f"not one of {len(photos.names)} photos can be drawn: {first}")
        if len(report.empty) == report.sketches:
            raise EmptySketchError(f"not one of {report.sketches} drawings has a line: train the generator longer")
        if extras.sheet:
            title = f"{len(entries)} photos and what the generator drew of them"
            write_drawn_sheet(writer.folder / "sheet.png", title, entries)
        writer.note({"made_by": "training.generate", **report.to_json()})
    return report


def _named(item: DrawnPhoto, key: str) -> Iterator[tuple[str, DrawnSketch]]:
    """Every drawing of a photo with its key: that of the photo and a number, as QMUL counts them."""
    for number, drawn in enumerate(item.sketches, start=1):
        yield f"{key}_{number}", drawn


def _note(report: Report, key: str, drawn: DrawnSketch) -> None:
    report.sketches += 1
    report.points.append(drawn.sketch.num_points)
    if is_dot(drawn.sketch):
        report.empty.append(key)
    if not drawn.ended:
        report.unfinished.append(key)


def _write_pictures(folder: Path, key: str, item: DrawnPhoto, drawn: DrawnSketch, extras: Extras) -> None:
    sketch: Sketch = drawn.sketch
    vector = _place(folder, "svg", f"{key}.svg")
    write_svg(vector, sketch, LINE)
    _put(_place(folder, "png", f"{key}.png"), png(picture(sketch)))
    if "svg" in extras.animate:
        _put(_place(folder, "animation", f"{key}.svg"), animated_svg(sketch))
    if "gif" in extras.animate:
        _put(_place(folder, "animation", f"{key}.gif"), animated_gif(sketch))
    if extras.attention and drawn.attention is not None and item.photo is not None:
        for number, frame in enumerate(attention_frames(item.photo, sketch, drawn.attention)):
            _put(_place(folder, "attention", f"{key}/{number:03d}.png"), png(few_colours(frame)))


def _place(folder: Path, kind: str, name: str) -> Path:
    """A file's path, its folder made. Raises OutputError."""
    path = folder / kind / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot make its folder ({error.strerror or error}); choose another --out") from error
    return path


def _put(path: Path, content: bytes) -> None:
    """Write a file of a folder that is not yet in its place, so that it needs no care of its own. Raises OutputError."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot write ({error.strerror or error}); choose a place with free space") from error


def _entry(photos: PhotoList, item: DrawnPhoto, only_drawings: bool) -> SheetEntry:
    """A photo of the contact sheet, with a person's sketch of it that can be read, if there is one."""
    assert item.photo is not None
    sketches = tuple(drawn.sketch for drawn in item.sketches)
    if only_drawings:
        return SheetEntry(item.name, None, sketches)
    person, name = None, photos.person(item.name)
    if name is not None:
        try:
            person = photos.folder.sketch(name)
        except FgsbirError as error:
            say(f"sheet without the person's sketch: {error}")
    return SheetEntry(item.name, item.photo, sketches, person)


def add_drawing_options(options: argparse.ArgumentParser) -> None:
    """The options of drawing that other commands have too."""
    add = options.add_argument
    add("--samples", type=positive, default=1, help="drawings of each photo (1)")
    add("--temperature", type=float, default=ArtistOptions.temperature, help="of chance; 1: as learned (%(default)s)")
    add("--pen-temperature", type=float, default=ArtistOptions.pen_temperature, help="of lifting and ending (%(default)s)")
    add("--greedy", action="store_true", help="the likeliest line at every step, no chance")
    add("--seed", type=int, default=0)
    add("--batch", type=positive, default=ArtistOptions.batch, help="photos encoded at a time (%(default)s)")
    add("--threads", type=positive, default=default_threads(), help="of the generator and of decoding photos")
    add("--device", default="cpu", help="where the generator runs: cpu, or cuda where there is a GPU (%(default)s)")
    add("--limit", type=positive, metavar="N", help="draw N photos only, spread over the folder by a hash of their names")


def artist_options(arguments: argparse.Namespace, *, attention: bool = False) -> ArtistOptions:
    """What `add_drawing_options` read. Raises FgsbirError for numbers that do not fit."""
    own = ("samples", "temperature", "pen_temperature", "greedy", "seed", "batch", "threads")
    try:
        values = {name: getattr(arguments, name) for name in own}
        return ArtistOptions(**values, attention=attention, progress="drawing")
    except ValueError as error:
        raise FgsbirError(str(error)) from None


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="python -m training.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--generator", type=Path, required=True, help="checkpoint of python -m training.generator, .safetensors")
    add("--photos", type=Path, required=True, help="a photo, a folder of photos, or a dataset folder")
    add("--out", type=Path, required=True, help="new folder")
    add("--category", default="", help="of photos that have none (default: the name of their sub-folder)")
    add("--split", choices=("all", "validation"), default="all", help="validation: photos that training holds back")
    add("--animate", nargs="*", choices=("svg", "gif"), default=[], help="animations of every drawing")
    add("--attention", action="store_true", help="pictures of where the generator looked, one a point")
    add("--sheet", type=positive, default=0, metavar="N", help="contact sheet of N photos")
    add("--sheet-drawings-only", action="store_true", help="on it no photos and people's sketches: they may not be yours to show")
    add_drawing_options(options)
    return options


def generate(arguments: argparse.Namespace) -> int:
    """Draw, write, and say what was done."""
    options = artist_options(arguments, attention=arguments.attention)
    photos = list_photos(arguments.photos, arguments.category, arguments.split).limited(arguments.limit)
    artist = open_artist(arguments.generator, arguments.device, arguments.threads)
    extras = Extras(frozenset(arguments.animate), arguments.attention, arguments.sheet, arguments.sheet_drawings_only)
    if arguments.attention and not artist.generator.config.use_attention:
        say("note: this generator has no 2D attention, so there are no pictures of it")
    report = write_drawings(artist, photos, arguments.out, options, extras)
    for name, reason in report.skipped.items():
        say(f"skipped {name}: {reason}")
    put_json({"generator": arguments.generator.name, "out": str(arguments.out), **report.to_json()})
    return 0


def main() -> int:
    arguments = parser().parse_args()
    return run(lambda: generate(arguments))


if __name__ == "__main__":
    sys.exit(main())
