"""QuickDraw for pre-training a generator: ndjson files, simplified or raw, and the .npz files of Sketch-RNN.

    shoe.ndjson            one drawing a line; no official split: a thirtieth each goes to valid and test, by the drawing's number
    sketchrnn_shoe.npz     stroke-3 in train, valid and test: 70,000, 2,500 and 2,500 drawings, the split that is used

There are no photos: a drawing's picture is the drawing itself, rasterised, black on white. Who drew is not published.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from fgsbir_edge.errors import EmptySketchError, FgsbirError, SketchFormatError, UnreadableImageError
from fgsbir_edge.formats._files import located
from fgsbir_edge.formats.quickdraw import iter_quickdraw
from fgsbir_edge.formats.stroke3 import from_stroke3
from fgsbir_edge.sketch import Sketch
from training.data.object_npz import Array, read_object_npz

SPLITS = ("train", "valid", "test")
SUFFIXES = (".ndjson", ".npz")
_PARTS = 30  # of which one is valid and one is test: the proportions of Sketch-RNN


@dataclass(frozen=True)
class QuickDrawOptions:
    """Which drawings are kept.

    Args:
        limit: at most so many of each split of a file, the first ones; None: all.
        min_points: shorter drawings are left out; the papers' pre-training takes more than 10 points.
        recognized: leave out the drawings that the game did not recognise (ndjson alone says so).
        skip_bad: pass over lines and rows that cannot be read, and name them in `notes`, instead of raising.
    """

    limit: int | None = None
    min_points: int = 11
    recognized: bool = True
    skip_bad: bool = False


@dataclass(frozen=True)
class QuickDrawSet:
    """Drawings of one split by key ``word/number``, centred on the 256-unit canvas, in the file's order; what was left out."""

    sketches: dict[str, Sketch] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_quickdraw_sets(source: str | Path, options: QuickDrawOptions | None = None) -> dict[str, QuickDrawSet]:
    """The splits "train", "valid" and "test" of a file, or of all .ndjson and .npz files of a folder.

    Raises:
        UnreadableImageError: nothing there.
        SketchFormatError: another kind of file, a truncated file or line (unless `skip_bad`), or two drawings of one number.
        What Sketch raises, unless `skip_bad`; drawings without extent are always left out.
    """
    sets = {split: QuickDrawSet() for split in SPLITS}
    options = options or QuickDrawOptions()
    for path in _files(Path(source)):
        counts = dict.fromkeys((*SPLITS, "short", "empty", "not recognised"), 0)
        read = _from_ndjson if path.suffix.lower() == ".ndjson" else _from_npz
        bad: list[str] = []
        for split, word, number, sketch in read(path, options, bad, counts):
            key = f"{word}/{number}"
            if key in sets[split].sketches:
                raise SketchFormatError(f"{path}: drawing {key} is there twice: give each file once")
            sets[split].sketches[key] = sketch
            sets[split].words[key] = word
            counts[split] += 1
        notes = [f"{path.name}: {counts[kind]} {kind}" for kind in ("short", "empty", "not recognised") if counts[kind]]
        for found in sets.values():
            found.notes.extend([*notes, *bad])
    return sets


def _files(source: Path) -> list[Path]:
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise SketchFormatError(f"{source}: expected .ndjson or .npz: give a QuickDraw file or a folder of them")
        return [source]
    found = sorted(path for path in source.glob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UnreadableImageError(f"{source}: no .ndjson or .npz file there: give a QuickDraw file or a folder of them")
    return found


def _word(text: str, path: Path) -> str:
    """A word as a folder name; a word comes from the file, so it is checked."""
    word = text.strip().replace(" ", "_")
    if not re.fullmatch(r"[\w()'-][\w()'.-]*", word):
        raise SketchFormatError(f"{path}: word {text!r} cannot name a category: letters, digits, spaces, - and _ are expected")
    return word


def _kept(sketch: Sketch, options: QuickDrawOptions, counts: dict[str, int]) -> Sketch | None:
    """The sketch, centred; None if it is too short or has no extent."""
    if sketch.num_points < options.min_points:
        counts["short"] += 1
        return None
    try:
        return sketch.centred()
    except EmptySketchError:
        counts["empty"] += 1
        return None


def _from_ndjson(
    path: Path, options: QuickDrawOptions, bad: list[str], counts: dict[str, int]
) -> Iterator[tuple[str, str, str, Sketch]]:
    def failed(error: FgsbirError) -> None:
        if isinstance(error, EmptySketchError):
            counts["empty"] += 1
        elif options.skip_bad:
            bad.append(str(error))
        else:
            raise error

    for number, drawing in enumerate(iter_quickdraw(path, on_error=failed)):
        if options.limit is not None and all(counts[split] >= options.limit for split in SPLITS):
            return
        if options.recognized and not drawing.recognized:
            counts["not recognised"] += 1
            continue
        name = drawing.key_id or f"{number:06d}"
        if not re.fullmatch(r"\w+", name):
            raise SketchFormatError(f"{path}: key_id {name!r} is not a number")
        split = _split(name)
        if options.limit is not None and counts[split] >= options.limit:
            continue
        sketch = _kept(drawing.sketch, options, counts)
        if sketch is not None:
            yield split, _word(drawing.word or path.stem, path), name, sketch


def _split(number: str) -> str:
    """By the drawing's number alone, so that a limit, or another file, moves none."""
    part = int.from_bytes(hashlib.sha256(number.encode()).digest()[:8], "big") % _PARTS
    return {0: "valid", 1: "test"}.get(part, "train")


def _from_npz(
    path: Path, options: QuickDrawOptions, bad: list[str], counts: dict[str, int]
) -> Iterator[tuple[str, str, str, Sketch]]:
    arrays = read_object_npz(path)
    if missing := [split for split in SPLITS if split not in arrays]:
        raise SketchFormatError(f"{path}: no array {missing[0]!r}, expected train, valid and test: this is no Sketch-RNN file")
    word = _word(path.stem.removeprefix("sketchrnn_").removesuffix(".full"), path)
    for split in SPLITS:
        found = _rows(arrays[split], f"{path}: {split}", options, bad, counts)
        for number, sketch in islice(found, options.limit):
            yield split, word, f"{split}_{number:06d}", sketch


def _rows(
    arrays: list[Array], where: str, options: QuickDrawOptions, bad: list[str], counts: dict[str, int]
) -> Iterator[tuple[int, Sketch]]:
    for number, rows in enumerate(arrays):
        try:
            with located(f"{where} {number}"):
                sketch = _kept(from_stroke3(rows), options, counts)
        except EmptySketchError:
            counts["empty"] += 1
            continue
        except FgsbirError as error:
            if not options.skip_bad:
                raise
            bad.append(str(error))
            continue
        if sketch is not None:
            yield number, sketch
